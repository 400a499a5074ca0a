"""Where control of several processes of one application is found: a socket in the state directory (Linux only).

The first process that finds no control takes the lock, makes the socket and starts a process that inherits both; the
others connect. Each of them says what it is in its first packet, with the descriptor of the memory it counts in, and
gets an index and the words of control, or the reason why not. From then on the connection is a `WorkerChannel`.

The packets before that are JSON objects of names and texts, which every release can read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple, TypeVar

from serving.wire.wire_version import WIRE_VERSION

SOCKET_NAME, LOCK_NAME, WORDS_NAME = "control.socket", "control.lock", "control.words"
BACKLOG = 128
MOST_BYTES = 64 << 10
_CREDENTIALS = struct.Struct("iII")  # see unix(7): process, user, group


class Peer(NamedTuple):
    """The process at the other end, as the kernel says."""

    pid: int
    uid: int

    @property
    def is_trusted(self) -> bool:
        """Whether it belongs to the same user as this one, or to root."""
        return self.uid in {0, os.geteuid()}


@dataclass(frozen=True, slots=True)
class Hello:
    """A process that wants to attach: what it runs, and the settings that have to be the same, as texts."""

    release: str
    settings: dict[str, str]
    wire: int = WIRE_VERSION


@dataclass(frozen=True, slots=True)
class Admission:
    """Control takes it, as worker `index`. Without an index `refusal` says why not."""

    index: int | None = None
    refusal: str | None = None


Greeting = TypeVar("Greeting", Hello, Admission)


def listen_for_processes(directory: Path) -> socket.socket:
    """Return a socket that others find in this directory; the caller has the lock. Blocks. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short_path(directory) as path:
            Path(path).unlink(missing_ok=True)
            sock.bind(path)
            Path(path).chmod(0o600)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def connect_to_control(directory: Path) -> socket.socket | None:
    """Return a connection to the control of this directory, None when there is none. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short_path(directory) as path:
            sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError:
        sock.close()
        raise
    return sock


def take_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of control, None when another process has it. Raises OSError."""
    fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def read_peer(sock: socket.socket) -> Peer:
    """Return which process is at the other end. Raises OSError."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return Peer(pid, uid)


def send_greeting(sock: socket.socket, greeting: Hello | Admission, descriptors: Sequence[int] = ()) -> None:
    """Send the first packet of this side. Raises OSError."""
    socket.send_fds(sock, [json.dumps(asdict(greeting)).encode()], descriptors)


def receive_hello(sock: socket.socket) -> tuple[Hello, list[int]] | None:
    """Return what a process says of itself and its descriptors; None when that makes no sense. Raises OSError."""
    return _receive(sock, Hello)


def receive_admission(sock: socket.socket) -> tuple[Admission, list[int]] | None:
    """Return what control answers and its descriptors; None when it has ended. Raises OSError."""
    return _receive(sock, Admission)


def _receive(sock: socket.socket, kind: type[Greeting]) -> tuple[Greeting, list[int]] | None:
    data, descriptors, _, _ = socket.recv_fds(sock, MOST_BYTES, 4)
    try:
        known = {each.name for each in fields(kind)}
        return kind(**{name: value for name, value in json.loads(data).items() if name in known}), descriptors
    except (ValueError, TypeError, AttributeError):
        for fd in descriptors:
            os.close(fd)
        return None


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """Give a path of the socket that fits into an address, which has room for 107 bytes."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)

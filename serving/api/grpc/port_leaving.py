"""Takes this process from a port that others share, without the loss of a call: gRPC can only end everything at once.

When a server of gRPC stops, calls that are on their way to it are refused as cancelled, and connections that it has not
taken yet are reset (https://github.com/grpc/grpc/issues/24237, https://github.com/grpc/grpc/issues/41785). So it is
first taken from the port: the kernel gives it no more connections. Those it has come of age, one after another, which
loses nothing. For that its sockets are found among the descriptors of this process. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

SETTLE_SECONDS = 0.3  # for connections that are being opened: a few times the way to a client and back

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ESTABLISHED, _LISTEN = 1, 10  # net/tcp_states.h; the first byte of TCP_INFO
# socket(7), bpf in its classic form: drop what has SYN and not ACK, and take everything else.
_DROP_NEW = b"".join(
    struct.pack("=HBBI", *one)
    for one in ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF))
)


async def stop_listening(port: int) -> None:
    """Take no more connections on a port; those that are being opened are taken first. Raises OSError.

    A client that comes in that time is not answered, and tries again after a second; it then reaches another process.
    """
    listening = _list_listening(port)
    for descriptor in listening:
        _drop_new(descriptor)
    await asyncio.sleep(SETTLE_SECONDS)
    with socket.socket(socket.AF_UNIX) as nowhere:  # gRPC finds no connection there, and closes it in the end
        nowhere.setblocking(False)
        nowhere.bind("")  # a free address, see unix(7)
        nowhere.listen()
        for descriptor in listening & _list_listening(port):  # gRPC may have closed some, and others have their numbers
            os.dup2(nowhere.fileno(), descriptor, inheritable=False)


def has_connections(port: int) -> bool:
    """Return whether this process has a connection on a port. Any thread; some microseconds for each descriptor."""
    return any(state == _ESTABLISHED for _, state in _list_sockets(port))


def _list_listening(port: int) -> set[int]:
    """Return the descriptors of this process that listen on a port."""
    return {descriptor for descriptor, state in _list_sockets(port) if state == _LISTEN}


def _list_sockets(port: int) -> list[tuple[int, int]]:
    """Return the descriptors of this process that are TCP sockets on a port, each with its state."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with contextlib.suppress(OSError), _borrowed(descriptor) as one:  # if it is a socket, and not closed by now
            if one.type == socket.SOCK_STREAM and one.family in _FAMILIES and one.getsockname()[1] == port:
                found.append((descriptor, one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]))
    return found


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Lend a descriptor of gRPC as a socket, which is not closed. Raises OSError if it is none."""
    one = socket.socket(fileno=descriptor)
    try:
        yield one
    finally:
        one.detach()


def _drop_new(descriptor: int) -> None:
    code = ctypes.create_string_buffer(_DROP_NEW)
    program = struct.pack("@HP", len(_DROP_NEW) // 8, ctypes.addressof(code))
    with _borrowed(descriptor) as one:
        one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

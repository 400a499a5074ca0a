"""Finds the control of a state directory, and starts one where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from serving import __version__
from serving.domain.errors import StateUnavailable
from serving.settings import Settings, dump_shared
from serving.wire.control_socket import (
    Admission,
    Hello,
    connect_to_control,
    listen_for_processes,
    read_peer,
    receive_admission,
    send_greeting,
    take_lock,
)

ATTACH_SECONDS = 60.0
RETRY_SECONDS = 0.05
LOOK_SECONDS = 0.5  # how soon a stop is seen
# with the path of this process, so that the same code is found; arguments: descriptors of lock, socket and settings
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:]; from serving.supervisor.control_process import main; "
    "sys.exit(main(*map(int, sys.argv[1:4])))"
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a process has got from control: its index, the channel, and the descriptor of the committed generation."""

    index: int
    sock: socket.socket
    words: int


def attach(settings: Settings, counts: int, stop: threading.Event) -> Attachment | None:
    """Attach this process to the control of the state directory, which is started if need be. Blocks.

    `settings` are those that `make_shared` returns.
    `counts` is the descriptor of the memory that this process counts in. Returns None when `stop` is set meanwhile.
    Raises StateUnavailable when control refuses this process or cannot be started.
    """
    directory = settings.state.path
    ends_at = time.monotonic() + ATTACH_SECONDS
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        while not stop.is_set():
            sock = connect_to_control(directory) or _start_control(settings)
            found = None if sock is None else _greet(sock, settings, counts, ends_at, stop)
            if found is not None:
                return found
            if time.monotonic() > ends_at:
                raise StateUnavailable(
                    f"control of {directory} does not answer within {ATTACH_SECONDS:g} s; see the log"
                )
            stop.wait(RETRY_SECONDS)
    except OSError as error:
        raise StateUnavailable(f"the control of {directory} cannot be reached: {error.strerror or error}") from None
    return None


def _greet(
    sock: socket.socket, settings: Settings, counts: int, ends_at: float, stop: threading.Event
) -> Attachment | None:
    """Say what this process is; None when control has ended, or is about to."""
    received: tuple[Admission, list[int]] | None = None
    try:
        if not read_peer(sock).is_trusted:
            raise StateUnavailable(f"the control of {settings.state.path} is another user's")
        sock.settimeout(LOOK_SECONDS)
        send_greeting(sock, Hello(__version__, dump_shared(settings)), [counts])
        while not stop.is_set() and time.monotonic() < ends_at:
            with contextlib.suppress(TimeoutError):
                received = receive_admission(sock)
                break
        if received is None:
            return None
        admission, descriptors = received
        if admission.index is None:
            raise StateUnavailable(admission.refusal or "control refuses this process")
        if not descriptors:
            raise StateUnavailable("this process has no descriptor left for what control hands over")
        sock.settimeout(None)
        return Attachment(admission.index, sock.dup(), descriptors[0])
    except (ConnectionResetError, BrokenPipeError):
        return None
    finally:
        sock.close()


def _start_control(settings: Settings) -> socket.socket | None:
    """Start a control process, and return a connection to it; None when another process is about to start one."""
    directory = settings.state.path
    lock = take_lock(directory)
    if lock is None:
        return None
    try:
        with listen_for_processes(directory) as listener:
            _run_control(settings, lock, listener.fileno())
            return connect_to_control(directory)
    finally:
        os.close(lock)


def _run_control(settings: Settings, lock: int, listener: int) -> None:
    document = os.memfd_create("serving-settings", os.MFD_CLOEXEC)
    try:
        os.write(document, settings.model_dump_json().encode())
        os.lseek(document, 0, os.SEEK_SET)
        descriptors = (lock, listener, document)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, *map(str, descriptors), *sys.path],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's signals are for the application, which ends first
        )
    finally:
        os.close(document)
    # so that it does not stay a zombie when it ends before this process
    threading.Thread(target=process.wait, name="serving-control", daemon=True).start()

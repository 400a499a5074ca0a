"""Starts servers whose first zygote has imported everything already: this process has, and forks it.

    python -P tests/e2e/zygote_source.py FD

Most of what the start of a server costs are the imports of its zygote: two seconds of a processor. This is a zygote
that serves no server: it has the environment of one, one thread, and has computed nothing. For each server that a test
asks for (see `launch`) it forks a process, which forks the zygote-to-be and then executes the server's command line. So
the server is a program of its own, the zygote is its child, and `adopting` hands the zygote over when the server starts
one. One request at a time comes over the socket FD::

    start     JSON with args, cwd, env, session, and the signals that are ignored;
              descriptors 0, 1 and 2 of the server                                 -> process id
    reap      JSON with pid                                                        -> process id or 0, status
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 1 << 17
REPLY = struct.Struct("<qq")  # process id, or a negative error number; status as waitpid gives it
ADOPTING = str(Path(__file__).with_name("adopting.py"))
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # in itself; Popen does not let programs inherit that either
_environment = dict(os.environ)  # scikit-learn adds to it when it is imported


def main() -> None:
    """Import what a zygote does, then start servers until the tests are gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    gc.disable()
    from serving.host import forkserver, preload, replicas  # noqa: F401  (importing is the point)

    gc.freeze()
    gc.enable()
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a process with threads cannot be forked"
    while True:
        raw, descriptors, _, _ = socket.recv_fds(control, MOST_BYTES, 3)
        if not raw:
            return
        asked = json.loads(raw)
        control.sendall(
            REPLY.pack(*(reap(asked["pid"]) if "pid" in asked else (start(control, asked, descriptors), 0)))
        )
        for descriptor in descriptors:
            os.close(descriptor)


def reap(pid: int) -> tuple[int, int]:
    """Return what waitpid returns about a server, which may go on."""
    try:
        return os.waitpid(pid, os.WNOHANG)
    except ChildProcessError as error:
        return -error.errno, 0


def start(control: socket.socket, asked: dict[str, Any], descriptors: list[int]) -> int:
    """Start a server and return its process id, or a negative error number."""
    try:
        pid = os.fork()
    except OSError as error:
        return -error.errno
    if pid == 0:
        with _ending_after():
            control.close()
            _become_server(asked, descriptors)
    return pid


def _become_server(asked: dict[str, Any], descriptors: list[int]) -> NoReturn:
    if asked["session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 256)  # all sockets of this process are among them
    _ignore_signals(asked["ignored"])
    ours, theirs = socket.socketpair()
    zygote = os.fork()
    if zygote == 0:
        with _ending_after():
            ours.close()
            _become_zygote(theirs)
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    ours.set_inheritable(True)
    python, *rest = asked["args"]
    options = rest.index("-m") if rest[0].startswith("-") else 0
    rest[options:options] = [ADOPTING, str(ours.fileno()), str(zygote)]
    os.execve(python, [python, *rest], asked["env"])


def _ignore_signals(ignored: list[int]) -> None:
    """Ignore these signals and no others, but for those that Python ignores in itself."""
    for number in signal.valid_signals() - {*IGNORED_BY_PYTHON}:
        if number in ignored:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _become_zygote(server: socket.socket) -> None:
    """Wait until the server starts a zygote, and become it if its environment is this one; else end."""
    raw, descriptors, _, _ = socket.recv_fds(server, MOST_BYTES, 1)
    if not raw:
        return  # the server has ended before
    is_alike = json.loads(raw) == _environment
    os.setpgid(0, 0)
    server.sendall(b"y" if is_alike else b"n")
    server.close()
    if is_alike:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):
            os.dup2(null, number)
        os.close(null)
        sys.argv[1:] = [str(descriptors[0]), str(os.getppid())]
        sys.modules["serving.host.forkserver"].main()


@contextlib.contextmanager
def _ending_after() -> Iterator[None]:
    """End this forked process at the end of the block, whatever happens there."""
    status = 1
    try:
        yield
        status = 0
    except BaseException:  # noqa: BLE001  (whatever it is, this is not the process to go on with it)
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()

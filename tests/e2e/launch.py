"""Starts servers and commands through one process that has imported what zygotes import: see `zygote_source`."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.sandbox import scrub_environment
from tests.e2e.zygote_source import REPLY

SOURCE = Path(__file__).parent / "zygote_source.py"
# what hosts of tests import besides; who starts a server with another path gets no zygote that has imported everything
MATERIAL = Path(__file__).parent / "material"
_PARAMETERS = subprocess.Popen._execute_child.__code__.co_varnames[2:]  # without `self` and `args`


class ZygoteSource:
    """The process that starts servers; made once, when the first of them is asked for. Any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", SOURCE, str(theirs.fileno())],
                env=scrub_environment(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> tuple[int, int]:
        """Send a request and return the numbers of the reply; raises OSError."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            number, status = REPLY.unpack(self._socket.recv(REPLY.size))
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number, status

    def close(self) -> None:
        """End it. Servers go on."""
        self._socket.close()
        self._process.wait(10)


class LaunchedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """A program, no child of this process. It takes `args`, `cwd`, `env`, descriptors and `start_new_session`.

    It ignores the signals that this process ignores; limits and niceness are those that this process had when it first
    started one.
    """

    _source: ZygoteSource | None = None
    _source_lock = threading.Lock()

    @classmethod
    def find_source(cls, environment: Mapping[str, str]) -> ZygoteSource:
        """Return the process that starts servers. Its zygotes have what `environment` gives to zygotes."""
        with cls._source_lock:
            if cls._source is None:
                cls._source = ZygoteSource(environment)
            return cls._source

    def _execute_child(self, args: Any, *rest: Any) -> None:
        given = dict(zip(_PARAMETERS, rest, strict=False))
        asked = {
            "args": [str(argument) for argument in args],
            "cwd": str(given["cwd"] or Path.cwd()),
            "env": dict(given["env"] or os.environ),
            "session": given["start_new_session"],
            "ignored": [int(each) for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN],
        }
        ends = [(given["p2cread"], given["p2cwrite"]), (given["c2pwrite"], given["c2pread"])]
        ends.append((given["errwrite"], given["errread"]))
        descriptors = [number if theirs == -1 else theirs for number, (theirs, _) in enumerate(ends)]
        try:
            self.pid, _ = self.find_source(asked["env"]).ask(asked, descriptors)
            self._child_created = True
            self._pidfd = os.pidfd_open(self.pid)
        finally:
            for descriptor in {theirs for theirs, ours in ends if -1 not in (theirs, ours)}:
                os.close(descriptor)
            if hasattr(self, "_devnull"):
                os.close(self._devnull)
            self._closed_child_pipe_fds = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if not poller.poll(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        assert self._source is not None
        found = self._source.ask({"pid": self.pid})
        os.close(self._pidfd)
        return found

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


if sys.platform != "linux":
    LaunchedPopen = subprocess.Popen  # type: ignore[assignment,misc]


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that starts a zygote to its end; two minutes at most."""
    found = {**{name: value for name, value in env.items() if name != "TZ"}, "PYTHONPATH": str(MATERIAL)}
    with LaunchedPopen(
        command, cwd=cwd, env=found, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)

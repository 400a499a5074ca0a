"""Runs commands of `serving` in processes that need not import its program anew.

    python -P tests/commands.py FD

Most of what a command costs is that import: two thirds of a second of a processor. This process has done it, and forks
for each command that a test asks for. The fork has the arguments, the directory, the environment and the descriptors of
the command, calls what the installed program calls, and ends as any Python does. What a Python reads when it starts
(PYTHONIOENCODING, the locale) it does not read again. One request at a time comes over the socket FD, as JSON with
args, cwd and env, and with descriptors 1 and 2 of the command; the answer is the status as `waitpid` gives it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_BYTES = 1 << 17
STATUS = struct.Struct("<q")


def run_command(
    arguments: Sequence[object], cwd: Path, variables: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run ``serving ARGUMENTS`` in a directory; no setting is set but by `variables`. A warning is an error."""
    return _find_source().run([*map(str, arguments)], cwd=cwd, env={**clean_environment(), **variables})


def clean_environment() -> dict[str, str]:
    """Return the environment of this process without settings; in UTC, with this project's `serving`."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("SERVING_", "COVERAGE_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "TZ": "UTC", "NO_PROXY": ""}


@cache
def _find_source() -> CommandSource:
    """Return the source of this process, which ends with it."""
    return CommandSource(clean_environment())


class CommandSource:
    """The process that runs commands, one after another."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(120)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "error", __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # a command of its has not ended
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def run(self, arguments: list[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; two minutes at most."""
        asked = json.dumps({"args": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            socket.send_fds(self._socket, [asked], [out.fileno(), err.fileno()])
            (status,) = STATUS.unpack(self._socket.recv(STATUS.size))
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), *texts)


def main() -> int:
    """Import the program, and run commands until the tests are gone; each of them returns its status here, too."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    gc.disable()
    import serving.cli.program  # noqa: F401  (importing is the point)
    from serving import cli

    gc.freeze()
    gc.enable()
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a process with threads cannot be forked"
    while True:
        raw, descriptors, _, _ = socket.recv_fds(control, MOST_BYTES, 2)
        if not raw:
            return 0
        pid = os.fork()
        if pid == 0:
            control.close()
            _take_over(json.loads(raw), descriptors)
            return cli.main()
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(STATUS.pack(os.waitpid(pid, 0)[1]))


def _take_over(asked: dict[str, object], descriptors: list[int]) -> None:
    os.chdir(str(asked["cwd"]))
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    time.tzset()
    sys.argv = ["serving", *asked["args"]]  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())

"""Runs a server whose first zygote is a process that exists already: see `zygote_source`.

    python tests/e2e/adopting.py FD PID -m serving serve ...

PID is a child of this process that waits at the other end of the socket FD. Everything after it is what Python would be
run with. Only the first zygote of the server's own environment is replaced, and only if it would get the environment
that this one has; the others are started as always.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_PARAMETERS = subprocess.Popen._execute_child.__code__.co_varnames[2:]  # without `self` and `args`
_ZYGOTE = ["-P", "-m", "serving.host.forkserver"]
_waiting: list[tuple[socket.socket, int]] = []


class AdoptingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """Instead of starting the first zygote, takes the one that waits."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        if not (
            isinstance(args, list) and args[1:4] == _ZYGOTE and self._adopt(dict(zip(_PARAMETERS, rest, strict=False)))
        ):
            super()._execute_child(args, *rest)  # type: ignore[misc]

    def _adopt(self, given: dict[str, Any]) -> bool:
        if not _waiting:
            return False
        sock, pid = _waiting.pop()
        with sock:
            socket.send_fds(sock, [json.dumps(dict(given["env"])).encode()], given["pass_fds"])
            if sock.recv(1) != b"y":
                os.waitpid(pid, 0)
                return False
        os.close(self._devnull)  # the zygote has opened it itself
        self._closed_child_pipe_fds = True
        self.pid, self._child_created = pid, True
        return True


def main() -> None:
    """Become the program that the arguments ask for."""
    descriptor, pid = map(int, sys.argv[1:3])
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    _waiting.append((sock, pid))
    subprocess.Popen = AdoptingPopen  # type: ignore[misc]
    program, sys.argv = sys.argv[3], sys.argv[3:]
    if program == "-m":
        name = sys.argv.pop(1)
        sys.path[0] = str(Path.cwd())
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program).parent)
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()

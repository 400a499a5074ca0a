"""Estimators that take their host over: they write frames of their own to the server, while loaded or while serving.

Everything here is what arbitrary code in a host can do: find the socket among its descriptors, and write.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from peculiar import Constant

ASKED = 77.0
STEERING = "\x1b[2J\x1b]0;owned\x07\nforged line \u202e"

MAGIC = b"SVH1"


class Forger(Constant):
    """Does `deed` while it is loaded, or, `is_patient`, when the first value of a row is 77."""

    def __init__(self, deed: str = "", is_patient: bool = False) -> None:
        super().__init__(1.0)
        self.deed = deed
        self.is_patient = is_patient

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.is_patient:
            WHILE_LOADING[self.deed]()
            threading.Event().wait()  # nothing that is honest is to come any more

    def predict(self, X: Any) -> Any:
        if self.is_patient and float(np.asarray(X)[0, 0]) == ASKED:
            WHILE_SERVING[self.deed]()
            threading.Event().wait()
        return super().predict(X)


def sockets() -> list[int]:
    """Return the descriptors that lead to the server."""
    found = []
    for descriptor in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                found.append(descriptor)
        except OSError:
            continue
    return found


def write(raw: bytes) -> None:
    """Write to the server, all of it: to the lifeline of the host, or to its channel when it serves."""
    for descriptor in sockets()[1:2] if is_serving() else sockets()[:1]:
        os.set_blocking(descriptor, True)
        view = memoryview(raw)
        while view:
            view = view[os.write(descriptor, view) :]


def frame(
    kind: int, header: Any, payload: bytes = b"", request_id: int = 0, sizes: tuple[int, int] | None = None
) -> bytes:
    """Return a frame; `sizes` are said instead of the true ones."""
    from serving.wire.frames import PREFIX

    raw = header if isinstance(header, bytes) else orjson.dumps(header)
    said = sizes or (len(raw), len(payload))
    return PREFIX.pack(MAGIC, kind, 0, 0, said[0], request_id, said[1]) + raw + payload


def result(gate: str, evidence: str = "fine", verdict: str = "passed") -> bytes:
    """Return a GATE_RESULT frame."""
    return frame(11, {"gate": gate, "verdict": verdict, "evidence": evidence, "duration_seconds": 0.001})


def gates(evidence: str = "fine", upto: str | None = None) -> bytes:
    """Return what follows the start of the load gate, every gate passed, up to one that is not asked any more."""
    from serving.domain.report import GateName

    said = [result("load", evidence)]
    names = list(GateName)
    for gate in names[names.index(GateName.LOAD) + 1 :]:
        if gate == upto:
            break
        said += [frame(10, {"gate": gate}), result(gate, evidence)]
    return b"".join(said)


SIGNATURE = {"features": [{"name": "a"}, {"name": "b"}], "methods": ["predict"], "kind": "regressor"}
STAYS = {"engine": None, "reason": "fine"}
FINDINGS: dict[str, Any] = {"signature": SIGNATURE, "engine": "sklearn", "memory_bytes": 1, "compilation": STAYS}
COMPILED = {**FINDINGS, "engine": "onnx", "compilation": {"engine": "onnx", "reason": "alike", "graph_bytes": 5}}


def report(**changes: Any) -> bytes:
    """Return a REPORT frame."""
    return frame(12, {**FINDINGS, **changes})


def dribble() -> None:
    """Say the next thing as slowly as can be, for longer than any deadline."""
    write(frame(11, b"", sizes=(16 << 10, 0)))
    for _ in range(10_000):
        write(b" ")
        time.sleep(0.01)


# each refuses its candidate, by the gate and with the words that `tests/e2e/test_forged_frames.py` has
WHILE_LOADING: dict[str, Callable[[], None]] = {
    "no frame": lambda: write(b"HTTP/1.1 200 OK\r\n\r\n" * 9),
    "unknown kind": lambda: write(frame(99, {})),
    "gate without a name": lambda: write(frame(10, {})),
    "a gate twice": lambda: write(result("load") + result("load")),
    "another gate": lambda: write(result("golden")),
    "the end at once": lambda: write(report()),
    "a huge header": lambda: write(frame(11, b"", sizes=((1 << 32) - 1, 0))),
    "a huge graph": lambda: write(gates() + frame(13, {}, sizes=(2, 1 << 40))),
    "a graph": lambda: write(
        gates() + frame(13, {"outputs": {"predict": ["y"]}}, b"graph") + frame(12, COMPILED)
    ),
    "empty lists": lambda: write(gates() + frame(12, b'{"signature":[' + b"[]," * (5 << 20) + b"[]]}")),
    "a deep report": lambda: write(gates() + frame(12, b"[" * 100_000)),
    "a sandbox": lambda: write(gates() + report(sandbox={"active": ["landlock"], "missing": {}})),
    "a key": lambda: write(gates() + report(provenance={"version": "1", "key": "x", "created_at": "2030-01-01"})),
    "gates of its own": lambda: write(gates() + report(gates=[])),
    "no model": lambda: write(gates() + report(signature=None)),
    "steering": lambda: write(result("load", STEERING, "refused") + frame(12, {})),
    "a steering gate": lambda: write(frame(11, {"gate": STEERING, "verdict": "passed", "evidence": ""})),
    "dribble": dribble,
    "silence": lambda: None,
    "an answer": lambda: write(frame(20, {"tensors": []})),
}  # fmt: skip


def answer(tensors: list[Any], payload: bytes = b"", request_id: int | None = None) -> bytes:
    """Return a PREDICTION frame for the request under way, which is the first to this host."""
    return frame(20, {"tensors": tensors}, payload, 1 if request_id is None else request_id)


ONE = {"dtype": "<f8", "shape": [1]}
OBJECTS = (b"[" + b'{"a":' * 9 + b"1" + b"}" * 9 + b"]").ljust(64)  # deeper than answers are
LISTS = b"[" + b"[]," * (5 << 20) + b"[]]"

# each costs the host its life, and the one who asked a 503
WHILE_SERVING: dict[str, Callable[[], None]] = {
    "no frame": lambda: write(b"\0" * 100),
    "another request's": lambda: write(answer([ONE], bytes(8), 2)),
    "two answers": lambda: write(answer([ONE], bytes(8)) * 2),
    "a report": lambda: write(report()),
    "a graph": lambda: write(frame(13, {"outputs": {"predict": ["y"]}}, b"graph", 1)),
    "too many rows": lambda: write(answer([{"dtype": "<f8", "shape": [9]}], bytes(72))),
    "no end of lists": lambda: write(answer([{"dtype": "<f8", "shape": [1, 1 << 40, 0]}])),
    "a huge answer": lambda: write(frame(20, {}, b"", 1, (2, 1 << 40))),
    "an answer that never ends": lambda: write(frame(20, {}, b"", 1, (2, 20 << 20))),
    "a large answer for a row": lambda: write(frame(20, {}, b"", 1, (2, 40 << 20))),
    "empty lists": lambda: write(answer([{"dtype": "json", "nbytes": len(LISTS)}], LISTS + bytes(-len(LISTS) % 8))),
    "objects in objects": lambda: write(answer([{"dtype": "json", "nbytes": 64}], OBJECTS)),
    "a steering dtype": lambda: write(answer([{"dtype": STEERING, "shape": [1]}])),
}  # fmt: skip


class Babbler(Constant):
    """Says something nobody asked for whenever its host has just begun to serve."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        threading.Thread(target=self._babble, daemon=True).start()

    @staticmethod
    def _babble() -> None:
        while not is_serving():
            time.sleep(0.01)
        write(b"S")


def is_serving() -> bool:
    """Say whether the main thread of this host has told everything and waits for requests."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "serve_predictions":
            return True
        frame = frame.f_back
    return False


class KillsItself(Constant):
    """Ends its host in the one way that looks as though somebody else had."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.kill(os.getpid(), 9)


class Shrinker(Constant):
    """Makes the memory that its host shares with the server as small as it can and ends, when it is asked."""

    def predict(self, X: Any) -> Any:
        if float(np.asarray(X)[0, 0]) == ASKED:
            for descriptor in range(3, 64):
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
            os._exit(7)
        return super().predict(X)

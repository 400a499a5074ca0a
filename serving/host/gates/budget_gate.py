"""Gate: the time of one answer and the memory of the model are within the limits."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from time import perf_counter

from serving.domain.report import GateName, Verdict
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused

REPEATS = 20
LEAST_REPEATS = 3
REPEAT_SECONDS = 0.05
SLOW_SECONDS = 0.5

_STATM = Path("/proc/self/statm")
_ROLLUP = Path("/proc/self/smaps_rollup")


class BudgetGate:
    """The median one-row answer and the private memory of this process are within the settings."""

    name = GateName.BUDGET

    def check(self, context: GateContext) -> GateOutcome:
        """Time 20 one-row answers of the default method, fewer of a slow model; read the memory."""
        request = context.request
        context.memory_bytes = read_private_bytes()
        memory = "memory unknown here" if context.memory_bytes is None else f"{context.memory_bytes >> 20} MB private"
        if context.memory_bytes is not None and context.memory_bytes > request.memory_bytes:
            raise GateRefused(f"{memory}, allowed {request.memory_bytes >> 20} MB (candidate.memory_mb)")
        if context.why_unanswerable:
            return Verdict.WARNED, f"{memory}; no latency, {context.why_unanswerable}"
        seconds = _time_answers(context)
        middle = median(seconds)
        times = f"one row in {middle * 1e3:.3g} ms (median of {len(seconds)})"
        if middle > request.max_latency_seconds:
            limit = f"{request.max_latency_seconds * 1e3:g} ms (gates.max_latency_seconds)"
            raise GateRefused(f"{times}, allowed {limit}")
        return Verdict.PASSED, f"{times}, {memory}"


def _time_answers(context: GateContext) -> list[float]:
    model, row = context.loaded_model, context.pick_rows(1)
    method = model.signature.default_method
    seconds: list[float] = []
    begin = perf_counter()
    while not _is_time_to_stop(len(seconds), perf_counter() - begin):
        start = perf_counter()
        model.answer(method, row)
        seconds.append(perf_counter() - start)
    return seconds


def _is_time_to_stop(times: int, elapsed_seconds: float) -> bool:
    """Say whether to stop: the gate should take almost no time for a fast model, and little for a slow one."""
    if elapsed_seconds > SLOW_SECONDS:
        return times > 0
    return times >= (LEAST_REPEATS if elapsed_seconds > REPEAT_SECONDS else REPEATS)


def read_private_bytes() -> int | None:
    """Return the bytes of this process that no other process shares; None where unknown.

    They would be free if this process ended. The kernel walks all mappings for it, which takes about 10 ms with
    scikit-learn imported.
    """
    try:
        lines = _ROLLUP.read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def read_resident_bytes() -> int:
    """Return the bytes of this process in memory, shared or not; 0 where unknown. Takes microseconds."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0

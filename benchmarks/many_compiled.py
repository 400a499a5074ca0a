"""A thousand small compiled models in one server: memory, rest, and what swapping one of them costs."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.drop import time_drop
from benchmarks.many_models import rest
from benchmarks.memory import MB, Memory, memory_of_pids
from benchmarks.models import publish_logistic
from benchmarks.percentiles import median
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import all_pids, running, wait_settled

FEW = 10
SETTLE_SECONDS = 15.0
ACTIVE_SECONDS = 1800.0
METHOD = """Every model is a logistic pipeline of its own (30 features) with manifest and golden examples, published \
before the server starts with default settings and an empty cache. When all are active the server is left alone for \
15 s; then the processor time of all its processes is read before and after a stretch in which nobody asks for \
anything, and their memory. Then versions of one of the models are renamed into the store one after another, and \
each is timed from just before the rename to its first answer, as in `drop`. The same is done with 10 models; the \
engines are those of `GET /models/active`."""


@dataclass(slots=True)
class Found:
    """What one server showed with so many models."""

    engines: Counter[str]
    active_seconds: float
    share: float = 0.0
    parts: tuple[tuple[str, float], ...] = ()
    memory: list[Memory] = field(default_factory=list)
    swap_ms: list[float] = field(default_factory=list)


def run(run: Run) -> Result:
    """Start on few, then on many."""
    many = run.count(1000, 30)
    few_ms = _swaps(run, FEW).swap_ms
    found = _swaps(run, many, rest_seconds=run.count(60.0, 5.0))
    memory, engines = found.memory, found.engines
    ratio = median(found.swap_ms) / median(few_ms)
    return Result(
        name="many_compiled",
        title=f"{many} small compiled models at once",
        method=METHOD,
        figures=(
            figure("models that are compiled", "", float(engines["onnx"]), at_least=many),
            figure("server, resident memory", "MB", memory[0].resident / MB, at_most=1500),
            figure("processor time at rest, all processes, of one core", "%", found.share * 100, at_most=1),
            figure(f"swapping one, with {many} models / with {FEW}", "×", ratio, at_most=1.5),
            figure(f"rename to first answer, with {FEW} models", "ms", few_ms),
            figure(f"rename to first answer, with {many} models", "ms", found.swap_ms),
            figure("all processes, proportional set size", "MB", sum(one.proportional for one in memory) / MB),
            figure("processes", "", float(len(memory))),
            figure("start to all models active", "s", found.active_seconds),
        ),
        tables=(
            Table("Processor time at rest", ("process", "% of one core"), found.parts),
            Table("Engines", ("engine", "models"), tuple(engines.items())),
        ),
    )


def _swaps(run: Run, models: int, rest_seconds: float = 0.0) -> Found:
    """Return what was measured with so many models; the rest only when there are seconds for it."""
    directory, aside = run.scratch / f"server-{models}", run.scratch / f"aside-{models}"
    for number in range(models):
        publish_logistic(directory / "store", _name(number), 1, strength=1 + number / models)
    began = time.monotonic()
    with running(directory, wait_ready=False) as server:
        engines = Counter(wait_settled(server, models, ACTIVE_SECONDS).values())
        found = Found(engines, time.monotonic() - began)
        if rest_seconds:
            time.sleep(run.count(SETTLE_SECONDS, 3.0))
            found.share, found.parts, _ = rest(server, rest_seconds)
            found.memory = memory_of_pids(all_pids(server))
        for version in range(2, run.count(20, 4) + 2):
            path: Path = publish_logistic(aside, _name(0), version)
            act = partial(path.rename, server.store / _name(0) / path.name)
            found.swap_ms.append(time_drop(server, _name(0), version, act).seconds * 1000)
    return found


def _name(number: int) -> str:
    return f"model{number:04}"

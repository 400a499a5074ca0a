"""What safety costs a candidate: putting the sandbox on, and reading its file without running what it names."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import threadpoolctl
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

from benchmarks.memory import MB
from benchmarks.models import logistic
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from serving import sandbox
from serving.host import preload
from serving.host.restricted import load_restricted

METHOD = """The sandbox: a process with everything imported that a zygote has forks, and the child puts every layer on \
as a host does, with the files and the memory limit of a candidate, then forbids processes; the child times that and \
ends. Loading: `joblib.load` and the restricted loader read the same file from the page cache, in turn, in one process \
with one thread; the ratio is that of two readings one after the other. The small model is a logistic pipeline, the \
large one a forest of 80 trees."""

MEMORY_BYTES = 4 << 30


def run(run: Run) -> Result:
    """Measure both."""
    assert preload.__name__  # importing is the point: what is forked is as large as a zygote
    threadpoolctl.threadpool_limits(1)
    rounds = run.count(30, 3)
    small, large = run.scratch / "small.joblib", run.scratch / "large.joblib"
    joblib.dump(logistic(), small)
    rows, answers = make_classification(run.count(30_000, 2_000), 20, n_informative=10, random_state=0, flip_y=0.2)
    joblib.dump(RandomForestClassifier(run.count(80, 10), random_state=0, n_jobs=-1).fit(rows, answers), large)
    entered, layers = zip(*(_enter(run.scratch, small) for _ in range(rounds)), strict=True)
    figures: list[Figure] = [figure("putting the sandbox on", "ms", [each * 1e3 for each in entered], at_most=30)]
    for name, path, times in (("small", small, rounds * 3), ("large", large, max(3, rounds // 3))):
        plain, restricted = _alternate(path, times)
        added = [(mine - theirs) * 1e3 for mine, theirs in zip(restricted, plain, strict=True)]
        ratios = [100 * (mine / theirs - 1) for mine, theirs in zip(restricted, plain, strict=True)]
        is_large = name == "large"
        figures += [
            figure(f"{name} model: joblib.load", "ms", [each * 1e3 for each in plain]),
            figure(f"{name} model: restricted loading", "ms", [each * 1e3 for each in restricted]),
            figure(f"{name} model: added by it", "ms", added, at_most=None if is_large else 30),
            figure(f"{name} model: added by it", "%", ratios, at_most=10 if is_large else None),
            figure(f"{name} model: size of the file", "MB", path.stat().st_size / MB),
        ]
    return Result(
        name="safety",
        title="What safety costs a candidate",
        method=METHOD,
        figures=tuple(figures),
        tables=(Table("Layers", ("layer", "of hosts"), tuple((name, "active") for name in layers[0].split())),),
    )


def _enter(scratch: Path, artefact: Path) -> tuple[float, str]:
    """Return how many seconds a forked child takes to put the sandbox on, and its layers."""
    reading, writing = os.pipe()
    parent = os.getpid()
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        pid = os.fork()
        if pid == 0:
            begin = time.perf_counter()
            held = sandbox.enter([str(artefact)], own, MEMORY_BYTES, parent)
            sandbox.forbid_processes(held)
            took = time.perf_counter() - begin
            os.write(writing, struct.pack("=d", took) + " ".join(held.active).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            said = file.read()
        os.waitpid(pid, 0)
    return struct.unpack_from("=d", said)[0], said[8:].decode()


def _alternate(path: Path, times: int) -> tuple[list[float], list[float]]:
    """Read a file in both ways, in turn; returns the seconds of each, the first turn left out."""
    plain, restricted = [], []
    for _ in range(times + 1):
        plain.append(_seconds(lambda: joblib.load(path)))
        restricted.append(_seconds(lambda: load_restricted(str(path))))
    return plain[1:], restricted[1:]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin

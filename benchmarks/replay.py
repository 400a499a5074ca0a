"""What the sample of recent rows costs each request, and how much memory it takes."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.memory import MB
from benchmarks.models import BODY, MIXED_NUMBERS, X, mixed_frame, publish_logistic
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.worker_swaps import publish_forest
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from serving.domain.signature import Container, Dtype, Feature, ModelKind, Signature
from serving.domain.version import VersionId
from serving.plane.row_sample import RowSample
from serving.plane.servable import Servable
from serving.rows.batch import Batch, Prediction
from serving.rows.parsing import rows_to_batch
from tests.e2e.harness import Server

ON, OFF = "on", "off"
ROWS = {ON: "1000", OFF: "0"}
FORMS: Mapping[str, Mapping[str, str]] = {"compiled": {}, "hosted": {"SERVING_ENGINE__COMPILE": "off"}}
MODELS = {"compiled": "forest", "hosted": "small"}
AT_MOST = {"compiled": 1.02, "hosted": 1.01}
KEPT, BYTES = 1000, 16 << 20
METHOD = """Two servers, with `replay.rows` at its default of 1,000 and at 0, each on one core, the load generator \
({generator}) on another: one row of 30 numbers as JSON, 16 connections, 1 s each in turns, forwards and backwards; a \
random forest of 100 trees that is compiled, and a logistic pipeline that is hosted. Ratios are taken within a round. \
What lets a servable sample is timed by itself after 200,000 rows: then one row in a hundred is taken. \
Memory is what Python has allocated for 1,000 rows (`tracemalloc`): 30 numbers, and the rows of a table of six numbers \
and two short texts."""


def run(run: Run) -> Result:
    """Measure both in turns, then the sample alone."""
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    turns = {form: _load(run, generator, form) for form in FORMS}
    tables = (Table(f"{form}: medians of all rounds", COLUMNS, rows(found)) for form, found in turns.items())
    return Result(
        name="replay",
        title="The sample of recent rows",
        method=METHOD.format(generator=generator.name),
        figures=(*_compare(turns), *_measure_sample(run)),
        tables=tuple(tables),
    )


def _load(run: Run, generator: Generator, form: str) -> dict[str, list[Stretch]]:
    with ExitStack() as stack:

        def start(name: str) -> Server:
            directory = run.scratch / f"{form}-{name}"
            publish_forest(directory / "store", 1)
            publish_logistic(directory / "store", "small", 1)
            setting = {"SERVING_REPLAY__ROWS": ROWS[name]}
            server = stack.enter_context(running(directory, on=[SERVER_CORE], **setting, **FORMS[form]))
            wait_settled(server, 2)
            return server

        services = {name: (start(name),) for name in ROWS}
        path = f"/models/{MODELS[form]}/predict"
        for rounds in (2, run.count(20, 2)):  # the first are a warm-up
            found = load_in_rounds(services, generator, connections=16, rounds=rounds, seconds=1, path=path)
    return found


def _compare(turns: Mapping[str, Mapping[str, Sequence[Stretch]]]) -> Iterator[Figure]:
    for form, found in turns.items():
        per_second, cost = (ratios(found, what, ON, OFF) for what in ("per_second", "cpu_us"))
        yield figure(f"{form}: processor time per request, on / off", "×", cost, at_most=AT_MOST[form])
        yield figure(f"{form}: requests/s, on / off", "×", per_second)
        least = {name: min(one.cpu_us for one in stretches) for name, stretches in found.items()}
        yield figure(f"{form}: least processor time per request of all rounds, on / off", "×", least[ON] / least[OFF])


def _measure_sample(run: Run) -> Iterator[Figure]:
    numbers, mixed = _numbers(), _mixed()
    table = mixed_frame().astype(object).to_numpy().tolist()
    for name, signature, values in (("30 numbers", numbers, X.tolist()), ("mixed columns", mixed, table)):
        batches = [rows_to_batch(signature, [row]) for row in values]
        times, nbytes = _time_notes(run, signature, batches)
        yield figure(f"{name}: sampling one request", "ns", times)
        yield figure(f"{name}: memory of 1,000 rows", "MB", _measure_memory(signature, batches) / MB)
        yield figure(f"{name}: the same, as the limit counts it", "MB", nbytes / MB)


def _time_notes(run: Run, signature: Signature, batches: Sequence[Batch]) -> tuple[list[float], int]:
    """Return the nanoseconds that sampling adds to a request, and the bytes that the sample counts."""
    engine: object = None
    servable = Servable(VersionId("m", "1", "sha256:1"), signature, engine)  # type: ignore[arg-type]
    sample = RowSample(signature, KEPT, BYTES)
    servable.sample_rows(sample)
    answer = Prediction((np.zeros(1, np.int64),))

    def pass_by(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            for batch in batches:
                servable.wait -= batch.rows
                if servable.wait < 0:
                    servable.sample("predict", batch, answer)
        return time.perf_counter() - began

    def count_rows(times: int) -> float:
        began = time.perf_counter()
        rows = 0
        for _ in range(times):
            for batch in batches:
                rows += batch.rows
        return time.perf_counter() - began

    pass_by(200_000 // len(batches) + 1)
    rounds, times = run.count(20, 3), 100
    found = [(pass_by(times) - count_rows(times)) / (times * len(batches)) * 1e9 for _ in range(rounds)]
    return found, sample.nbytes


def _measure_memory(signature: Signature, batches: Sequence[Batch]) -> int:
    gc.collect()
    tracemalloc.start()
    sample = RowSample(signature, KEPT, BYTES)
    for place in range(KEPT):
        sample.wait -= 1
        sample.take(batches[place % len(batches)])
    found, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found


def _numbers() -> Signature:
    features = tuple(Feature(name=f"x{place}") for place in range(X.shape[1]))
    return Signature(features=features, methods=("predict",), kind=ModelKind.CLASSIFIER)


def _mixed() -> Signature:
    dtypes = [Dtype.NUMBER] * MIXED_NUMBERS + [Dtype.STRING] * 2
    features = tuple(Feature(name=f"x{place}", dtype=dtype) for place, dtype in enumerate(dtypes))
    return Signature(features=features, methods=("predict",), container=Container.DATAFRAME, kind=ModelKind.CLASSIFIER)

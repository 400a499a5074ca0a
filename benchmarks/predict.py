"""Requests over HTTP: this server with compiled and hosted models, the usual service and uvicorn's limit, in turns."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import joblib

from benchmarks.contenders import (
    COMPILED,
    ECHO,
    HOSTED,
    ROW_COLUMNS,
    USUAL,
    Cell,
    Contender,
    check,
    load_in_turns,
)
from benchmarks.cores import CLIENT_CORE, SERVER_CORE, wait_idle
from benchmarks.in_process import alone, loop
from benchmarks.models import BOOSTING, FOREST, KINDS, LOGISTIC, MIXED, NEIGHBOURS, body_of, training_rows
from benchmarks.peers import ECHO as ECHO_APPLICATION
from benchmarks.peers import USUAL as USUAL_APPLICATION
from benchmarks.peers import peer
from benchmarks.predict_figures import LARGE, Alone, bars, figures
from benchmarks.result import Result, Table
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.wrk import Generator
from serving import publish

CONNECTIONS = (1, 16, 64)
CELLS = (
    Cell(1, 16, rounds=4, seconds=2),
    Cell(1, 1, rounds=4, seconds=1),
    Cell(LARGE, 1, rounds=2, seconds=2),
    Cell(1, 64, rounds=1, seconds=2),
    *(Cell(64, connections, rounds=1, seconds=1) for connections in CONNECTIONS),
    Cell(LARGE, 16, rounds=1, seconds=3),
    Cell(LARGE, 64, rounds=1, seconds=3),
)
LOOPS = (
    *((kind, "sklearn") for kind in (LOGISTIC, FOREST, BOOSTING, NEIGHBOURS)),
    *((kind, "onnx") for kind in (LOGISTIC, FOREST)),
)
METHOD = """Every server runs with all of its processes on one core, the load generator ({generator}) on another; \
HTTP/1.1 keep-alive, JSON bodies of rows as arrays, labels as answers, after a warm-up. Servers get their turns one \
after another, forwards and backwards; ratios are taken within a round. "Compiled" is this server with \
`engine.compile = "auto"`, "hosted" the same with `"off"`; the engine that answered is in the table. "The usual \
service" is FastAPI with a pydantic body, a `def` endpoint and the model in `app.state` under uvicorn with one worker \
(`benchmarks/usual_service.py`); the echo is a bare ASGI application under the same uvicorn, answering with the body. \
One row with 16 connections is measured in {rounds} rounds of 2 s, one row with a single one (the lone client) in as \
many of 1 s, other loads more briefly; requests of 10,000 rows that the generator leaves behind are waited for. "The \
loop in process" parses the same body with orjson, makes a NumPy array, predicts and writes the labels with orjson, \
with nothing else, on the same core in the same rounds; it has scikit-learn for hosted models, and for compiled ones \
ONNX Runtime with the graph that skl2onnx makes. The model's own time is the median of `predict` for one row there."""


def run(run: Run) -> Result:
    """Load every server in turns."""
    estimators = {kind: build() for kind, build in KINDS.items()}
    cells = [Cell(one.rows, one.connections, run.count(one.rounds, 1), run.count(one.seconds, 1)) for one in CELLS]
    _write(run.scratch, estimators)
    generators = _generators(run.scratch, {cell.rows for cell in cells})
    own = Alone()
    with ExitStack() as stack:
        contenders = _start(run.scratch, stack)
        for contender in contenders:
            generator = generators[contender.kind, 1]
            if contender.server != ECHO:
                first = training_rows(contender.kind)[:1]
                check(contender, body_of(contender.kind, 1), int(estimators[contender.kind].predict(first)[0]))
            generator.load(contender.url, contender.path, connections=16, seconds=1)
        own.restless = _rounds(run, cells, contenders, generators, own)
    keys = sorted({(cell.rows, cell.connections) for cell in cells})
    rows = [contender.row(key) for key in keys for contender in contenders]
    return Result(
        name="predict",
        title="Predictions over HTTP",
        method=METHOD.format(generator=generators[LOGISTIC, 1].name, rounds=cells[0].rounds),
        figures=tuple(figures(contenders, own)),
        tables=(Table("Medians of all rounds", ROW_COLUMNS, tuple(rows)), own.table()),
        plots=tuple(bars(contenders)),
    )


def _rounds(
    run: Run,
    cells: list[Cell],
    contenders: list[Contender],
    generators: dict[tuple[str, int], Generator],
    own: Alone,
) -> int:
    """Load all servers round by round, and the models alone after each; return how often the core was not at rest.

    Loads that leave many large requests behind come last, when nothing else is to be measured.
    """
    patience, restless = run.count(60.0, 2.0), 0
    last = [cell for cell in cells if cell.rows == LARGE and cell.connections > 1]
    first = [cell for cell in cells if cell not in last]
    for number in range(max(cell.rounds for cell in cells)):
        for cell in (one for one in first if number < one.rounds):
            restless += load_in_turns(contenders, generators, cell, number, patience)
        restless += not wait_idle(SERVER_CORE, patience)
        _measure_alone(run, own, number < max(cell.rounds for cell in first if cell.rows == LARGE))
    for cell in last:
        restless += load_in_turns(contenders, generators, cell, 0, patience)
    return restless


def _write(scratch: Path, estimators: dict[str, Any]) -> None:
    """Publish every model, save it for the others, and write the bodies."""
    store = scratch / "store"
    store.mkdir()
    for number, (kind, estimator) in enumerate(estimators.items()):
        rows = training_rows(kind)
        publish(estimator, f"model{number}", version="1", store=store, X=rows, golden=rows[:5], check=False)
        joblib.dump(estimator, _model_file(scratch, kind))
        for count in (1, LARGE):
            _body_file(scratch, kind, count).write_bytes(body_of(kind, count))


def _model_file(scratch: Path, kind: str) -> Path:
    return scratch / f"{list(KINDS).index(kind)}.joblib"


def _body_file(scratch: Path, kind: str, count: int) -> Path:
    return scratch / f"{list(KINDS).index(kind)}-{count}.json"


def _generators(scratch: Path, counts: set[int]) -> dict[tuple[str, int], Generator]:
    """Return a generator for each kind of model and number of rows; the echo is sent what the logistic pipeline is."""
    found = {}
    for number, kind in enumerate(KINDS):
        for count in counts:
            name = f"body{number}-{count}"
            found[kind, count] = Generator(scratch, body_of(kind, count), [CLIENT_CORE], name)
    return found | {(ECHO, count): found[LOGISTIC, count] for count in counts}


def _start(scratch: Path, stack: ExitStack) -> list[Contender]:
    """Start every server on one core; those whose turn it is not are idle."""
    contenders = []
    on = [SERVER_CORE]
    for label, how in ((COMPILED, "auto"), (HOSTED, "off")):
        server = stack.enter_context(
            running(scratch / how, store=scratch / "store", on=on, SERVING_ENGINE__COMPILE=how)
        )
        engines = wait_settled(server, len(KINDS))
        for number, kind in enumerate(KINDS):
            name = f"model{number}"
            contenders.append(Contender(kind, label, engines[name], server.url, f"/models/{name}/predict"))
    for kind in KINDS:
        url = stack.enter_context(peer(USUAL_APPLICATION, on=on, model=_model_file(scratch, kind)))
        path = "/predict-mixed" if kind == MIXED else "/predict"
        contenders.append(Contender(kind, USUAL, "sklearn", url, path))
    url = stack.enter_context(peer(ECHO_APPLICATION, on=on))
    contenders.append(Contender(ECHO, ECHO, "none", url, "/"))
    return contenders


def _measure_alone(run: Run, own: Alone, is_large_wanted: bool) -> None:
    """Let the models work in process, on the servers' core."""
    on, seconds = [SERVER_CORE], run.count(0.5, 0.2)
    for kind in KINDS:
        one_row = _body_file(run.scratch, kind, 1)
        own.predict_ms[kind].append(alone(_model_file(run.scratch, kind), one_row, seconds=seconds, cores=on))
    for kind, engine in LOOPS if is_large_wanted else ():
        body = _body_file(run.scratch, kind, LARGE)
        found = loop(_model_file(run.scratch, kind), body, engine, seconds=run.count(2.0, 0.2), cores=on)
        own.per_second[kind, engine].append(found)

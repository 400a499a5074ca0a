"""One row over HTTP: this server, the usual FastAPI service and the limit of uvicorn, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import joblib

from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.models import BODY, KINDS, ROW, X
from benchmarks.peers import ECHO, USUAL, peer
from benchmarks.percentiles import median
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running
from benchmarks.wrk import Generator, Load
from serving import publish

CONNECTIONS = 16
METHOD = """Every server runs with all of its processes on one core, the load generator ({generator}) on another. The \
body is one JSON row of 30 floats, the answer its label, HTTP/1.1 keep-alive. In each of {rounds} rounds \
every server gets {seconds:g} s of {connections} connections and {lone:g} s of a single one (the lone \
client), one server after another, after a warm-up. "The usual service" is FastAPI with a pydantic body, \
a `def` endpoint and the model in `app.state` under uvicorn with one worker \
(`benchmarks/usual_service.py`); the echo is a bare ASGI application under the same uvicorn. Ratios are \
taken within each round."""
COLUMNS = ("model", "server", "engine", "requests/s", "p50 ms", "p99 ms", "lone client p50 ms", "failures")


@dataclass(slots=True)
class Contender:
    """One server with one model, and its loads, one for each round."""

    model: str
    server: str
    engine: str
    url: str
    path: str
    many: list[Load] = field(default_factory=list)
    lone: list[Load] = field(default_factory=list)

    def row(self) -> tuple[str | float, ...]:
        """Return medians over the rounds as a row of the table."""
        failures = float(sum(load.failures for load in (*self.many, *self.lone)))
        return (
            self.model,
            self.server,
            self.engine,
            median([load.per_second for load in self.many]),
            median([load.p50_ms for load in self.many]),
            median([load.p99_ms for load in self.many]),
            median([load.p50_ms for load in self.lone]),
            failures,
        )


def run(run: Run) -> Result:
    """Load every server in turns."""
    rounds, seconds, lone_seconds = run.count(5, 1), run.count(4.0, 1.0), run.count(2.0, 1.0)
    estimators = {kind: build() for kind, build in KINDS.items()}
    store = run.scratch / "server" / "store"
    store.mkdir(parents=True)
    for number, estimator in enumerate(estimators.values()):
        publish(estimator, f"model{number}", version="1", store=store, X=X, golden=X[:5])
        joblib.dump(estimator, run.scratch / f"{number}.joblib")
    generator = Generator(run.scratch, BODY, [CLIENT_CORE])
    with ExitStack() as stack:
        contenders = _start(run.scratch, list(KINDS), stack)
        for contender in contenders:
            if contender.server != "echo":
                _check(contender, int(estimators[contender.model].predict([ROW])[0]))
            generator.load(contender.url, contender.path, connections=CONNECTIONS, seconds=1)
        for number in range(rounds):
            for contender in contenders[:: 1 if number % 2 == 0 else -1]:
                where = (contender.url, contender.path)
                contender.many.append(generator.load(*where, connections=CONNECTIONS, seconds=seconds))
                contender.lone.append(generator.load(*where, connections=1, seconds=lone_seconds))
    return Result(
        name="predict",
        title="One row over HTTP",
        method=METHOD.format(
            generator=generator.name, rounds=rounds, seconds=seconds, lone=lone_seconds, connections=CONNECTIONS
        ),
        figures=tuple(_figures({(one.model, one.server): one for one in contenders})),
        tables=(Table("Medians of all rounds", COLUMNS, tuple(one.row() for one in contenders)),),
    )


def _start(scratch: Path, kinds: list[str], stack: ExitStack) -> list[Contender]:
    """Start every server on one core; those whose turn it is not are idle."""
    server = stack.enter_context(running(scratch / "server", on=[SERVER_CORE]))
    engines = {one["name"]: one["active"]["engine"] for one in server.get("/models/active")["models"]}
    contenders = []
    for number, kind in enumerate(kinds):
        name = f"model{number}"
        contenders.append(Contender(kind, "serving", engines[name], server.url, f"/models/{name}/predict"))
        usual = stack.enter_context(peer(USUAL, on=[SERVER_CORE], model=scratch / f"{number}.joblib"))
        contenders.append(Contender(kind, "usual service", "sklearn", usual, "/predict"))
    echo = stack.enter_context(peer(ECHO, on=[SERVER_CORE]))
    contenders.append(Contender("none", "echo", "none", echo, "/"))
    return contenders


def _check(contender: Contender, label: int) -> None:
    """Both must answer, and alike, or the comparison is of nothing."""
    answer = httpx.post(contender.url + contender.path, content=BODY, headers={"content-type": "application/json"})
    answer.raise_for_status()
    if answer.json()["predictions"] != [label]:
        raise RuntimeError(f"{contender.server} answers {answer.text}, not {label}")


def _figures(contenders: Mapping[tuple[str, str], Contender]) -> list[Figure]:
    figures = []
    for kind in KINDS:
        ours, usual = contenders[kind, "serving"], contenders[kind, "usual service"]
        ratio = [a.per_second / b.per_second for a, b in zip(ours.many, usual.many, strict=True)]
        lone = [a.p50_ms / b.p50_ms for a, b in zip(ours.lone, usual.lone, strict=True)]
        figures.append(figure(f"{kind}: requests/s, serving / usual service", "×", ratio, at_least=1))
        figures.append(figure(f"{kind}: lone client's p50, serving / usual service", "×", lone, at_most=1))
    echo = contenders["none", "echo"]
    for kind in KINDS:
        ours = contenders[kind, "serving"]
        share = [a.per_second / b.per_second * 100 for a, b in zip(ours.many, echo.many, strict=True)]
        figures.append(figure(f"{kind}: requests/s, serving / echo", "%", share))
    failures = float(sum(load.failures for one in contenders.values() for load in (*one.many, *one.lone)))
    figures.append(figure("requests that failed, all servers", "", failures, at_most=0))
    return figures

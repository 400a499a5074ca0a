"""One row over HTTP beside the servers people would choose instead: ``make bench-peers``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peer_list
from benchmarks.contenders import COMPILED, HOSTED, ratios
from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.models import BODY, FOREST, KINDS, LOGISTIC, NEIGHBOURS, X
from benchmarks.peer_servers import MODELS, Peer, PeerFailed, install, started, train
from benchmarks.percentiles import median
from benchmarks.result import Figure, Plot, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.wrk import Generator, Load
from serving import publish

CONNECTIONS = 16
KIND_OF = dict(zip(MODELS, (LOGISTIC, FOREST, NEIGHBOURS), strict=True))
ADAPTIVE, PLAIN = "MLServer, adaptive", "MLServer, plain"
TARGETS = (
    (FOREST, COMPILED, ADAPTIVE, 12.0),
    (LOGISTIC, COMPILED, PLAIN, 8.0),
    (NEIGHBOURS, HOSTED, PLAIN, 4.0),
    (NEIGHBOURS, HOSTED, ADAPTIVE, 3.5),
    (FOREST, HOSTED, ADAPTIVE, 1.4),
)
METHOD = """Every server has one core for all of its processes, the load generator ({generator}) the other: one row \
of 30 floats as JSON, 16 connections, HTTP/1.1 keep-alive. For each peer and model there are {rounds} rounds, in \
each {seconds} s of the peer and {seconds} s of this server with the same kind of model compiled and hosted; ratios \
are taken within a round. Each peer is installed from PyPI with pinned versions into an environment of its own, \
trains the same models on the same data with that environment's scikit-learn, answers the same label before it is \
measured, and runs as its documentation says (`benchmarks/peer_list.py`). MLServer is tried with its default of one \
inference worker and with `parallel_workers: 0`, with and without adaptive batching of 64 rows or 2 ms; of each pair \
the faster one is measured. A peer that could not be measured is in the table with the reason."""
COLUMNS = ("model", "server", "requests/s", "p50 ms", "p99 ms", "compiled / it", "hosted / it", "failures")


@dataclass(slots=True)
class Met:
    """One peer with one kind of model, and ours beside it, round by round."""

    kind: str
    peer: str
    theirs: list[Load] = field(default_factory=list)
    ours: dict[str, list[Load]] = field(default_factory=lambda: {COMPILED: [], HOSTED: []})

    def times(self, server: str) -> list[float]:
        """Return how many times as many requests we answered, round by round."""
        return ratios([one.per_second for one in self.ours[server]], [one.per_second for one in self.theirs])

    def row(self) -> tuple[str | float, ...]:
        """Return the medians."""
        middle = [median([getattr(one, name) for one in self.theirs]) for name in ("per_second", "p50_ms", "p99_ms")]
        times = [median(self.times(server)) for server in (COMPILED, HOSTED)]
        return self.kind, self.peer, *middle, *times, sum(one.failures for one in self.theirs)


Urls = Mapping[tuple[str, str], tuple[str, str]]
"""By server and kind of model: base URL and path."""


def run(run: Run) -> Result:
    """Meet every peer."""
    generators = _Generators(run.scratch)
    met: list[Met] = []
    troubles: list[tuple[str, str]] = []
    versions: list[tuple[str, str]] = []
    with _ours(run.scratch) as (urls, engines):
        for role, candidates in _roles():
            try:
                peer, found = _best(run, generators, role, candidates, troubles)
                about = {**dict(one.split("==") for one in peer.requirements), **found}
                versions.append((role, f"{peer.name}: {', '.join(f'{name} {one}' for name, one in about.items())}"))
                met += [_meet(run, generators, urls, role, peer, model) for model in MODELS]
            except PeerFailed as error:
                troubles.append((role, str(error)))
    tables = [
        Table("Medians of all rounds", COLUMNS, tuple(one.row() for one in met)),
        Table("What ran", ("server", "versions"), tuple(versions)),
        Table("Engines of this server", ("server", "model", "engine"), engines),
    ]
    tables += [Table("What could not be measured", ("server", "what it said"), tuple(troubles))] if troubles else []
    return Result(
        name="against_peers",
        title="One row over HTTP, beside other model servers",
        method=METHOD.format(
            generator=generators.name, rounds=run.count(3, 1), seconds=run.count(3, 1), connections=CONNECTIONS
        ),
        figures=tuple(_figures(met)),
        tables=tuple(tables),
        plots=tuple(_bars(met)),
    )


class _Generators:
    """One generator for each body."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[bytes, Generator] = {}
        self.name = self.of(BODY).name

    def of(self, body: bytes) -> Generator:
        if body not in self._found:
            self._found[body] = Generator(self._directory, body, [CLIENT_CORE], f"body{len(self._found)}")
        return self._found[body]


def _roles() -> Iterator[tuple[str, Sequence[Peer]]]:
    yield PLAIN, peer_list.MLSERVER
    yield ADAPTIVE, peer_list.MLSERVER_ADAPTIVE
    for peer in peer_list.OTHERS:
        yield peer.name, (peer,)


@contextmanager
def _ours(scratch: Path) -> Iterator[tuple[Urls, tuple[tuple[str, str, str], ...]]]:
    """Run this server twice, compiling and not, and yield where each model is and its engine."""
    store = scratch / "store"
    store.mkdir()
    for model, kind in KIND_OF.items():
        publish(KINDS[kind](), model, version="1", store=store, X=X, golden=X[:5], check=False)
    urls, engines = {}, []
    with ExitStack() as stack:
        for name, how in ((COMPILED, "auto"), (HOSTED, "off")):
            on = [SERVER_CORE]
            server = stack.enter_context(running(scratch / how, store=store, on=on, SERVING_ENGINE__COMPILE=how))
            for model, engine in wait_settled(server, len(KIND_OF)).items():
                urls[name, KIND_OF[model]] = server.url, f"/models/{model}/predict"
                engines.append((name, KIND_OF[model], engine))
        yield urls, tuple(engines)


def _best(
    run: Run, generators: _Generators, role: str, candidates: Sequence[Peer], troubles: list[tuple[str, str]]
) -> tuple[Peer, dict[str, str]]:
    """Return the candidate that answers most with the logistic pipeline, and its versions; raises PeerFailed."""
    speeds: dict[float, tuple[Peer, dict[str, str]]] = {}
    for peer in candidates:
        try:
            binaries = install(peer, run.cache)
            versions = train(peer, binaries, run.scratch / peer.environment)
            speed = 0.0
            if len(candidates) > 1:
                with started(peer, binaries, run.scratch / peer.environment, MODELS[0], on=[SERVER_CORE]) as url:
                    speed = _load(generators, url, peer, MODELS[0], run.count(3, 1)).per_second
            speeds[speed] = peer, versions
        except PeerFailed as error:
            troubles.append((peer.name, str(error)))
    if not speeds:
        raise PeerFailed(f"no way to run {role} was left")
    return speeds[max(speeds)]


def _load(generators: _Generators, url: str, peer: Peer, model: str, seconds: int) -> Load:
    where = (url, peer.path(model))
    generators.of(peer.body).load(*where, connections=CONNECTIONS, seconds=1)
    return generators.of(peer.body).load(*where, connections=CONNECTIONS, seconds=seconds)


def _meet(run: Run, generators: _Generators, urls: Urls, role: str, peer: Peer, model: str) -> Met:
    """Load one peer and ours in turns."""
    met, seconds = Met(KIND_OF[model], role), run.count(3, 1)
    binaries, directory = install(peer, run.cache), run.scratch / peer.environment
    with started(peer, binaries, directory, model, on=[SERVER_CORE]) as url:
        for _ in range(run.count(3, 1)):
            met.theirs.append(_load(generators, url, peer, model, seconds))
            for server, loads in met.ours.items():
                where = urls[server, met.kind]
                loads.append(generators.of(BODY).load(*where, connections=CONNECTIONS, seconds=seconds))
    return met


def _figures(met: Sequence[Met]) -> Iterator[Figure]:
    by = {(one.kind, one.peer): one for one in met}
    for kind, server, peer, at_least in TARGETS:
        if (kind, peer) in by:
            what = f"{kind}: requests/s, {server} / {peer}"
            yield figure(what, "×", by[kind, peer].times(server), at_least=at_least)
    failures = sum(load.failures for one in met for loads in one.ours.values() for load in loads)
    yield figure("requests that failed, this server", "", float(failures), at_most=0)


def _bars(met: Sequence[Met]) -> Iterator[Plot]:
    for kind in KIND_OF.values():
        found = [one for one in met if one.kind == kind]
        bars = [(one.peer, median([load.per_second for load in one.theirs])) for one in found]
        for server in (COMPILED, HOSTED):
            loads = [load.per_second for one in found for load in one.ours[server]]
            bars += [(server, median(loads))] if loads else []
        yield Plot(
            f"{kind}, one row, 16 connections, one core", "requests/s", tuple(sorted(bars, key=lambda bar: -bar[1]))
        )

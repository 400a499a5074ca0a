"""Swaps of a compiled forest on several workers: how soon all of them answer, and what requests meet meanwhile."""

from __future__ import annotations

import timeit
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from sklearn.ensemble import RandomForestClassifier

from benchmarks.commit_watch import CommittedWord, WorkerClients, time_commit
from benchmarks.models import BODY, GOLDEN_ROWS, X, y
from benchmarks.run import Run
from benchmarks.server import LogReader
from benchmarks.under_load import Swap, measure
from benchmarks.worker_turns import FOREST_PATH
from serving import publish
from serving.plane.active_reference import ActiveReference, read
from serving.wire.shared_words import make_words, map_words
from tests.e2e.harness import Server

RATE = 1000.0
STEADY_SECONDS = 5.0
TREES = 100


def publish_forest(store: Path, version: int) -> Path:
    """Publish a forest of 100 trees with manifest and golden examples, another one for each version."""
    store.mkdir(parents=True, exist_ok=True)
    forest = RandomForestClassifier(TREES, random_state=version).fit(X, y)
    return publish(forest, "forest", version=str(version), store=store, X=X, golden=X[:GOLDEN_ROWS], check=False).path


def time_commits(server: Server, versions: Sequence[Path]) -> list[float]:
    """Rename one version after another into the store; return ms from each commit to the last worker's answer.

    The service is not asked otherwise. A commit before which a connection has moved to another worker is left out; when
    all are, RuntimeError is raised. Blocks.
    """
    word = CommittedWord(server)
    found = []
    for path in versions:
        log, clients = LogReader(server), WorkerClients(server, FOREST_PATH, BODY)
        act = partial(path.rename, server.store / "forest" / path.name)
        seconds = time_commit(word, clients, act, path.name)
        if clients.reach_all():
            found.append(seconds * 1000)
        clients.close()
        log.wait_active("forest", path.name)
    if not found:
        raise RuntimeError("connections moved before each commit")
    return found


def swap_under_load(run: Run, server: Server, versions: Sequence[Path]) -> list[Swap]:
    """Rename one version after another into the store under open-loop load; return what requests met. Blocks."""

    def swap(number: int) -> None:
        path, log = versions[number - 1], LogReader(server)
        path.rename(server.store / "forest" / path.name)
        log.wait_active("forest", path.name)

    return measure(run, server.url, FOREST_PATH, list(versions), swap, rate=RATE, steady_seconds=STEADY_SECONDS)


def time_word(rounds: int, calls: int = 20_000) -> list[float]:
    """Return the ns that a request's read of the reference takes beyond reading an attribute, round by round."""
    fd = make_words("benchmark")
    words, shared = map_words(fd, writes=True), map_words(fd)
    words[0] = 1
    reference = ActiveReference(generation=1, committed=shared)
    names = {"read": read, "state": SimpleNamespace(active=reference, prepared=reference)}
    timers = [timeit.Timer(statement, globals=names) for statement in ("read(state)", "state.active")]

    def time_round() -> float:
        """Return the difference of the least of both, in turns: whatever disturbs makes a call longer."""
        took = [[timer.timeit(calls) for timer in timers] for _ in range(20)]
        return (min(one[0] for one in took) - min(one[1] for one in took)) * 1e9 / calls

    return [time_round() for _ in range(rounds)]

"""Several workers: what they cost, what they bring, how soon all of them answer with a new version, what they weigh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cores
from benchmarks.memory import MB, Memory
from benchmarks.models import BODY
from benchmarks.result import Figure, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import all_pids, running, wait_settled
from benchmarks.under_load import COLUMNS as SWAP_COLUMNS
from benchmarks.under_load import Swap, latency
from benchmarks.worker_memory import weigh_empty, weigh_host, weigh_workers
from benchmarks.worker_swaps import RATE, publish_forest, swap_under_load, time_commits, time_word
from benchmarks.worker_turns import COLUMNS, Stretch, load_in_rounds, ratios, rows
from benchmarks.wrk import Generator
from tests.e2e.harness import Server

CONNECTIONS = 64
ONE, TWO, FOUR, PAIR = "1 worker", "2 workers", "4 workers", "two servers"
METHOD = """A random forest of 100 trees, compiled, is asked with one row of JSON over {connections} connections. All \
services run at the same time and get their turns one after another, forwards and backwards, 1 s each; ratios are \
taken within a round. Processor time is that of all processes, supervisor and hosts included, over the requests \
answered; for its target all processes of a service are on one core and the load generator ({generator}) on another, \
because a request costs more on a machine whose cores are all busy, whatever answers it. Requests a second are \
measured on two cores, with the generator beside them. "Two servers" are two services of one worker each, every one \
with half of the connections and a generator of its own: what this machine allows. A commit is timed from when the \
shared word last had the old generation (read about every 0.1 ms) until every worker has answered a request sent \
thereafter, while nothing else is asked. Swaps under load: {rate:g} requests/s, open loop; "before" is a stretch \
before each rename, "during" lasts from the rename until two seconds after the new version became active, its \
evaluation and compilation on the same two cores included. Memory is read from `/proc/<pid>/smaps_rollup` after two \
seconds at rest. The word's read is what `read` of the active reference takes beyond reading an attribute."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that was measured."""

    on_one_core: Mapping[str, Sequence[Stretch]]
    turns: Mapping[str, Sequence[Stretch]]
    commits: Mapping[str, Sequence[float]]
    swaps: Sequence[Swap]
    empty: tuple[Sequence[Memory], float]
    empty_of_two: float
    loaded: Sequence[Memory]
    hosts: tuple[tuple[float, int], tuple[float, int]]
    word_ns: Sequence[float]


def run(run: Run) -> Result:
    """Measure one after another."""
    generator = Generator(run.scratch, BODY, cores.ALL)
    found = _measure(run, generator)
    method = METHOD.format(generator=generator.name, connections=CONNECTIONS, rate=RATE)
    swaps = tuple(swap.row("2 workers", number) for number, swap in enumerate(found.swaps, 1))
    return Result(
        name="workers",
        title="Several workers",
        method=method,
        figures=tuple(_figures(found)),
        tables=(
            Table("On two cores with the generator, medians of all rounds", COLUMNS, rows(found.turns)),
            Table("On one core, the generator on another, medians of all rounds", COLUMNS, rows(found.on_one_core)),
            Table("Every swap under load", SWAP_COLUMNS, swaps),
        ),
    )


def _measure(run: Run, generator: Generator) -> Found:
    with ExitStack() as stack:

        def start(name: str, workers: int) -> Server:
            publish_forest(run.scratch / name / "store", 1)
            settings = {"SERVING_SERVER__WORKERS": str(workers)}
            server = stack.enter_context(running(run.scratch / name, on=cores.first(2), **settings))
            if wait_settled(server, 1) != {"forest": "onnx"}:
                raise RuntimeError("the forest is not compiled")
            return server

        one, two, four, other = start("one", 1), start("two", 2), start("four", 4), start("other", 1)
        services = {ONE: (one,), TWO: (two,), FOUR: (four,), PAIR: (one, other)}
        load_in_rounds(services, generator, connections=CONNECTIONS, rounds=1, seconds=1)  # a warm-up
        rounds = run.count(10, 2)
        turns = load_in_rounds(services, generator, connections=CONNECTIONS, rounds=rounds, seconds=1)
        on_one_core = _load_on_one_core(run, {ONE: (one,), TWO: (two,), FOUR: (four,)}, rounds)
        loaded = weigh_workers(four)
        several = {TWO: two, FOUR: four}
        commits = {name: time_commits(server, _versions(run, name, 10, 2)) for name, server in several.items()}
        one.kill()
        other.kill()
        four.kill()
        swaps = swap_under_load(run, two, _versions(run, "under load", 5, 2, after=10))
    return Found(
        on_one_core,
        turns,
        commits,
        swaps,
        weigh_empty(run.scratch / "empty-4", 4),
        weigh_empty(run.scratch / "empty-2", 2)[1],
        loaded,
        (weigh_host(run, 1), weigh_host(run, 4)),
        time_word(run.count(7, 3)),
    )


def _load_on_one_core(run: Run, services: Mapping[str, Sequence[Server]], rounds: int) -> dict[str, list[Stretch]]:
    pids = [pid for servers in services.values() for server in servers for pid in all_pids(server)]
    generator = Generator(run.scratch, BODY, [cores.CLIENT_CORE])
    cores.move(pids, [cores.SERVER_CORE])
    try:
        return load_in_rounds(services, generator, connections=CONNECTIONS, rounds=rounds, seconds=1)
    finally:
        cores.move(pids, cores.first(2))


def _versions(run: Run, name: str, full: int, quick: int, after: int = 0) -> list[Path]:
    first = after + 2
    return [publish_forest(run.scratch / f"aside {name}", first + number) for number in range(run.count(full, quick))]


def _figures(found: Found) -> Iterator[Figure]:
    """Yield what was promised and what else was found."""
    turns = found.turns
    for name, at_most in ((TWO, None), (FOUR, 1.1)):
        cost = ratios(found.on_one_core, "cpu_us", name, ONE)
        yield figure(f"processor time per request, {name} / 1 worker", "×", cost, at_most=at_most)
    cost = ratios(turns, "cpu_us", TWO, PAIR)
    yield figure("processor time per request on two busy cores, 2 workers / two servers", "×", cost)
    gain = ratios(turns, "per_second", TWO, ONE)
    yield figure("requests/s, 2 workers / 1 worker, on two cores with the generator", "×", gain, at_least=1.4)
    yield figure("requests/s, two servers / 1 worker, the same", "×", ratios(turns, "per_second", PAIR, ONE))
    yield figure("requests/s, 2 workers / two servers", "×", ratios(turns, "per_second", TWO, PAIR))
    for name, seconds in found.commits.items():
        yield figure(f"commit to the last worker's first answer, {name}", "ms", seconds, at_most=2)
    private = [one.private / MB for one in found.empty[0]]
    yield figure("private memory of a worker, no model", "MB", private, at_most=45)
    more = (found.empty[1] - found.empty_of_two) / 2
    yield figure("proportional set size of a further worker, no model", "MB", more)
    loaded = [one.private / MB for one in found.loaded]
    yield figure("private memory of a worker that has answered, compiled forest", "MB", loaded)
    (of_one, count_of_one), (of_four, count_of_four) = found.hosts
    yield figure("hosted forest of 100 MB: its host, 4 workers / 1 worker", "×", of_four / of_one, at_most=1.02)
    yield figure("hosted forest of 100 MB: its host, 4 workers", "MB", of_four)
    yield figure("hosted forest: hosts, 4 workers", "", float(count_of_four), at_most=float(count_of_one))
    swaps = found.swaps
    ratio = [latency(swap.during).p99 / latency(swap.steady).p99 for swap in swaps]
    yield figure("swap under load, 2 workers: p99 during / before", "×", ratio, at_most=1.5)
    yield figure("swap under load: p99 before", "ms", [latency(swap.steady).p99 for swap in swaps])
    yield figure("swap under load: p99 during", "ms", [latency(swap.during).p99 for swap in swaps])
    failures = sum(swap.failures for swap in swaps) + sum(
        one.failures for each in (*turns.values(), *found.on_one_core.values()) for one in each
    )
    yield figure("requests that failed", "", float(failures), at_most=0)
    yield figure("the word's read at admission", "ns", found.word_ns, at_most=100)

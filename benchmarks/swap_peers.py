"""A gigabyte becomes active on one core: this server, the usual service and MLServer. ``make bench-swap``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks import peer_list
from benchmarks.cores import CLIENT_CORE, SERVER_CORE
from benchmarks.large_swap import serve_and_swap, swap_usual
from benchmarks.models import large_forests, size_mb
from benchmarks.peer_servers import OIP_BODY, Peer, PeerFailed, install, started, train
from benchmarks.percentiles import median
from benchmarks.result import Figure, Plot, Result, Table, figure
from benchmarks.run import Run
from benchmarks.under_load import COLUMNS, Swap, latency, line, measure

SECONDS = 600
METHOD = """Each server has one core for all of its processes, the load generator the other. It answers a small \
logistic pipeline 200 times a second, open loop: each request is due at a fixed time and its latency counts from \
then, whether or not earlier ones were answered. Meanwhile a random forest of about a gigabyte is taken up, twice, \
the second replacing the first: by a rename into this server's store (default settings), by the refresh endpoint of \
the usual FastAPI service, which loads in a thread, and by MLServer's repository API (`POST \
/v2/repository/models/large/load`, with its default of one inference worker, and with everything in one process). \
"Steady" is a stretch before each swap, "during" lasts from its begin until two seconds after its end. The file is \
the same for all three, and in the page cache."""
ON, GENERATOR = [SERVER_CORE], [CLIENT_CORE]


def run(run: Run) -> Result:
    """Swap into one server after another."""
    forests = large_forests(run.cache, run.count(1020, 150), run.count(3, 2))[:2]
    ours, _, engines = serve_and_swap(run, forests, ON, GENERATOR)
    swaps = {"serving": ours, "usual service": swap_usual(run, forests, ON, GENERATOR)}
    troubles: list[tuple[str, str]] = []
    for peer in peer_list.MLSERVER:
        try:
            swaps[peer.name] = _mlserver(run, peer, forests)
        except (PeerFailed, httpx.HTTPError) as error:
            troubles.append((peer.name, str(error)))
    rows = [swap.row(who, number) for who, found in swaps.items() for number, swap in enumerate(found, 1)]
    tables = [
        Table("Every swap", COLUMNS, tuple(rows)),
        Table("Engines of this server", ("model", "engine"), tuple(engines.items())),
    ]
    tables += [Table("What could not be measured", ("server", "what it said"), tuple(troubles))] if troubles else []
    lines = tuple((who, line(found[-1])) for who, found in swaps.items())
    return Result(
        name="swap_peers",
        title="A gigabyte becomes active on one core, beside other servers",
        method=METHOD,
        figures=(*_figures(swaps), figure("size of the model file", "MB", size_mb(forests[0]))),
        tables=tuple(tables),
        plots=(Plot("Worst request of each tenth of a second, second swap", "ms", lines=lines),),
    )


def _figures(swaps: dict[str, list[Swap]]) -> Iterator[Figure]:
    for who, found in swaps.items():
        during = [latency(swap.during) for swap in found]
        is_ours = who == "serving"
        yield figure(f"{who}: p99 before", "ms", [latency(swap.steady).p99 for swap in found])
        yield figure(f"{who}: p99 during", "ms", [one.p99 for one in during], at_most=10 if is_ours else None)
        yield figure(f"{who}: worst request", "ms", [one.worst for one in during])
        yield figure(f"{who}: begin to active", "s", [swap.seconds for swap in found])
        failures = float(sum(swap.failures for swap in found))
        yield figure(f"{who}: requests that failed", "", failures, at_most=0 if is_ours else None)
        if not is_ours:
            ratio = median([one.p99 for one in during]) / median([latency(one.during).p99 for one in swaps["serving"]])
            yield figure(f"p99 during, {who} / serving", "×", ratio)


def _mlserver(run: Run, peer: Peer, forests: list[Path]) -> list[Swap]:
    """Have MLServer load the forests beside the model it answers with."""
    directory = run.scratch / peer.environment
    binaries = install(peer, run.cache)
    train(peer, binaries, directory)
    with started(peer, binaries, directory, "logistic", on=ON) as url:

        def swap(number: int) -> None:
            peer_list.write_mlserver_model(directory / "mlserver", "large", forests[number - 1] / "model.joblib")
            answer = httpx.post(f"{url}/v2/repository/models/large/load", timeout=SECONDS)
            if answer.status_code != 200:
                raise PeerFailed(f"{answer.status_code} {answer.text[:200]}")

        return measure(run, url, peer.path("logistic"), forests, swap, body=OIP_BODY, generator=GENERATOR)

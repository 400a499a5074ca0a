"""Whether memory comes back after many swaps."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.memory import MB, memory_of_pids
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import LogReader, all_pids, running
from tests.e2e.harness import PECULIAR, Server, constant, until, write_version

QUIET_SECONDS = 2.0
METHOD = """A model that carries 100 MB of random bytes is replaced 100 times, each version written aside and renamed \
into the store, older directories removed as others would. After the first and the last swap, and every \
tenth between, the server is left alone until only the active version and its standby have hosts, for two \
seconds more, and the proportional set size (pages shared by n processes count 1/n) of the server, the \
zygote and both hosts is added up. Default settings."""


def run(run: Run) -> Result:
    """Swap and weigh."""
    swaps, megabytes = run.count(100, 6), run.count(100, 10)
    directory = run.scratch / "server"
    estimator = constant(1, ballast_bytes=megabytes * 1_000_000)
    write_version(directory / "store" / "heavy", 1, estimator)
    rows: list[tuple[float, float, float]] = []
    with running(directory, SERVING_SECURITY__PICKLE_TRUSTED=",".join(PECULIAR)) as server:
        for number in range(1, swaps + 1):
            log = LogReader(server)
            estimator.value = float(number + 1)
            write_version(server.store / "heavy", number + 1, estimator)
            log.wait_active("heavy", number + 1)
            _remove_old(server.store / "heavy" / str(number - 1))
            if number in (1, swaps) or number % 10 == 0:
                rows.append((number, *_weigh(server)))
    (_, server_first, all_first), (_, server_last, all_last) = rows[0], rows[-1]
    return Result(
        name="swap_memory",
        title=f"Memory after {swaps} swaps of a {megabytes} MB model",
        method=METHOD,
        figures=(
            figure("all processes, after the last swap / after the first", "×", all_last / all_first, at_most=1.1),
            figure(
                "server process, after the last swap / after the first", "×", server_last / server_first, at_most=1.1
            ),
            figure("all processes after the first swap", "MB", all_first),
            figure("all processes after the last swap", "MB", all_last),
            figure("server process after the first swap", "MB", server_first),
            figure("server process after the last swap", "MB", server_last),
        ),
        tables=(Table("On the way", ("swaps", "server MB", "all processes MB"), tuple(rows)),),
    )


def _remove_old(version: Path) -> None:
    shutil.rmtree(version, ignore_errors=True)


def _weigh(server: Server) -> tuple[float, float]:
    until(lambda: len(server.hosts()) == 2, "two hosts being left")
    time.sleep(QUIET_SECONDS)
    memory = memory_of_pids(all_pids(server))
    return memory[0].proportional / MB, sum(one.proportional for one in memory) / MB

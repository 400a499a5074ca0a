"""kill -9 of the server at every failpoint, under traffic, and what the next start makes of it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import httpx
import psutil
import pytest

from serving.failpoints import POINTS, Point
from tests.e2e.armed import Faults
from tests.e2e.harness import START_SECONDS, Server, armed, constant, is_alive, until, write_version
from tests.e2e.record import Record
from tests.e2e.traffic import Traffic

CACHE_WRITES = 3  # of a model without a compiled form: the copy, its descriptor, its evaluation
# Nothing is under way there; or only of a state that is damaged: test_faults_state.py.
IDLE: tuple[Point, ...] = ("listing", "event", "state-copy", "state-replaced")
# Those with several workers: test_workers_killed.py; of rollouts: test_rollouts_killed.py; of uploads:
# test_uploads_failing.py; of the log of predictions: test_prediction_log.py.
ELSEWHERE = ("worker", "roll", "upload", "before-publication", "record")
DEATHS = [(point, 1) for point in POINTS if point not in IDLE and not point.startswith(ELSEWHERE)] + [
    ("cache-write", n + 1) for n in range(1, CACHE_WRITES)
]
# every second one, and all in `make soak`: each takes two starts
SOME = [pytest.param(*death, marks=[pytest.mark.soak] if place % 2 else []) for place, death in enumerate(DEATHS)]


@pytest.fixture(scope="module")
def fated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    """A server that dies in every test and is started again; it keeps no standby, so that every swap drains one."""
    directory = tmp_path_factory.mktemp("fated")
    write_version(directory / "store" / "m", 1, constant(1))
    with armed(directory, wait_ready=True, SERVING_STORE__KEEP_WARM="0") as (server, faults):
        yield server, faults


@pytest.mark.parametrize(("point", "nth"), SOME)
def test_kill_9_of_the_server_at_each_failpoint(fated: tuple[Server, Faults], point: Point, nth: int) -> None:
    """Invariant 13: the next start serves the aspired version, nothing is half done, and no process is left."""
    server, faults = fated
    before = int(server.active("m") or 0)
    children = server.processes()
    record = Record()
    with Traffic(server.url, "m", rate=50, record=record) as traffic:
        until(lambda: record.counts[200] > 10, "traffic")
        with record.excuse(0, 503):  # nobody listens for a while, then nothing is loaded yet
            faults.arm(point, "kill", nth)
            if point == "respawn":
                server.hosts()[0].kill()
            server.drop("m", before + 1, constant(before + 1))
            assert server.process is not None
            with contextlib.suppress(psutil.NoSuchProcess):
                children += server.processes()
            assert server.process.wait(30) == -signal.SIGKILL
            until(lambda: not any(map(is_alive, children)), "the end of every child")
            server.start()
            traffic.url = server.url
            # the clients see when it is back; asking for it a hundred times a second would slow down every start
            newest = str(before + 1)
            until(lambda: record.replies[-1].version == newest, f"answers of version {newest}", START_SECONDS)
            server.wait_ready()
        answered = record.counts[200]
        until(lambda: record.counts[200] > answered + 10, "traffic going on")
    record.verify()
    assert server.model("m")["last_failure"] is None
    server.wait_state("m", before + 1, "ACTIVE")
    temporary = server.state / "cache" / "tmp"
    until(lambda: not [path for path in temporary.iterdir() if path.is_file()], "the end of what is half done")


def test_kill_9_at_the_write_of_an_operators_decision_keeps_all_of_it_or_nothing(
    fated: tuple[Server, Faults],
) -> None:
    """The call got no answer; killed before the commit, the decision was never made."""
    server, faults = fated
    active = server.active("m")
    faults.arm("state-write", "kill")
    with pytest.raises(httpx.TransportError):
        server.operate("POST", "/models/m/pin", {"version": active})
    assert server.process is not None
    assert server.process.wait(30) == -signal.SIGKILL
    server.start(wait_ready=True)
    server.wait_active("m", str(active))
    assert server.get("/models/m/active")["pinned"] is None

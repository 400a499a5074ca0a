"""A host and its replicas as real processes: they are forked after the model was loaded, and none outlives the host."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier

from serving import sandbox
from serving.domain.artifact import Artifact, StagedFile
from serving.domain.report import CandidateReport
from serving.domain.version import Format, VersionId
from serving.hosting.evaluating import evaluate_candidate
from serving.hosting.zygote import HostProcess, Zygote
from serving.lifecycle.evaluation_request import evaluation_request
from serving.plane import hosted_engine
from serving.plane.hosted_engine import HostedEngine
from serving.rows.batch import Batch
from serving.settings import Settings
from tests.e2e.harness import MATERIAL, PECULIAR, constant, peculiar, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tests shared memory and PR_SET_PDEATHSIG of Linux")
Start = Callable[..., HostProcess]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start a zygote for all tests of this file."""
    path = os.pathsep.join([str(MATERIAL), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    zygote = Zygote(sandbox.scrub_environment({**os.environ, "PYTHONPATH": path}), tmp_path_factory.mktemp("scratch"))
    yield zygote
    zygote.stop()


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path) -> Iterator[Start]:
    """Start a host with replicas whose model answers with the id of its process."""
    started: list[HostProcess] = []

    def make(replicas: int, estimator: Any = None) -> HostProcess:
        path = tmp_path / "model.joblib"
        joblib.dump(constant(0, peculiar.Echo) if estimator is None else estimator, path)
        file = StagedFile("model.joblib", "00", path.stat().st_size, path)
        artifact = Artifact(VersionId("m", "1", "sha256:00"), Format.JOBLIB, file, (file,), quiet_seconds=1)
        host = zygote.spawn(replicas)
        started.append(host)
        settings = Settings.model_validate({"engine": {"compile": "off"}, "security": {"pickle_trusted": PECULIAR}})
        request = evaluation_request(
            artifact, settings, passed=CandidateReport(gates=()) if estimator is None else None
        )
        evaluation = evaluate_candidate(host, request, 60)
        assert evaluation.report.refusal is None
        return host

    yield make
    for host in started:
        host.close()


def run(host: HostProcess, scenario: Callable[[HostedEngine], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with an engine that is connected to `host`."""

    async def whole() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        async with asyncio.timeout(30):
            await scenario(engine)
            await engine.close()

    asyncio.run(whole())


async def ask(engine: HostedEngine) -> int:
    """Return the id of the process that answers."""
    return int((await engine.predict("predict", Batch(1, matrix=np.zeros((1, 2))), 30)).list_rows()[0])


async def ask_all(engine: HostedEngine, count: int) -> list[int]:
    """Send one request to every process at the same time."""
    return await asyncio.gather(*(ask(engine) for _ in range(count)))


def wait_until_gone(pids: list[int]) -> None:
    """Wait until these processes have ended and been reaped."""
    until(lambda: not any(map(psutil.pid_exists, pids)), "the end of every process")


def test_replicas_are_children_of_the_host_and_all_answer(start: Start) -> None:
    host = start(3)

    async def scenario(engine: HostedEngine) -> None:
        pids = await ask_all(engine, 3)
        assert pids[0] == host.pid
        assert sorted(pids[1:]) == sorted(child.pid for child in psutil.Process(host.pid).children())
        assert len(set(pids)) == 3
        for pid in pids:
            assert psutil.Process(pid).nice() == psutil.Process().nice(), "only loading has a lower priority"
            own = 2 if pid == host.pid else 1
            assert len(list_open_sockets(pid)) == own, "each process has only its own socket, and the host its lifeline"

    run(host, scenario)


def list_open_sockets(pid: int) -> list[str]:
    """Return the open sockets of a process."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]


def test_other_replicas_answer_after_one_was_killed(start: Start) -> None:
    host = start(2)

    async def scenario(engine: HostedEngine) -> None:
        _, replica = await ask_all(engine, 2)
        os.kill(replica, 9)
        while engine.is_whole:
            await asyncio.sleep(0.001)
        assert await ask_all(engine, 3) == [host.pid] * 3
        assert engine.is_connected

    run(host, scenario)


def test_replicas_die_with_their_host(start: Start) -> None:
    host = start(3)

    async def scenario(engine: HostedEngine) -> None:
        pids = await ask_all(engine, 3)
        os.kill(host.pid, 9)
        while engine.is_connected:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(wait_until_gone, pids)

    run(host, scenario)
    assert host.returncode(30) == -9


def test_a_replica_dies_with_its_host_even_while_it_computes(start: Start) -> None:
    """While it computes, it does not notice the end of its socket."""
    host = start(2, constant(0, peculiar.Slow))
    replicas = [child.pid for child in psutil.Process(host.pid).children()]

    async def scenario(engine: HostedEngine) -> None:
        slow = Batch(1, matrix=np.array([[600.0, 77.0]]))
        asked = [asyncio.ensure_future(engine.predict("predict", slow, 30)) for _ in range(2)]
        await asyncio.sleep(0)
        os.kill(host.pid, 9)
        while engine.is_connected:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(wait_until_gone, [host.pid, *replicas])
        for request in asked:
            request.cancel()
        await asyncio.wait(asked)

    run(host, scenario)


def test_a_closed_host_ends_its_replicas_and_then_itself(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_engine, "CLOSE_SECONDS", 30.0)  # a busy machine is no reason to kill it
    host = start(3)
    pids: list[int] = []

    async def scenario(engine: HostedEngine) -> None:
        pids.extend(await ask_all(engine, 3))

    run(host, scenario)
    assert host.returncode(30) == 0, "it exited without a kill, after it reaped its children"
    assert not any(map(psutil.pid_exists, pids))


def test_the_model_is_loaded_once_and_shared(start: Start) -> None:
    size = 64 << 20
    host = start(3, constant(0, peculiar.Echo, ballast_bytes=size))

    async def scenario(engine: HostedEngine) -> None:
        for pid in await ask_all(engine, 3):
            assert psutil.Process(pid).memory_full_info().uss < size

    run(host, scenario)


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, KNeighborsClassifier])
def test_replicas_of_models_that_compute_in_parallel_answer(start: Start, kind: type[Any]) -> None:
    """Both use OpenMP, already in the gates; a fork does not copy the threads that OpenMP may have started."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    labels = (X[:, 0] > 0).astype(int)
    host = start(3, kind().fit(X, labels))

    async def scenario(engine: HostedEngine) -> None:
        asked = [engine.predict("predict", Batch(200, matrix=X), 30) for _ in range(6)]
        for answer in await asyncio.gather(*asked):
            assert np.mean(answer.tensors[0] == labels) > 0.9
        assert engine.is_whole

    run(host, scenario)

"""Several workers over gRPC: one port, one version at one instant with HTTP, and connections that move on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.frozen import frozen
from tests.e2e.harness import MATERIAL, Server, constant, serving, until, write_version
from tests.e2e.real_time import PAUSE_SECONDS, WHILE_WAITING, Clients, Seen, find_going_back
from tests.e2e.test_workers import answering, wait_all_serving

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2", reason="the extra grpc is not installed")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="no client of the protocol is installed")

from grpc_health.v1 import health_pb2_grpc  # noqa: E402
from peculiar import Slow  # noqa: E402
from tritonclient.grpc import service_pb2_grpc  # noqa: E402

SWAPS = [4, pytest.param(10, marks=pytest.mark.soak)]
WORKERS = 3
ENTRY = (MATERIAL / "short_connections.py",)
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)  # else channels of one process share one
HEALTH = health_pb2.HealthCheckResponse


@dataclass
class GrpcClients:
    """Clients that ask one model again and again, each over a connection of its own, from one thread.

    A call that fails is noted with a status of 0, and in `errors`. After each answer a client pauses.
    """

    address: str
    model: str = "m"
    count: int = 8
    pause_seconds: float = PAUSE_SECONDS
    seen: list[Seen] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __enter__(self) -> GrpcClients:
        self._is_stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="grpc-clients")
        self._thread.start()
        self.wait_for_more(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "a call never came back"

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = len(self.seen) + count
        until(lambda: len(self.seen) >= wanted, f"{count} more calls")

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.count)))

    async def _client(self) -> None:
        async with grpc.aio.insecure_channel(self.address, options=OWN_CONNECTION) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._is_stopping:
                sent_at = time.monotonic()
                try:
                    answer = await stub.ModelInfer(question(self.model))
                except grpc.aio.AioRpcError as error:
                    self.errors.append(f"{error.code().name}: {error.details()}")
                    self.seen.append(Seen(sent_at, time.monotonic(), 0, 0, None))
                    await asyncio.sleep(0.01)
                else:
                    value = answer.outputs[0].contents.fp64_contents[0]
                    self.seen.append(Seen(sent_at, time.monotonic(), 200, int(answer.model_version), value))
                    await asyncio.sleep(self.pause_seconds)


def question(model: str, values: tuple[float, float] = (0.0, 0.0)) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype="FP64", shape=[1, 2]).contents.fp64_contents.extend(values)
    return request


def address_of(server: Server) -> str:
    (address,) = [event["address"] for event in server.log() if event["event"] == "listening_for_grpc"]
    return str(address)


def port_of(server: Server) -> int:
    return int(address_of(server).rpartition(":")[2])


def connections_of(pid: int, port: int) -> int:
    """Return how many connections a process has on a port."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in found)


def assert_sound(*clients: Clients | GrpcClients) -> None:
    """Every answer is its version's own, and nobody went back, whichever protocol was asked."""
    seen = [one for each in clients for one in each.seen]
    assert find_going_back(seen) == []
    assert [one for one in seen if one.status == 200 and abs((one.value or 0) - one.version) > 1e-6] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("workers-grpc")
    write_version(directory / "store" / "m", 1, answering(1))
    settings = {"SERVING_SERVER__WORKERS": str(WORKERS), "SERVING_SERVER__GRPC_PORT": "0"}
    with serving(directory, wait_ready=True, entry=ENTRY, imports_anew=False, **settings) as running:
        running.wait_active("m", 1)
        wait_all_serving(running)
        yield running
        assert running.stop() == 0


@pytest.mark.parametrize("swaps", SWAPS)
def test_no_client_goes_back_over_http_and_grpc_and_no_call_fails(swaps: int, server: Server) -> None:
    first = int(server.active("m") or 0)
    with GrpcClients(address_of(server)) as clients, Clients(server.url, "m", 6) as over_http:
        for version in range(first, first + swaps + 1):
            if version > first:
                server.drop("m", version, answering(version))
            until(lambda now=version: any(one.version == now for one in clients.seen), f"an answer of {version}", 60)
    assert clients.errors == []
    assert over_http.failures() == []
    assert_sound(clients, over_http)
    assert {one.version for one in clients.seen} >= set(range(first, first + swaps + 1))


def test_one_client_reaches_every_worker_in_time_and_no_call_of_it_fails(server: Server) -> None:
    """Its connection is ended when it is old enough, and the kernel chooses a worker for the next one."""
    pids = [one["pid"] for one in wait_all_serving(server)]
    reached: set[int] = set()

    def has_reached_all() -> bool:
        reached.update(pid for pid in pids if connections_of(pid, port_of(server)))
        return reached == set(pids)

    with GrpcClients(address_of(server), count=1, pause_seconds=WHILE_WAITING) as clients:
        until(has_reached_all, "a connection to each worker", every=0.05)
    assert clients.errors == []


def test_workers_that_end_one_after_another_fail_no_call(server: Server) -> None:
    """Each of them first takes no more connections, then waits for the end of those it has."""
    with GrpcClients(address_of(server), count=16, pause_seconds=WHILE_WAITING) as clients:
        for index in range(WORKERS):
            pid = wait_all_serving(server)[index]["pid"]
            os.kill(pid, signal.SIGTERM)
            until(lambda i=index, p=pid: wait_all_serving(server)[i]["pid"] != p, "another worker in its place")
            clients.wait_for_more(200)
    assert clients.errors == []
    assert_sound(clients)


def test_a_killed_worker_loses_its_own_calls_only(server: Server) -> None:
    before = wait_all_serving(server)
    with GrpcClients(address_of(server), count=12, pause_seconds=WHILE_WAITING) as clients:
        os.kill(before[1]["pid"], signal.SIGKILL)
        after = until(
            lambda: (found := wait_all_serving(server))[1]["pid"] != before[1]["pid"] and found, "another worker"
        )
        clients.wait_for_more(250)
        failed = len(clients.errors)
        clients.wait_for_more(250)
        assert len(clients.errors) == failed
    assert [after[index]["pid"] for index in (0, 2)] == [before[index]["pid"] for index in (0, 2)]
    assert all(error.startswith("UNAVAILABLE") for error in clients.errors)
    assert failed <= clients.count
    assert_sound(clients)


def test_health_is_that_of_the_service_when_a_worker_ends(server: Server) -> None:
    """A watch over a worker that ends is ended, and is not told that the service were not ready."""
    workers = {one["pid"]: one["index"] for one in wait_all_serving(server)}
    with grpc.insecure_channel(address_of(server), options=OWN_CONNECTION) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == HEALTH.SERVING
        (pid,) = until(  # those of other tests may still be closing
            lambda: len(found := [pid for pid in workers if connections_of(pid, port_of(server))]) == 1 and found,
            "no other connection",
        )
        os.kill(pid, signal.SIGTERM)
        assert list(watching) == []
        assert watching.code() is grpc.StatusCode.OK
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        assert answer.status == HEALTH.SERVING


def test_nothing_else_gets_the_port(server: Server, tmp_path: Path) -> None:
    port = port_of(server)
    with pytest.raises(OSError, match="in use"):
        listen(port)
    taken = rf"server.grpc_port: cannot listen on 127.0.0.1:{port}; is it taken\?"
    with pytest.raises(AssertionError, match=taken):
        start_another(tmp_path, port)


def test_a_port_that_another_program_has_is_refused_at_the_start(tmp_path: Path) -> None:
    """Also if that one would share it."""
    with closing(listen(0, socket.SO_REUSEPORT)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AssertionError, match=rf"server.grpc_port: cannot listen on 127.0.0.1:{port}; is it taken"):
            start_another(tmp_path, port)


def listen(port: int, *options: int) -> socket.socket:
    one = socket.socket()
    try:
        for option in (socket.SO_REUSEADDR, *options):
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind(("127.0.0.1", port))
        one.listen()
    except BaseException:
        one.close()
        raise
    return one


def start_another(directory: Path, port: int) -> None:
    """Start a server of two workers on a port for gRPC."""
    settings = {"SERVING_SERVER__WORKERS": "2", "SERVING_SERVER__GRPC_PORT": str(port)}
    with serving(directory, **settings):
        pass


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is for everybody; the last test stops it."""
    directory = tmp_path_factory.mktemp("two-workers")
    write_version(directory / "store" / "slow", 1, constant(1, Slow))
    settings = {
        "SERVING_SERVER__WORKERS": "2",
        "SERVING_SERVER__GRPC_PORT": "0",
        "SERVING_SERVER__LAME_DUCK_SECONDS": "0.6",
    }
    with serving(directory, wait_ready=True, **settings) as running:
        running.wait_active("slow", 1)
        yield running


def test_workers_are_forked_from_a_process_that_has_grpc_and_no_thread(two_workers: Server) -> None:
    assert two_workers.process is not None
    workers = [psutil.Process(one["pid"]) for one in wait_all_serving(two_workers)]
    (nursery,) = {worker.ppid() for worker in workers}
    assert nursery != two_workers.process.pid
    assert psutil.Process(nursery).num_threads() == 1
    for pid in (nursery, *(worker.pid for worker in workers)):
        assert "cygrpc" in Path(f"/proc/{pid}/maps").read_text()


def test_a_stop_is_told_and_waits_for_calls_under_way(two_workers: Server) -> None:
    assert two_workers.process is not None
    with grpc.insecure_channel(address_of(two_workers)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watching).status == HEALTH.SERVING
        workers = {one["pid"] for one in wait_all_serving(two_workers)}
        leased = 'serving_leases{model="slow",version="1"} 1.0'
        with frozen(one for one in two_workers.hosts() if one.pid not in workers):
            asking = stub.ModelInfer.future(question("slow", (2.0, 77.0)))
            until(lambda: leased in two_workers.client.get(two_workers.url + "/metrics").text, "the call under way")
            two_workers.process.send_signal(signal.SIGTERM)
        assert [one.status for one in watching] == [HEALTH.NOT_SERVING]
        assert asking.result(60).model_version == "1"
    assert two_workers.process.wait(60) == 0

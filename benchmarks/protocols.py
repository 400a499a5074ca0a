"""The same rows in every protocol and form, beside MLServer's: ``python -m benchmarks protocols``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import peer_list, protocol_bodies
from benchmarks.cores import CLIENT_CORE, SERVER_CORE, on_cores
from benchmarks.models import X, logistic
from benchmarks.peer_servers import PeerFailed, install, started, train
from benchmarks.percentiles import median
from benchmarks.result import Plot, Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running, wait_settled
from benchmarks.wire import Connection
from serving import publish

MODEL = "logistic"
NATIVE, NPY, ARROW, OIP, BINARY, GRPC = "JSON", "npy", "Arrow", "OIP JSON", "OIP binary", "OIP gRPC"
THEIRS, THEIR_GRPC = "MLServer: OIP JSON", "MLServer: OIP gRPC"
COUNTS = (1, 10_000)
# what, beside what, for how many rows, and at least how many times as many requests
TARGETS = (
    *((OIP, NATIVE, rows, 0.8) for rows in COUNTS),
    *((name, THEIRS, COUNTS[-1], 5.0) for name in (NPY, ARROW, BINARY)),
    (GRPC, THEIR_GRPC, 1, 1.0),
)
METHOD = """A scaler and a logistic regression over 30 features; {rows} rows of float64 in one request. One connection \
sends a request, prepared once, when it has read the last answer; a client on one core that parses nothing, every \
server with the other core for all of its processes. {rounds} rounds, in each {seconds} s of every protocol in turn. \
MLServer runs as in `against_peers`, with `parallel_workers: 0`, which is faster for one connection. Before it is \
measured, every protocol has answered 200."""

Ask = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is asked."""

    url: str
    grpc: str | None


def run(run: Run) -> Result:
    """Ask in every protocol in turn."""
    speeds: dict[tuple[str, int], list[float]] = {}
    troubles: list[tuple[str, str]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(run))
        theirs = _theirs(run, stack, troubles)
        for rows in COUNTS:
            with ExitStack() as connections, on_cores([CLIENT_CORE]):
                asks = _contenders(ours, theirs, rows, connections, troubles)
                for _ in range(run.count(5, 1)):
                    for name, ask in asks.items():
                        speeds.setdefault((name, rows), []).append(_per_second(ask, run.count(3.0, 0.5)))
    tables = [Table("Requests per second, medians", ("protocol", *map(_counted, COUNTS)), tuple(_rows(speeds)))]
    tables += [Table("What could not be measured", ("protocol", "what it said"), tuple(troubles))] if troubles else []
    return Result(
        name="protocols",
        title="Protocols and forms of rows",
        method=METHOD.format(rows=" and ".join(map(str, COUNTS)), rounds=run.count(5, 1), seconds=run.count(3, 0.5)),
        figures=tuple(
            figure(
                f"{_counted(rows)}: requests/s, {name} / {other}",
                "×",
                [mine / its for mine, its in zip(speeds[name, rows], speeds[other, rows], strict=True)],
                at_least=least,
            )
            for name, other, rows, least in TARGETS
            if (name, rows) in speeds and (other, rows) in speeds
        ),
        tables=tuple(tables),
        plots=tuple(
            Plot(
                f"{_counted(rows)} of 30 float64, one connection",
                "requests/s",
                tuple((name, median(found)) for (name, count), found in speeds.items() if count == rows),
            )
            for rows in COUNTS
        ),
    )


def _counted(rows: int) -> str:
    return f"{rows:,} row{'s' * (rows > 1)}"


def _rows(speeds: Mapping[tuple[str, int], Sequence[float]]) -> Iterator[tuple[str | float, ...]]:
    for name in dict.fromkeys(name for name, _ in speeds):
        yield name, *(median(speeds[name, rows]) if (name, rows) in speeds else "-" for rows in COUNTS)


@contextmanager
def _ours(run: Run) -> Iterator[Target]:
    store = run.scratch / "store"
    store.mkdir()
    publish(logistic(), MODEL, version="1", store=store, X=X, golden=X[:5], check=False)
    with running(run.scratch / "ours", store=store, on=[SERVER_CORE], SERVING_SERVER__GRPC_PORT="0") as server:
        wait_settled(server, 1)
        event = next((one for one in server.log() if one.get("event") == "listening_for_grpc"), None)
        yield Target(server.url, event["address"] if event else None)


def _theirs(run: Run, stack: ExitStack, troubles: list[tuple[str, str]]) -> Target | None:
    peer = next(one for one in peer_list.MLSERVER if "one process" in one.name)
    directory = run.scratch / peer.environment
    try:
        binaries = install(peer, run.cache)
        train(peer, binaries, directory)
        url = stack.enter_context(started(peer, binaries, directory, MODEL, on=[SERVER_CORE]))
    except PeerFailed as error:
        troubles.append((peer.name, str(error)))
        return None
    ports = json.loads((directory / "mlserver" / "settings.json").read_text())
    return Target(url, f"127.0.0.1:{ports['grpc_port']}")


def _contenders(
    ours: Target, theirs: Target | None, rows: int, stack: ExitStack, troubles: list[tuple[str, str]]
) -> dict[str, Ask]:
    """Return how to ask in each protocol, of those that answer."""
    array = np.resize(X, (rows, X.shape[1]))
    infer = f"/v2/models/{MODEL}/infer"
    asks: dict[str, Callable[[], Ask]] = {
        NATIVE: lambda: _over_http(ours, stack, protocol_bodies.native(MODEL, array)),
        NPY: lambda: _over_http(ours, stack, protocol_bodies.npy(MODEL, array)),
        ARROW: lambda: _over_http(ours, stack, protocol_bodies.arrow(MODEL, array)),
        OIP: lambda: _over_http(ours, stack, protocol_bodies.open_inference(infer, array)),
        BINARY: lambda: _over_http(ours, stack, protocol_bodies.binary(infer, array)),
        GRPC: lambda: _over_grpc(ours, stack, protocol_bodies.grpc(MODEL, array)),
    }
    if theirs is not None:
        asks[THEIRS] = lambda: _over_http(theirs, stack, protocol_bodies.open_inference(infer, array))
        asks[THEIR_GRPC] = lambda: _over_grpc(theirs, stack, protocol_bodies.grpc(MODEL, array))
    found = {}
    for name, make in asks.items():
        try:
            found[name] = make()
            found[name]()
        except (ImportError, RuntimeError, OSError) as error:
            found.pop(name, None)
            troubles.append((f"{name}, {_counted(rows)}", str(error)))
    return found


def _over_http(target: Target, stack: ExitStack, request: bytes) -> Ask:
    connection = Connection(target.url)
    stack.callback(lambda: connection.close())  # noqa: PLW0108  (the one there is then)

    def ask() -> None:
        nonlocal connection
        try:
            status, body = connection.exchange(request)
        except ConnectionError:  # servers close a connection that had nothing to say while others had their turn
            connection.close()
            connection = Connection(target.url)
            status, body = connection.exchange(request)
        if status != 200:
            raise RuntimeError(f"{status} {body[:200]!r}")

    return ask


def _over_grpc(target: Target, stack: ExitStack, message: bytes) -> Ask:
    import grpc

    if target.grpc is None:
        raise RuntimeError("the server has no port for gRPC")
    channel: Any = stack.enter_context(grpc.insecure_channel(target.grpc))
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes in, bytes out

    def ask() -> None:
        try:
            call(message)
        except grpc.RpcError as error:
            raise RuntimeError(error.details()) from None

    return ask


def _per_second(ask: Ask, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds or not count:
        ask()
        count += 1
    return count / spent

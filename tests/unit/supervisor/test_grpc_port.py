"""The port for gRPC is kept for several listeners, on every kind of address."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from serving.server import CannotListen
from serving.settings import ServerSettings
from serving.supervisor.grpc_port import GrpcPort
from tests.fakes import make_app, run

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from serving.api.grpc import inference_pb2 as messages  # noqa: E402
from serving.api.grpc.listener import Listener  # noqa: E402


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["[::1]"]),
        ("localhost", ["127.0.0.1", "localhost"]),
        ("0.0.0.0", ["127.0.0.1", "[::1]"]),
        ("::", ["127.0.0.1", "[::1]"]),
    ],
)
def test_several_listen_where_nothing_else_can(host: str, reached: list[str]) -> None:
    async def scenario() -> None:
        kept = GrpcPort.keep(ServerSettings(host=host, grpc_port=0))
        assert kept is not None
        app = make_app(server={"host": host})
        listeners = [Listener(app.state, shares_port=True) for _ in range(3)]
        try:
            assert {await one.start(kept.number) for one in listeners} == {kept.address}
            for name in reached:
                assert await _is_live(f"{name}:{kept.number}")
            with pytest.raises(CannotListen, match=f"cannot listen on {host}:{kept.number}; is it taken"):
                GrpcPort.keep(ServerSettings(host=host, grpc_port=kept.number))
            with pytest.raises(RuntimeError):
                await Listener(app.state).start(kept.number)
        finally:
            for one in listeners:
                await one.stop(0)
            kept.close()

    run(scenario())


async def _is_live(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive",
            request_serializer=messages.ServerLiveRequest.SerializeToString,
            response_deserializer=messages.ServerLiveResponse.FromString,
        )
        answer: Any = await ask(messages.ServerLiveRequest(), timeout=20)
        return bool(answer.live)


def test_no_client_is_lost_to_the_kept_port() -> None:
    kept = GrpcPort.keep(ServerSettings(grpc_port=0))
    assert kept is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", kept.number), 20)
    port = kept.number
    kept.close()
    socket.create_server(("127.0.0.1", port)).close()


def test_without_the_setting_there_is_none() -> None:
    assert GrpcPort.keep(ServerSettings()) is None

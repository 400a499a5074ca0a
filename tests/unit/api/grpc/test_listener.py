"""The gRPC side over fakes: who may call what, how errors are told, how the port is had."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
import uvicorn
from fastapi import FastAPI
from structlog.testing import capture_logs

from serving.api.edge import PredictionRouter
from serving.domain import errors
from serving.domain.decision import LoadModel, RefreshStore, UnloadModel
from serving.server import CannotListen, DrainingServer
from serving.telemetry.logging import REQUEST_ID
from tests.fakes import (
    MIXED,
    TOKEN,
    FakeEngine,
    echo,
    make_app,
    make_reference,
    make_servable,
    make_status,
    run,
)

NO_EXTRA = "the extra grpc is not installed"
grpc = pytest.importorskip("grpc", reason=NO_EXTRA)
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2", reason=NO_EXTRA)

from grpc_health.v1 import health_pb2_grpc  # noqa: E402

from serving.api.grpc import inference_pb2 as messages  # noqa: E402
from serving.api.grpc import messages as message_reader  # noqa: E402
from serving.api.grpc import port_leaving  # noqa: E402
from serving.api.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse  # noqa: E402
from serving.api.grpc.listener import Listener  # noqa: E402

Ask = Callable[..., Awaitable[Any]]
CODES = grpc.StatusCode


def _infer(model: str = "iris", version: str = "", **changes: Any) -> ModelInferRequest:
    request = ModelInferRequest(model_name=model, model_version=version, **changes)
    tensor = request.inputs.add(name="input", datatype="FP64", shape=[1, 4])
    tensor.contents.fp64_contents.extend([5.1, 3.5, 1.4, 0.2])
    return request


def _with_client(app: FastAPI, scenario: Callable[[Ask], Awaitable[None]]) -> None:
    """Run a scenario against a listener; what it asks with takes a method, a request and metadata."""

    async def listened() -> None:
        listener = Listener(app.state)
        address = await listener.start(0)
        async with stopping(listener), grpc.aio.insecure_channel(address) as channel:
            await scenario(_asking(channel))

    @contextlib.asynccontextmanager
    async def stopping(listener: Listener) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await listener.stop(0)

    run(listened())


def _asking(channel: Any) -> Ask:
    async def ask(method: str, request: Any = None, **options: Any) -> Any:
        request = getattr(messages, f"{method}Request")() if request is None else request
        call = channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(messages, f"{method}Response").FromString,
        )
        return await call(request, **options)

    return ask


async def _refusal(asking: Awaitable[Any]) -> tuple[Any, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asking
    error = raised.value
    return error.code(), error.details(), dict(error.trailing_metadata())


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.InvalidInput("row 0: no"), CODES.INVALID_ARGUMENT, "row 0: no"),
        (errors.BodyTooLarge("too many rows"), CODES.RESOURCE_EXHAUSTED, "too many rows"),
        (errors.Overloaded("later", 7), CODES.UNAVAILABLE, "later"),
        (errors.HostLost("died"), CODES.UNAVAILABLE, "died"),
        (errors.DeadlineExceeded("no answer within 30 s"), CODES.DEADLINE_EXCEEDED, "no answer within 30 s"),
        (errors.ModelFailed("it raised"), CODES.INTERNAL, "it raised"),
        (RuntimeError("/etc/secret"), CODES.INTERNAL, "this is a bug in the server"),
    ],
)
def test_every_error_has_its_code_and_names_the_version_that_failed(error: Exception, code: Any, words: str) -> None:
    engine = FakeEngine()
    engine.error = error
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))

    async def scenario(ask: Ask) -> None:
        found, details, metadata = await _refusal(ask("ModelInfer", _infer()))
        assert found is code
        assert words in details
        assert "secret" not in details
        assert (metadata["x-model-name"], metadata["x-model-version"]) == ("iris", "3")
        if isinstance(error, errors.Overloaded):
            assert (metadata["retry-after"], metadata["grpc-retry-pushback-ms"]) == ("7", "7000")

    _with_client(app, scenario)
    assert sum(app.state.services.metrics.traffic("iris", "3").statuses.values()) == 1


def _log_lines(app: FastAPI, scenario: Callable[[Ask], Awaitable[None]]) -> list[tuple[Any, ...]]:
    with capture_logs() as logs:
        _with_client(app, scenario)
    keys = ("method", "path", "status", "client", "log_level")
    return [tuple(line[key] for key in keys) for line in logs if line["event"] == "request"]


def test_calls_are_logged_as_requests_over_http_are() -> None:
    async def scenario(ask: Ask) -> None:
        await ask("ModelInfer", _infer())
        await ask("ServerLive")
        await _refusal(ask("ModelInfer", _infer("other")))
        await _refusal(ask("RepositoryIndex"))

    service = "/inference.GRPCInferenceService"
    refused = [
        ("GRPC", f"{service}/ModelInfer", 404, "127.0.0.1", "info"),
        ("GRPC", f"{service}/RepositoryIndex", 401, "127.0.0.1", "info"),
    ]
    assert _log_lines(make_app(), scenario) == refused
    answered = [("GRPC", f"{service}/{name}", 200, "127.0.0.1", "info") for name in ("ModelInfer", "ServerLive")]
    assert _log_lines(make_app(log={"access_sample": 1.0}), scenario) == [*answered, *refused]


def test_a_call_has_one_id_in_the_log_and_in_its_metadata() -> None:
    seen: list[str | None] = []
    engine = FakeEngine(lambda *_: seen.append(REQUEST_ID.get()) or [0])  # type: ignore[func-returns-value]
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))

    async def scenario(ask: Ask) -> None:
        assert (await ask("ModelInfer", _infer(), metadata=(("x-request-id", "mine"),))).id == "mine"
        _, _, metadata = await _refusal(ask("ModelInfer", _infer("other")))
        assert "-" in metadata["x-request-id"]

    _with_client(app, scenario)
    assert seen == ["mine"]


def test_each_scope_has_its_calls() -> None:
    app = make_app(security={"admin_token": TOKEN, "read_token": "reading", "predict_token": "predicting"})
    scopes = {
        "reading": ["ServerMetadata", "ModelMetadata", "ModelReady"],
        "predicting": ["ModelInfer"],
        TOKEN: ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"],
    }

    async def scenario(ask: Ask) -> None:
        assert (await ask("ServerLive")).live
        assert (await ask("ServerReady")).ready
        for token, methods in scopes.items():
            for method in methods:
                code, details, metadata = await _refusal(ask(method))
                assert (code, metadata["www-authenticate"]) == (CODES.UNAUTHENTICATED, "Bearer"), method
                assert "send the header 'Authorization: Bearer" in details
                other = "reading" if token == "predicting" else "predicting"
                code, _, _ = await _refusal(ask(method, metadata=(("authorization", f"Bearer {other}"),)))
                assert code is CODES.PERMISSION_DENIED, method
                asking = ask(method, metadata=(("authorization", f"Bearer {token}"),))
                (result,) = await asyncio.gather(asking, return_exceptions=True)
                code = result.code() if isinstance(result, grpc.aio.AioRpcError) else CODES.OK
                assert code not in (CODES.UNAUTHENTICATED, CODES.PERMISSION_DENIED), method

    _with_client(app, scenario)


def test_a_model_on_its_way_is_told_from_one_nobody_knows() -> None:
    starting = make_app(make_reference(), make_status(has_started=False))
    ready = make_app(make_reference())

    async def is_starting(ask: Ask) -> None:
        assert (await _refusal(ask("ModelInfer", _infer())))[0] is CODES.UNAVAILABLE
        assert not (await ask("ServerReady")).ready

    async def is_ready(ask: Ask) -> None:
        for model, code in (("iris", CODES.UNAVAILABLE), ("irsi", CODES.NOT_FOUND), ("no\nname", CODES.NOT_FOUND)):
            for method in ("ModelInfer", "ModelMetadata"):
                kind = getattr(messages, f"{method}Request")
                field = "model_name" if method == "ModelInfer" else "name"
                found, details, _ = await _refusal(ask(method, kind(**{field: model})))
                assert found is code
                assert "\n" not in details
        assert not (await ask("ModelReady", messages.ModelReadyRequest(name="iris"))).ready
        assert not (await ask("ModelReady", messages.ModelReadyRequest(name="iris", version="4"))).ready
        for name, version in (("irsi", ""), ("iris", "9")):
            request = messages.ModelReadyRequest(name=name, version=version)
            assert (await _refusal(ask("ModelReady", request)))[0] is CODES.NOT_FOUND

    _with_client(starting, is_starting)
    _with_client(ready, is_ready)


def test_named_columns_of_every_kind_reach_the_model() -> None:
    engine = FakeEngine(echo)
    app = make_app(make_reference(mixed=make_servable("mixed", "1", engine, MIXED)))
    request = ModelInferRequest(model_name="mixed", id="one")
    request.inputs.add(name="town", datatype="BYTES", shape=[2, 1]).contents.bytes_contents.extend([b"Ulm", b"Bonn"])
    request.inputs.add(name="is_new", datatype="BOOL", shape=[2]).contents.bool_contents.extend([True, False])
    request.inputs.add(name="age", datatype="INT32", shape=[2, 1]).contents.int_contents.extend([41, 7])

    async def scenario(ask: Ask) -> None:
        response: ModelInferResponse = await ask("ModelInfer", request)
        assert (response.model_name, response.model_version, response.id) == ("mixed", "1", "one")
        (output,) = response.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("predict", "FP64", [2])
        assert list(output.contents.fp64_contents) == [41.0, 7.0]

    _with_client(app, scenario)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["predict", "predict"], "asked for twice"),
        (["predict"] * 100, "more than 6 outputs"),
        (["transform"], "transform"),
    ],
)
def test_outputs_that_cannot_be_had(outputs: list[str], words: str) -> None:
    request = _infer(outputs=[ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs])

    async def scenario(ask: Ask) -> None:
        code, details, _ = await _refusal(ask("ModelInfer", request))
        assert code is CODES.INVALID_ARGUMENT
        assert words in details

    _with_client(make_app(), scenario)


def test_the_shorter_deadline_is_the_one_that_counts() -> None:
    engine = FakeEngine()
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))

    async def scenario(ask: Ask) -> None:
        await ask("ModelInfer", _infer())
        assert engine.deadline_seconds == app.state.services.settings.server.predict_seconds
        await ask("ModelInfer", _infer(), timeout=9.0)
        assert engine.deadline_seconds is not None
        assert 0 < engine.deadline_seconds < 10.0

    _with_client(app, scenario)


def test_a_client_that_gives_up_gives_its_hold_back() -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Event()
    servable = make_servable("iris", "3", engine)

    async def scenario(ask: Ask) -> None:
        asking = asyncio.ensure_future(ask("ModelInfer", _infer()))
        while not servable.leases:
            await asyncio.sleep(0)
        asking.cancel()
        while servable.leases:
            await asyncio.sleep(0)

    _with_client(make_app(make_reference(iris=servable)), scenario)


def test_operators_calls_are_told_in_the_history_under_their_address() -> None:
    app = make_app()
    app.state.status = app.state.services.operator.status = make_status()
    admin = (("authorization", f"Bearer {TOKEN}"),)

    async def scenario(ask: Ask) -> None:
        request = messages.RepositoryModelLoadRequest(model_name="iris")
        assert (await _refusal(ask("RepositoryModelLoad", request, metadata=admin)))[0] is CODES.NOT_FOUND
        request.parameters["config"].string_param = "{}"
        code, details, _ = await _refusal(ask("RepositoryModelLoad", request, metadata=admin))
        assert code is CODES.INVALID_ARGUMENT
        assert "parameters of a load are not taken" in details
        unload = messages.RepositoryModelUnloadRequest(model_name="iris")
        assert (await _refusal(ask("RepositoryModelUnload", unload, metadata=admin)))[0] is CODES.NOT_FOUND

    _with_client(app, scenario)
    assert app.state.services.operator.calls == [
        (RefreshStore(), "admin@127.0.0.1"),
        (LoadModel("iris"), "admin@127.0.0.1"),
        (UnloadModel("iris"), "admin@127.0.0.1"),
    ]


def _server(app: FastAPI) -> DrainingServer:
    server = DrainingServer(
        uvicorn.Config(PredictionRouter(app), lifespan="off", log_config=None), app, app.state.services.settings
    )
    server.servers = []
    return server


def test_a_port_that_is_taken_is_named_even_by_another_of_its_kind() -> None:
    async def scenario() -> None:
        other = Listener(make_app().state)
        port = int((await other.start(0)).rpartition(":")[2])
        try:
            with pytest.raises(CannotListen, match=rf"server\.grpc_port: cannot listen on 127\.0\.0\.1:{port}"):
                await _server(make_app())._listen_for_grpc(port)
        finally:
            await other.stop(0)

    run(scenario())


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "serving.api.grpc.listener")
    monkeypatch.setitem(sys.modules, "grpc_health.v1", None)
    monkeypatch.delitem(sys.modules, "serving.api.grpc.grpc_health", raising=False)
    with pytest.raises(CannotListen, match="is not installed; install this package with its extra grpc"):
        run(_server(make_app())._listen_for_grpc(0))


def _with_server(app: FastAPI, scenario: Callable[[DrainingServer, Any], Awaitable[None]]) -> None:
    """Run a scenario with a server that listens for gRPC, and a channel to it."""

    async def listened() -> None:
        server = _server(app)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        server._grpc = Listener(app.state)
        address = await server._grpc.start(0)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await scenario(server, channel)
        finally:
            await server._grpc.stop(0)

    run(listened())


def test_a_stop_is_told_to_whoever_watches_and_waits_for_calls_under_way() -> None:
    engine = FakeEngine()
    engine.gate = gate = asyncio.Event()
    servable = make_servable("iris", "3", engine)

    async def scenario(server: DrainingServer, channel: Any) -> None:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        asking = asyncio.ensure_future(_asking(channel)("ModelInfer", _infer()))
        while not servable.leases:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(server.shutdown())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        assert not stopping.done()
        gate.set()
        assert (await asking).model_version == "3"
        await stopping

    _with_server(make_app(make_reference(iris=servable)), scenario)


def test_a_second_signal_cuts_off_what_is_under_way() -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Event()
    servable = make_servable("iris", "3", engine)

    async def scenario(server: DrainingServer, channel: Any) -> None:
        asking = asyncio.ensure_future(_asking(channel)("ModelInfer", _infer()))
        while not servable.leases:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(server.shutdown())
        await asyncio.wait((stopping,), timeout=0.05)
        assert not stopping.done()
        server.force_exit = True
        await stopping
        assert (await _refusal(asking))[0] in (CODES.UNAVAILABLE, CODES.CANCELLED)
        assert not servable.leases

    _with_server(make_app(make_reference(iris=servable)), scenario)


@pytest.mark.parametrize(
    ("token", "code"),
    [(None, CODES.UNAUTHENTICATED), ("guessed", CODES.UNAUTHENTICATED), ("reads", CODES.OK), (TOKEN, CODES.OK)],
)
def test_reflection_needs_the_token_that_reading_needs(token: str | None, code: Any) -> None:
    """It is the documentation, and that needs it over HTTP."""
    reflection_pb2 = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2", reason=NO_EXTRA)
    from grpc_reflection.v1alpha import reflection_pb2_grpc

    async def scenario() -> None:
        app = make_app(security={"admin_token": TOKEN, "read_token": "reads"})
        listener = Listener(app.state)
        address = await listener.start(0)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                metadata = () if token is None else (("authorization", f"Bearer {token}"),)
                call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(metadata=metadata)
                if code is CODES.OK:  # grpc.aio reports a write behind a refusal as INTERNAL
                    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                    await call.done_writing()
                    assert "inference.GRPCInferenceService" in str([answer async for answer in call])
                assert await call.code() == code
        finally:
            await listener.stop(0)

    run(scenario())


def test_messages_count_among_the_bodies_of_all_requests() -> None:
    """Two large ones at once where there is room for one: the second is to come again."""
    engine = FakeEngine()
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)), server={"max_inflight_mb": 0.2})

    async def scenario(ask: Ask) -> None:
        engine.gate = asyncio.Event()
        request = _infer()
        request.inputs[0].name = "x" * 150_000
        first = asyncio.ensure_future(ask("ModelInfer", request))
        while not engine.batches:
            await asyncio.sleep(0.001)
        code, details, metadata = await _refusal(ask("ModelInfer", request))
        assert code is CODES.UNAVAILABLE
        assert "there are for all" in details
        assert metadata["retry-after"] == "1"
        engine.gate.set()
        assert (await first).model_version == "3"

    _with_client(app, scenario)


def _hanging(channel: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    """Begin a call whose message never comes."""

    async def nothing() -> AsyncIterator[ModelInferRequest]:
        await asyncio.Event().wait()
        yield _infer()

    call = channel.stream_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=ModelInferResponse.FromString,
    )
    return call(nothing(), metadata=metadata)


def test_who_may_not_is_told_before_the_message_is_there() -> None:
    app = make_app(security={"admin_token": TOKEN, "predict_token": "predicts", "read_token": "reads"})

    async def scenario() -> None:
        listener = Listener(app.state)
        address = await listener.start(0)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                assert await _hanging(channel).code() is CODES.UNAUTHENTICATED
                by_reader = _hanging(channel, (("authorization", "Bearer reads"),))
                assert await by_reader.code() is CODES.PERMISSION_DENIED
        finally:
            await listener.stop(0)

    run(scenario())


class Timer:
    """One that a test lets expire."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self.seconds, self.action = seconds, action
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Timers:
    """Stands for a loop that measures how long messages take."""

    def __init__(self) -> None:
        self.all: list[Timer] = []

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.all.append(Timer(seconds, action))
        return self.all[-1]

    def let_expire(self, seconds: float) -> None:
        for timer in self.all:
            if timer.seconds == seconds and not timer.is_cancelled:
                timer.action()


def test_messages_that_never_come_take_their_room_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts as the largest there may be: some wait, the others are to come again, and small ones go on."""
    app = make_app(server={"max_inflight_mb": 16, "grpc_max_mb": 4, "body_seconds": 0.6})
    timers = Timers()
    names = {"current_task": asyncio.current_task, "CancelledError": asyncio.CancelledError}
    monkeypatch.setattr(message_reader, "asyncio", SimpleNamespace(**names, get_running_loop=lambda: timers))

    async def scenario() -> None:
        listener = Listener(app.state)
        address = await listener.start(0)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                ask = _asking(channel)
                waiting = [_hanging(channel) for _ in range(10)]
                codes = [asyncio.ensure_future(call.code()) for call in waiting]
                while len(timers.all) < 20:
                    await asyncio.sleep(0.001)
                timers.let_expire(message_reader.MOMENT_SECONDS)
                while sum(one.done() for one in codes) < 7:
                    await asyncio.sleep(0.001)
                assert (await ask("ModelInfer", _infer())).model_version == "3"
                assert [one.result() for one in codes if one.done()] == [CODES.UNAVAILABLE] * 7
                timers.let_expire(0.6)
                rest = [await one for one in codes]
                assert rest.count(CODES.DEADLINE_EXCEEDED) == 3
                assert app.state.services.inflight.used_bytes == 0
        finally:
            await listener.stop(0)

    run(scenario())


def test_one_of_several_answers_its_connections_while_it_leaves_and_a_second_stop_hurries_it() -> None:
    async def scenario() -> None:
        listener = Listener(make_app().state, shares_port=True)
        async with grpc.aio.insecure_channel(await listener.start(0)) as channel:
            ask = _asking(channel)
            await ask("ServerLive")
            stopping = asyncio.ensure_future(listener.stop(30))
            await asyncio.sleep(2 * port_leaving.SETTLE_SECONDS)
            assert (await ask("ModelInfer", _infer())).model_version == "3"
            assert not stopping.done()
            await listener.stop(0)
            await stopping

    run(scenario())


@pytest.mark.parametrize("is_stopping", [True, False])
def test_one_of_several_leaves_its_port_unless_all_of_them_stop(
    is_stopping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stops as well if it cannot."""
    monkeypatch.setattr(port_leaving, "stop_listening", AsyncMock(side_effect=OSError("no /proc here")))
    app = make_app(status=make_status(is_stopping=is_stopping))

    async def scenario() -> None:
        listener = Listener(app.state, shares_port=True)
        await listener.start(0)
        await listener.stop(30)

    with capture_logs() as logs:
        run(scenario())
    assert [line["reason"] for line in logs if line["event"] == "port_not_left"] == ["no /proc here"][is_stopping:]

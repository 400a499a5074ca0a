"""Uploads over HTTP, with a stand-in for what receives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from serving.api.bodies import DROPPED_BYTES, BodyTooSlow
from serving.api.edge import OPERATORS
from serving.api.upload_routes import MIN_BYTES, OFF, _Body
from serving.domain import errors
from serving.domain.report import GateResult, Verdict
from serving.domain.upload import UploadFailed, UploadProblem, UploadRequest, UploadState, UploadStatus
from tests.fakes import ADMIN, NOON, FakeUploads, call, make_app, run
from tests.unit.api.own_time import run_in_own_time

PATH = "/models/iris/versions/4"
FILE = "?file=model.joblib"


def taking(**settings: dict[str, Any]) -> FastAPI:
    return make_app(**{"store": {"uploads": True}, **settings})


def uploads_of(app: FastAPI) -> FakeUploads:
    found = app.state.services.uploads
    assert isinstance(found, FakeUploads)
    return found


def put(app: FastAPI, path: str = PATH + FILE, content: bytes = b"x", **headers: str) -> httpx.Response:
    sent = {**ADMIN, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return call(app, "put", path, content=content, headers=sent)


def test_a_file_is_received_with_its_name() -> None:
    app = taking()
    answer = put(app, PATH + FILE + "&breaking=true&metrics=" + '{"accuracy": 0.9}', b"model")
    assert answer.status_code == 201
    assert answer.headers["location"] == PATH
    asked = UploadRequest("iris", "4", "model.joblib", 5, True, {"accuracy": 0.9})
    assert uploads_of(app).calls == [(asked, "admin@127.0.0.1", b"model")]
    operation = app.openapi()["paths"]["/models/{model}/versions/{version}"]["put"]
    schema = operation["responses"]["201"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": app.openapi()["components"]})


def test_next_asks_for_the_next_number() -> None:
    app = taking()
    put(app, "/models/iris/versions/next" + FILE)
    assert uploads_of(app).calls[0][0].version is None


def test_an_archive_has_no_name() -> None:
    app = taking()
    assert put(app, PATH, content_type="Application/X-Tar; charset=binary").status_code == 201
    assert uploads_of(app).calls[0][0].file is None


@pytest.mark.parametrize(
    ("path", "headers", "status", "detail"),
    [
        (PATH, {}, 422, "name the artefact in the query"),
        (PATH + "?file=", {}, 422, "name the artefact in the query"),
        (PATH + FILE, {"content_type": "application/x-tar"}, 422, "leave 'file' out"),
        (PATH + FILE, {"content_type": "multipart/form-data; boundary=x"}, 415, "curl: -T FILE"),
        (PATH + FILE, {"content_encoding": "gzip"}, 415, "send the body as it is"),
        (PATH + FILE + "&metrics=[1]", {}, 422, "should be a JSON object"),
        (PATH + FILE + "&metrics={", {}, 422, "not JSON"),
        (PATH + FILE + '&metrics={"a": NaN}', {}, 422, "not JSON"),
        (PATH + FILE + '&metrics={"a": "\\ud800"}', {}, 422, "not JSON"),
        (PATH + FILE + '&metrics={"a": ' + "[" * 2000 + "]" * 2000 + "}", {}, 422, "not JSON"),
        (PATH + FILE + '&metrics={"a": ' + "[" * 20 + "]" * 20 + "}", {}, 422, "nested"),
        (PATH + FILE + "&breaking=perhaps", {}, 422, "breaking"),
        ("/models/../versions/1" + FILE, {}, 404, ""),
        ("/models/iris/versions/.1" + FILE, {}, 404, "no version is called that"),
        ("/models/.iris/versions/1" + FILE, {}, 404, "no model is called that"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_body(
    path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    app = taking()
    answer = put(app, path, **headers)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert uploads_of(app).calls == []


def test_uploads_are_off_unless_the_settings_say_otherwise() -> None:
    app = make_app()
    answer = put(app)
    assert (answer.status_code, answer.json()["detail"]) == (403, OFF)
    assert answer.json()["type"].endswith(":uploads-off")
    assert uploads_of(app).calls == []


@pytest.mark.parametrize("app", [make_app(), taking()], ids=["off", "on"])
def test_without_the_admin_token_nothing_is_said_of_the_setting(app: FastAPI) -> None:
    answer = call(app, "put", PATH + FILE, content=b"x")
    assert answer.status_code == 401
    assert "store.uploads" not in answer.text
    assert call(app, "put", PATH + FILE, content=b"x", headers={"Authorization": "Bearer x"}).status_code == 401


def test_it_is_on_the_admin_port_only_where_there_is_one() -> None:
    app = taking(server={"admin_port": 1})
    answer = put(app)
    assert answer.status_code == 404
    assert answer.json()["detail"] == put(app, "/models/iris/pin").json()["detail"]
    assert call(app, "get", "/models/iris/versions/3").status_code == 200

    async def on_the_admin_port() -> int:
        async def marked(scope: Any, receive: Any, send: Any) -> None:
            scope[OPERATORS] = True
            await app(scope, receive, send)

        transport = httpx.ASGITransport(app=marked)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.put(PATH + FILE, content=b"x", headers=ADMIN)).status_code

    assert run(on_the_admin_port()) == 201


def test_a_page_of_another_site_uploads_nothing() -> None:
    app = taking()
    assert put(app, origin="http://evil.example").status_code == 403
    assert uploads_of(app).calls == []


def refused() -> UploadStatus:
    gates = (GateResult(gate="golden", verdict=Verdict.REFUSED, evidence="row 3: expected 1, got 2"),)
    return UploadStatus(
        id="7",
        model="iris",
        version="4",
        file="model.joblib",
        actor="a",
        at=NOON,
        state=UploadState.REFUSED,
        gates=gates,
        gate="golden",
        reason=gates[0].evidence,
    )


def test_a_refusal_has_the_gate_and_every_verdict() -> None:
    app = taking()
    uploads_of(app).error = errors.UploadRefused("refused by golden: row 3: expected 1, got 2", refused())
    answer = put(app)
    document = answer.json()
    assert answer.status_code == 422
    assert document["type"] == "urn:serving:problem:upload-refused"
    assert (document["gate"], document["reason"]) == ("golden", "row 3: expected 1, got 2")
    assert document["upload"] == json.loads(refused().model_dump_json())
    assert document["gates"] == [json.loads(refused().gates[0].model_dump_json())]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.OperationRefused("version '4' exists already"), 409),
        (errors.BodyTooLarge("large"), 413),
        (errors.Malformed("no tar"), 400),
        (errors.StoreFull("full"), 507),
        (errors.Unavailable("two are under way", 5), 503),
        (errors.InvalidInput("no artefact"), 422),
    ],
)
def test_errors_have_their_status_and_cross_processes(error: errors.ServingError, status: int) -> None:
    app = taking()
    failed = UploadFailed.from_error(error)
    assert type(failed.to_error()) is type(error)
    uploads_of(app).error = failed.to_error()
    answer = put(app)
    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))


def test_an_unexpected_error_may_pass() -> None:
    failed = UploadFailed.from_error(errors.StagingFailed("disk"))
    assert failed.problem is UploadProblem.UNAVAILABLE
    assert isinstance(failed.to_error(), errors.Unavailable)


def test_a_body_that_is_too_long_to_drop_closes_the_connection() -> None:
    app = make_app()
    assert put(app, content_length=str(DROPPED_BYTES + 1)).headers["connection"] == "close"
    assert "connection" not in put(app).headers


# --- bodies ----------------------------------------------------------------------------------------------------------


def messages(*parts: tuple[bytes, bool] | None) -> Any:
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part[0], "more_body": part[1]}

    return receive


async def collect(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def test_a_body_ends_with_its_last_part() -> None:
    body = _Body(messages((b"a", True), (b"b", False)), {}, 5.0)
    assert run(collect(body.read_chunks())) == b"ab"
    assert not body.is_endless


def test_a_body_that_is_cut_short_is_no_body() -> None:
    with pytest.raises(ClientDisconnect):
        run(collect(_Body(messages((b"a", True), None), {b"content-length": b"2"}, 5.0).read_chunks()))


def test_a_body_may_be_slow_as_long_as_enough_of_it_arrives() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.06)
        return {"type": "http.request", "body": bytes(MIN_BYTES), "more_body": next(more)}

    more = iter([True, True, True, False])
    assert len(run_in_own_time(collect(_Body(receive, {}, 0.1).read_chunks()))) == 4 * MIN_BYTES


def test_a_disk_that_is_slow_is_not_the_fault_of_the_client() -> None:
    ready = messages(*((b"x", number < 4) for number in range(5)))

    async def receive() -> Any:
        await asyncio.sleep(0.001)  # the connection is read again only now
        return await ready()

    async def write_slowly() -> int:
        count = 0
        async for _ in _Body(receive, {}, 0.1).read_chunks():
            await asyncio.sleep(0.06)
            count += 1
        return count

    assert run_in_own_time(write_slowly()) == 5


def test_a_body_that_trickles_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(BodyTooSlow, match=r"less than 256 KiB of the body arrived within 0\.05 seconds"):
        run(collect(_Body(receive, {}, 0.05).read_chunks()))

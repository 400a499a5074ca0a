"""Which bodies are read at all, and for how long."""

from __future__ import annotations

import asyncio
import gzip

import orjson
import pytest
from starlette.requests import ClientDisconnect

from serving.api.bodies import BodyReader, BodyTooSlow, Message
from serving.domain.errors import BodyTooLarge
from tests.fakes import ADMIN, exchange, make_app, make_servable, part, predict, run
from tests.fakes import make_reference as reference

BODY = orjson.dumps({"input": [5.1, 3.5, 1.4, 0.2]})
KILOBYTE = {"max_body_mb": 1 / 1024}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF8",
        'application/json; charset="utf-8"',
        "application/vnd.acme+json",
        "application/json; profile=x",
    ],
)
def test_json_is_read_under_all_its_names(content_type: str) -> None:
    assert predict(make_app(), BODY, **{"content-type": content_type}).status_code == 200


def test_a_body_without_a_content_type_is_taken_for_json() -> None:
    assert run(exchange(make_app(), part(BODY, is_last=True))).status == 200


def test_what_curl_sends_when_it_is_not_told_is_415_with_what_to_tell_it() -> None:
    response = predict(make_app(), BODY, **{"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code == 415
    assert "-H 'Content-Type: application/json'" in response.json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "text/json+x",
        "application/jsonp",
        "",
        "\xff\x00",
    ],
)
def test_anything_else_is_415_and_says_what_to_send(content_type: str) -> None:
    answer = run(exchange(make_app(), part(BODY, is_last=True), content_type=content_type))
    assert answer.status == 415
    assert "application/json" in answer.document["detail"]
    assert answer.unread == 1


def test_a_compressed_body_is_415_and_is_not_read() -> None:
    bomb = gzip.compress(b"[" * 1_000_000)
    answer = run(exchange(make_app(), part(bomb, is_last=True), content_encoding="gzip"))
    assert (answer.status, answer.unread) == (415, 1)
    assert "'gzip'" in answer.document["detail"]
    assert run(exchange(make_app(), part(BODY, is_last=True), content_encoding="identity")).status == 200


@pytest.mark.parametrize(
    ("length", "closes"), [("1025", False), ("300000000", True), ("99999999999999999999", True), ("9" * 5000, True)]
)
def test_a_body_declared_too_large_is_413_before_anything_is_read(length: str, closes: bool) -> None:
    app = make_app(server=KILOBYTE)
    answer = run(exchange(app, part(b"x" * 1025, is_last=True), content_length=length))
    assert (answer.status, answer.unread) == (413, 1)
    assert "1024 bytes" in answer.document["detail"]
    assert "server.max_body_mb" in answer.document["detail"]
    assert ((b"connection", b"close") in answer.messages[0]["headers"]) is closes


@pytest.mark.parametrize("length", [None, "10", "-1", "many", "²"])
def test_a_body_that_turns_out_too_large_is_413_as_soon_as_it_is(length: str | None) -> None:
    app = make_app(server=KILOBYTE)
    headers = {} if length is None else {"content_length": length}
    answer = run(exchange(app, *[part(b"x" * 400)] * 9, **headers))
    assert (answer.status, answer.unread) == (413, 6)
    assert (b"connection", b"close") in answer.messages[0]["headers"]
    assert run(exchange(app, part(b"x" * 1025, is_last=True))).status == 413


def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = BODY + b" " * (1024 - len(BODY))
    answer = run(exchange(make_app(server=KILOBYTE), part(body[:7]), part(b""), part(body[7:], is_last=True)))
    assert answer.status == 200


@pytest.mark.parametrize("messages", [(), (part(b'{"inst'),)], ids=["at once", "half way"])
def test_nobody_is_answered_when_the_client_has_gone(messages: tuple[Message, ...]) -> None:
    servable = make_servable("iris", "3")
    answer = run(exchange(make_app(reference(iris=servable)), *messages, {"type": "http.disconnect"}))
    assert answer.messages == []
    assert servable.leases == 0


def test_a_body_that_dawdles_is_given_up_and_the_others_are_not() -> None:
    reader = BodyReader(100, seconds=0.05)

    async def read(*messages: Message) -> bytes:
        waiting = list(messages)

        async def receive() -> Message:
            if waiting:
                return waiting.pop(0)
            await asyncio.sleep(3600)
            raise AssertionError

        return await reader.read(receive, {})

    async def scenario() -> None:
        slow = [asyncio.create_task(read()), asyncio.create_task(read(part(b"a"), part(b"b")))]
        for _ in range(10):
            assert await read(part(b"quick", is_last=True)) == b"quick"
            await asyncio.sleep(0.005)
        for task in slow:
            with pytest.raises(BodyTooSlow, match=r"within 0\.05 seconds"):
                await task
        await asyncio.sleep(0.05)  # nothing to look after for a while
        with pytest.raises(BodyTooSlow):
            await read()
        # Somebody else's cancellation is not a slow body, and a reader can be used again on another loop.
        cancelled = asyncio.create_task(read())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    for _ in range(2):
        run(scenario())


def test_a_slow_body_is_408() -> None:
    app = make_app(server={"body_seconds": 0.02})
    for path in ("/models/iris/predict", "/models/iris/pin"):
        answer = run(exchange(app, part(b"{"), path=path, **ADMIN))
        assert (answer.status, answer.document["title"]) == (408, "The body did not arrive in time")
        assert "within 0.02 seconds" in answer.document["detail"]


def test_a_reader_tells_too_large_from_gone() -> None:
    async def scenario() -> None:
        messages = [part(b"x" * 60), part(b"x" * 60)]
        reader = BodyReader(100, "; be brief", seconds=30)

        async def receive() -> Message:
            return messages.pop(0)

        with pytest.raises(BodyTooLarge, match="larger than 100 bytes; be brief"):
            await reader.read(receive, {})
        messages.append({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await reader.read(receive, {})

    run(scenario())

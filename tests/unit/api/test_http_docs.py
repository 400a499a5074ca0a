"""docs/http.md and docs/protocols.md tell the truth: its requests are made, its answers are what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serving.api import problems
from serving.api.problems import KINDS
from serving.domain.errors import ModelFailed
from serving.plane.active_reference import ActiveReference
from tests.fakes import (
    TOKEN,
    FakeEngine,
    call,
    make_app,
    make_model_reference,
    make_model_status,
    make_reference,
    make_refused_status,
    make_rollout_status,
    make_servable,
    make_status,
)

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "http.md").read_text() + (DOCS / "protocols.md").read_text()
EXCHANGE = re.compile(
    r"(?:<!-- ([a-z ]+) -->\n)?```http\n(.*?)```\n\n```http\nHTTP/1\.1 (\d+)[^\n]*\n(.*?)```", re.DOTALL
)
ANYTHING = "..."
SETTINGS: dict[str, Any] = {"uploads": {"store": {"uploads": True}}, "no token": {"security": {}}}
STATUSES = {
    "rollout": make_status(make_model_status().model_copy(update={"rollout": make_rollout_status()})),
    "starting": make_status(make_model_status(active=None), has_started=False),
}


def examples() -> Iterator[Any]:
    for situation, request, status, response in EXCHANGE.findall(TEXT):
        head, _, body = request.partition("\n\n")
        line, *headers = head.strip().splitlines()
        answer_head, _, answer = response.rpartition("\n\n") if "\n\n" in response else ("", "", response)
        method, path = line.split(" ")
        parts = (situation, method, path, fields(headers), body.strip())
        yield pytest.param(*parts, int(status), fields(answer_head.splitlines()), answer, id=f"{line} {status}")


def fields(lines: list[str]) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines if line)


def app_for(situation: str) -> FastAPI:
    if situation == "nothing active":
        return make_app(make_reference(iris=None), make_status(make_model_status(active=None)))
    if situation == "refused":
        return make_app(make_reference(iris=None), make_status(make_refused_status()))
    if situation in STATUSES:
        return make_app(status=STATUSES[situation])
    if situation in SETTINGS:
        return make_app(**SETTINGS[situation])
    engine = FakeEngine()
    servable = make_servable("iris", "3", engine)
    if situation == "failing":
        engine.error = ModelFailed("ValueError: bad luck")
    if situation == "overloaded":
        servable.lease()
        return make_app(make_reference(iris=servable), server={"max_queue": 1})
    labelled = ActiveReference({"iris": make_model_reference(servable, champion=servable, next=None)})
    return make_app(labelled, make_status(make_model_status(champion="3", next="4")))


def matches(expected: Any, found: Any) -> bool:
    """Compare; `...` at the end of a string stands for any rest, an object with it for any object."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if ANYTHING in expected:
            return True
        return expected.keys() == found.keys() and all(matches(expected[key], found[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(matches, expected, found))
    if isinstance(expected, str) and expected.endswith(ANYTHING):
        return isinstance(found, str) and found.startswith(expected.removesuffix(ANYTHING))
    return bool(expected == found)


@pytest.mark.parametrize(
    ("situation", "method", "path", "headers", "body", "status", "answer_headers", "answer"), list(examples())
)
def test_an_example_is_answered_as_it_says(
    situation: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: str,
    status: int,
    answer_headers: dict[str, str],
    answer: str,
) -> None:
    sent = {name.lower(): value.replace("<token>", TOKEN) for name, value in headers.items()}
    response = call(app_for(situation), method, path, content=body.replace("<token>", TOKEN), headers=sent)
    assert response.status_code == status
    expected = json.loads(answer.replace("{...}", '{"...": 1}'))
    assert matches(expected, response.json()), response.json()
    for name, value in answer_headers.items():
        assert matches(value, response.headers[name])


def test_every_status_and_every_type_has_its_place_on_the_page() -> None:
    assert len(EXCHANGE.findall(TEXT)) >= 25
    by_connections = (
        problems.BAD_REQUEST,
        problems.HEAD_TOO_SLOW,
        problems.HEAD_TOO_LARGE,
        problems.TOO_MANY_CONNECTIONS,
    )
    for kind in (*KINDS.values(), *by_connections, problems.ADMIN_REFUSED, problems.ACCESS_REFUSED):
        assert f"`{kind.slug}`" in TEXT
        assert re.search(rf"^\| {kind.status} \|.*`{kind.slug}`", TEXT, re.MULTILINE)


def test_every_route_and_every_metric_is_on_the_page() -> None:
    app = make_app()
    for path in app.openapi()["paths"]:
        assert path in TEXT
    names = set(re.findall(r"^# TYPE (serving_\w+)", call(app, "GET", "/metrics").text, re.MULTILINE))
    for name in names:
        is_process = name.startswith("serving_process_")
        assert is_process or name.endswith("_created") or f"`{name}`" in TEXT

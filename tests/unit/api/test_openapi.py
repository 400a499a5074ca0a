"""The OpenAPI document: complete, valid, and true."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from serving.api.predict_docs import ANSWERS, REQUESTS
from serving.plane.active_reference import ActiveReference
from tests.fakes import ADMIN, TOKEN, call, make_app, make_model_reference, make_servable

DOCUMENT = make_app().openapi()
OPERATIONS = [
    (method, path, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]
# protocols with errors in a shape of their own; their routes are listed in their own tests
OTHERS = ("/v1/", "/v2", "/ping", "/version", "/invocations", "/models/{model}/invocations")
PROBES = ("/health/ready", "/health", "/ping")
# an operator's calls that wait for a verdict, or refuse: see test_repository; and what a classifier does not answer
ELSEWHERE = ("/load", "/unload", ":regress")

UPLOAD = ("put", "/models/{model}/versions/{version}")  # answered in test_upload_routes.py


def schema(node: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that can be used by itself."""
    return {**node, "components": DOCUMENT["components"]}


def responses_of(operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = operation["responses"]
    return found


def test_every_route_is_documented() -> None:
    expected = {
        "post /models/{model}/predict",
        "post /models/{model}/versions/{version}/predict",
        "post /models/{model}/labels/{label}/predict",
        "post /predict",
        "get /models",
        "get /models/active",
        "get /models/{model}",
        "get /models/{model}/active",
        "get /models/{model}/versions/{version}",
        "put /models/{model}/versions/{version}",
        "get /models/{model}/history",
        "get /models/{model}/rollout",
        "post /models/{model}/rollout",
        "post /models/{model}/pin",
        "delete /models/{model}/pin",
        "put /models/{model}/labels/{label}",
        "delete /models/{model}/labels/{label}",
        "post /models/{model}/rollback",
        "post /models/{model}/versions/{version}/release",
        "post /refresh",
        "post /accept-state-loss",
        "get /",
        "get /health",
        "get /health/live",
        "get /health/ready",
        "get /metrics",
        "get /workers",
        "get /events",
        "get /history",
        "get /ui/session",
        "post /ui/session",
        "delete /ui/session",
    }
    assert {name for name in NAMES if not name.partition(" ")[2].startswith(OTHERS)} == expected


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    references: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            references.extend([node["$ref"]] if "$ref" in node else [])
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(DOCUMENT)
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references) <= known
    assert known - set(references) == set()
    for one in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(one)


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_every_operation_says_what_it_takes_and_gives(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    parameters = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
    assert parameters == set(re.findall(r"{(\w+)}", path))
    assert ("201" if (method, path) == UPLOAD else "200") in responses_of(operation)
    is_admin = (
        (method in ("put", "delete") and path != "/ui/session")
        or path.endswith(("/pin", "/rollback", "/release", "/refresh", "/accept-state-loss"))
        or "/repository/" in path
        or (method, path) == ("post", "/models/{model}/rollout")
    )
    assert (operation.get("security") == [{"adminToken": []}]) is is_admin
    assert {"401", "403"} <= set(responses_of(operation)) or not is_admin
    for status, response in responses_of(operation).items():
        content = response.get("content", {})
        if status not in ("200", "201") and path not in PROBES and not path.startswith(OTHERS):
            assert list(content) == ["application/problem+json"]
        for media in content.values():
            examples = [one["value"] for one in media.get("examples", {}).values()]
            for example in [*examples, *([media["example"]] if "example" in media else [])]:
                jsonschema.validate(example, schema(media["schema"]))
                assert status == "200" or {"error", "error_code"} & example.keys() or example["status"] == int(status)


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_every_documented_call_is_answered_as_documented(method: str, path: str, operation: dict[str, Any]) -> None:
    if path.endswith(ELSEWHERE) or (method, path) == UPLOAD:
        return
    servable = make_servable("iris", "2")
    app = make_app(ActiveReference({"iris": make_model_reference(servable, stable=servable)}))
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    bodies = {name: one["value"] for name, one in content.get("examples", {}).items()}
    if "example" in content:
        bodies["example"] = {key: TOKEN if value == "<token>" else value for key, value in content["example"].items()}
    for name, body in (bodies or {"none": None}).items():
        if body is not None:
            jsonschema.validate(body, schema(content["schema"]))
        headers = {**ADMIN, **({"accept": "application/json"} if path == "/events" else {})}
        response = call(app, method, path.format(model="iris", version="2", label="stable"), json=body, headers=headers)
        assert response.status_code == 200
        media = responses_of(operation)["200"]["content"][response.headers["content-type"].split(";")[0]]
        if "json" in response.headers["content-type"]:
            jsonschema.validate(response.json(), schema(media["schema"]))
        if name == "probabilities":
            assert response.json()["predictions"][0] == pytest.approx(ANSWERS[name]["predictions"][0], abs=0.02)
        elif name in ANSWERS:
            assert response.json() == ANSWERS[name]


def test_bodies_that_are_refused_do_not_fit_the_schema_either() -> None:
    body = schema({"$ref": "#/components/schemas/PredictBody"})
    for wrong in ({}, {"instances": []}, {"instances": [[1]], "input": [1]}, {"x": 1}, {"input": [[1]]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, body)
    assert set(REQUESTS) == set(ANSWERS)


def test_the_document_and_its_page_are_served() -> None:
    app = make_app()
    assert call(app, "GET", "/openapi.json").json() == app.openapi()
    assert "swagger" in call(app, "GET", "/docs").text

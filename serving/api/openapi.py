"""What ``GET /openapi.json`` says beyond what FastAPI finds out by itself: bodies read by hand, and problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.api import problems
from serving.api.bodies import BodyTooSlow
from serving.api.problems import INTERNAL, KINDS, MEDIA_TYPE, TYPE_PREFIX, Kind, Problem
from serving.domain import errors

REF = "#/components/schemas/{model}"
DESCRIPTION = """Ask a model, see which version answers, and steer which one does.

Every answer carries `X-Request-Id`, predictions also `X-Model-Name` and `X-Model-Version`. Every error is an
`application/problem+json` document whose `detail` says what to do."""

_ADMIN = problems.ADMIN_REFUSED
_EXAMPLES: dict[int, tuple[str, Kind, str]] = {
    400: (
        "The body is not JSON, or is nested deeper than 16 levels.",
        KINDS[errors.NotJson],
        "the body is not JSON: trailing comma is not allowed at line 1, column 21",
    ),
    401: (
        "No token was sent, or another one.",
        _ADMIN,
        "send the header 'Authorization: Bearer <admin token>'",
    ),
    403: ("No admin token is configured: operator calls are closed.", _ADMIN, "operator calls are closed: ..."),
    404: (
        "No such model or version, or it is not loaded.",
        KINDS[errors.UnknownModel],
        "no model named 'irsi'; GET /models lists the ones there are",
    ),
    408: (
        "The body did not arrive in time.",
        KINDS[BodyTooSlow],
        "the body did not arrive within 30 seconds",
    ),
    409: (
        "Not possible in the present state.",
        KINDS[errors.OperationRefused],
        "version '3' is not active any more, '4' is: nothing was rolled back",
    ),
    413: (
        "More bytes or rows than the server takes.",
        KINDS[errors.BodyTooLarge],
        "120000 rows in one request, at most 100000: send them in several requests",
    ),
    415: (
        "Not `application/json`, or compressed.",
        KINDS[errors.UnsupportedMedia],
        "content type 'text/csv' is not read here; send application/json in UTF-8",
    ),
    422: (
        "JSON, but not what is taken here; names the row and the feature.",
        KINDS[errors.InvalidInput],
        "row 0, feature 'x1': NaN is not a finite number",
    ),
    500: ("The model raised, or the server has a bug.", INTERNAL, problems.BUG),
    503: (
        "Nothing can answer right now; `Retry-After` says when to try again.",
        KINDS[errors.NothingActive],
        "'iris' has no active version yet; GET /models/iris says why",
    ),
    504: (
        "The model did not answer in time.",
        KINDS[errors.DeadlineExceeded],
        "the model did not answer within 30 seconds",
    ),
}


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of problems a route may answer with, as FastAPI's `responses`."""
    return {status: _problem_response(status) for status in statuses}


def body_of(kind: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """Return the documentation of a JSON body that the route reads by itself, as FastAPI's `openapi_extra`."""
    schema = {"$ref": REF.format(model=kind.__name__)}
    example = {name: field.examples[0] for name, field in kind.model_fields.items() if field.examples}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": is_required, "content": content}}


def install(app: FastAPI, *components: type[BaseModel]) -> None:
    """Make ``app.openapi()`` complete: add the schemas of `components`, leave out what FastAPI only assumes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, components)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI's documentation tells


def _document(app: FastAPI, components: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description or DESCRIPTION, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    kinds: tuple[type[BaseModel], ...] = (Problem, *components)
    for kind in kinds:
        schema = kind.model_json_schema(ref_template=REF)
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    # FastAPI assumes a 422 of its own for every route with a parameter; ours are documented where they can happen.
    for assumed in ("HTTPValidationError", "ValidationError"):
        schemas.pop(assumed, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            assumed_content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in assumed_content:
                del operation["responses"]["422"]
    return document


def _problem_response(status: int) -> dict[str, Any]:
    description, kind, detail = _EXAMPLES[status]
    example = {
        "type": TYPE_PREFIX + kind.slug,
        "title": kind.title,
        "status": status,
        "detail": detail,
        "request_id": "8f3a5c0d91e2-1f",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}, "example": example}}
    response: dict[str, Any] = {"description": description, "content": content}
    if status == 503:
        seconds = {"schema": {"type": "integer"}, "description": "seconds to wait"}
        response["headers"] = {"Retry-After": seconds}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response

"""Adds to ``GET /openapi.json`` what FastAPI does not know: bodies that the routes read themselves, and problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.api import problems
from serving.api.bodies import BodyTooSlow
from serving.api.paths import is_for_operators, is_of_page, is_read, prediction_of
from serving.api.problems import INTERNAL, KINDS, MEDIA_TYPE, TYPE_PREFIX, ErrorKind, Problem
from serving.api.sessions import TooManySignIns
from serving.domain import errors

TEXT: dict[str, Any] = {"schema": {"type": "string"}}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
REF = "#/components/schemas/{model}"
DESCRIPTION = """Ask a model, see which version answers, and steer which one does.

Every answer carries `X-Request-Id`, predictions also `X-Model-Name` and `X-Model-Version`. Every error is an
`application/problem+json` document whose `detail` says what to do. Tokens for predicting and reading are needed where
the server has been given some; operators' calls always need one, and it opens the others too."""

_ADMIN = problems.ADMIN_REFUSED
_ANYWHERE = (400, 408, 421, 431, 503)  # a connection may answer these by itself
_TOKENS = {
    "predictToken": "One of `security.predict_token`; not needed where there is none.",
    "readToken": "One of `security.read_token`; not needed where there is none.",
    "adminToken": "One of `security.admin_token`, which opens everything.",
}
_EXAMPLES: dict[int, tuple[str, ErrorKind, str]] = {
    400: (
        "The body is not JSON or is nested too deep, or what was sent is not HTTP.",
        KINDS[errors.NotJson],
        "the body is not JSON: trailing comma is not allowed at line 1, column 21",
    ),
    401: (
        "A token is needed here, and none was sent, or one that is not known.",
        _ADMIN,
        "send the header 'Authorization: Bearer <admin token>'",
    ),
    403: (
        "The token is for another scope; operator calls are closed; or a browser sent it for another site's page.",
        _ADMIN,
        "operator calls are closed: ...",
    ),
    404: (
        "No such model or version, or it is not loaded.",
        KINDS[errors.UnknownModel],
        str(errors.UnknownModel.for_name("irsi")),
    ),
    406: (
        "No answer has a form that is accepted.",
        KINDS[errors.NotAcceptable],
        "no answer here is of the kind 'image/png'; accept one of application/json, text/csv, application/x-npy",
    ),
    408: (
        "The head or the body of the request did not arrive in time.",
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
        "A content type that is not read here, or compressed.",
        KINDS[errors.UnsupportedMedia],
        "content type 'text/html' is not read here; send application/json in UTF-8",
    ),
    421: (
        "The request is addressed to a name that this server does not answer to.",
        KINDS[errors.Misdirected],
        "this server does not answer to 'models.example.com'; if it should, add \"models.example.com\" to server.hosts",
    ),
    422: (
        "JSON, but with wrong rows or fields; names the row and the feature.",
        KINDS[errors.InvalidInput],
        "row 0, feature 'x1': NaN is not a finite number",
    ),
    429: (
        "Too many sign-ins have failed; `Retry-After` says when to try again.",
        KINDS[TooManySignIns],
        "too many sign-ins have failed; try again in 1 s",
    ),
    431: (
        "The request line and the headers are larger than the server takes.",
        problems.HEAD_TOO_LARGE,
        "the request line and the headers are larger than 32 kB",
    ),
    500: ("The model raised an exception, or the server has a bug.", INTERNAL, problems.BUG),
    507: (
        "The store has no room for what is uploaded.",
        KINDS[errors.StoreFull],
        "the store has 1048576 bytes left, and the body has 20971520; make room there",
    ),
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


def errors_of(shape: Callable[[str, int], dict[str, Any]], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors in a protocol's own shape, which `shape` makes from a detail and a status.

    The connection may answer some of them before there is a request; these are problems.
    """
    documented: dict[int | str, dict[str, Any]] = {}
    for status, response in problems_of(*statuses).items():
        example = shape(response["content"][MEDIA_TYPE]["example"]["detail"], int(status))
        properties = {key: {"type": "string"} for key in example}
        schema = {"type": "object", "required": list(example), "properties": properties}
        content = {"application/json": {"schema": schema, "example": example}, **response["content"]}
        documented[status] = {**response, "content": content}
    return documented


def answered(
    content: dict[str, Any], description: str = "What the named version computed."
) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a prediction's answer, by media type, as FastAPI's `responses`."""
    headers = dict.fromkeys(("X-Model-Name", "X-Model-Version", "X-Request-Id"), TEXT)
    return {200: {"description": description, "headers": headers, "content": content}}


def parameters_of(path: str) -> list[dict[str, Any]]:
    """Return the documentation of the parameters in a prediction's path, for FastAPI's `openapi_extra`."""
    return [
        {"name": name, "in": "path", "required": True, **TEXT, "example": example}
        for name, example in (("model", "iris"), ("version", "2"), ("label", "stable"))
        if f"{{{name}}}" in path
    ]


def body_of(kind: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """Return the documentation of a JSON body that the route itself reads, for FastAPI's `openapi_extra`."""
    schema = {"$ref": REF.format(model=kind.__name__)}
    example = {name: field.examples[0] for name, field in kind.model_fields.items() if field.examples}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": is_required, "content": content}}


def install(app: FastAPI, *components: type[BaseModel]) -> None:
    """Make ``app.openapi()`` complete: add the schemas of `components`, remove what FastAPI only assumes."""

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
    document["components"]["securitySchemes"] = {
        name: {"type": "http", "scheme": "bearer", "description": description} for name, description in _TOKENS.items()
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method.upper(), path)
    return document


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add which tokens a call needs, and the answers that any call may get."""
    responses = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    security = _security_of(method, path)
    if security:
        operation["security"] = security
    for status in _ANYWHERE + ((401, 403) if security else ()):
        responses.setdefault(str(status), _problem_response(status))
    operation["responses"] = dict(sorted(responses.items()))


def _security_of(method: str, path: str) -> list[dict[str, list[str]]]:
    """Return the tokens; one of them is needed. An empty entry means that the call may need no token."""
    if prediction_of(path) is not None:
        return [{}, {"predictToken": []}, {"adminToken": []}]
    if is_read(method, path):
        return [{}, {"readToken": []}, {"adminToken": []}]
    return [{"adminToken": []}] if is_for_operators(method, path) and not is_of_page(path) else []


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
    if status in (429, 503):
        seconds = {"schema": {"type": "integer"}, "description": "seconds to wait"}
        response["headers"] = {"Retry-After": seconds}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response

"""The one place where errors become HTTP: RFC 9457 ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import client
from types import MappingProxyType
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.api.access import AccessRefused
from serving.api.bodies import BodyTooSlow
from serving.api.dialect import Refusal
from serving.api.services import services_of
from serving.api.sessions import TooManySignIns
from serving.domain import errors
from serving.domain.report import GateResult
from serving.domain.upload import UploadStatus
from serving.domain.version import why_not_a_name
from serving.settings import TokenScope
from serving.telemetry.logging import REQUEST_ID

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:serving:problem:"
MAX_DETAIL = 1000

log = structlog.get_logger("serving.api")


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What one sort of error is over HTTP. `slug` ends the problem's ``type`` and never changes."""

    status: int
    slug: str
    title: str


NOTHING_HERE = "there is nothing under this path"
BUG = "this is a bug in the server; its log has the reason under this request id"
INTERNAL = ErrorKind(500, "internal", "The server failed")
ADMIN_REFUSED = ErrorKind(401, "admin-refused", "Not allowed without the admin token")
ACCESS_REFUSED = ErrorKind(401, "access-refused", "Not allowed without a token for it")
INVALID_REQUEST = ErrorKind(422, "invalid-request", "The request does not fit this route")
# The connection itself answers these, before there is a request: see `serving.http1`.
BAD_REQUEST = ErrorKind(400, "bad-request", "What was sent is not HTTP")
HEAD_TOO_SLOW = ErrorKind(408, "head-too-slow", "The request did not arrive in time")
HEAD_TOO_LARGE = ErrorKind(431, "head-too-large", "The request line and headers are too large")
TOO_MANY_CONNECTIONS = ErrorKind(503, "too-many-connections", "Too many connections are open")
KINDS: dict[type[Exception], ErrorKind] = {
    errors.Misdirected: ErrorKind(421, "misdirected", "Not addressed to this server"),
    errors.CrossSite: ErrorKind(403, "cross-site", "Sent for a page of another site"),
    errors.NotJson: ErrorKind(400, "not-json", "The body is not JSON"),
    errors.Malformed: ErrorKind(400, "malformed", "The body is not what its content type says"),
    errors.UnknownModel: ErrorKind(404, "unknown-model", "No such model"),
    errors.UnknownVersion: ErrorKind(404, "unknown-version", "No such version"),
    errors.NotAcceptable: ErrorKind(406, "not-acceptable", "No answer has the form that is asked for"),
    BodyTooSlow: ErrorKind(408, "body-too-slow", "The body did not arrive in time"),
    errors.UploadsOff: ErrorKind(403, "uploads-off", "Versions are not uploaded to this server"),
    errors.OperationRefused: ErrorKind(409, "operation-refused", "Not possible in the present state"),
    errors.BodyTooLarge: ErrorKind(413, "body-too-large", "The request is too large"),
    errors.UnsupportedMedia: ErrorKind(415, "unsupported-media", "Content type or encoding not read here"),
    errors.InvalidInput: ErrorKind(422, "invalid-input", "Not rows this model takes"),
    errors.UploadRefused: ErrorKind(422, "upload-refused", "A gate refused the version; nothing was published"),
    TooManySignIns: ErrorKind(429, "too-many-sign-ins", "Too many sign-ins have failed"),
    errors.ModelFailed: ErrorKind(500, "model-failed", "The model failed"),
    errors.NothingActive: ErrorKind(503, "nothing-active", "No active version"),
    errors.Overloaded: ErrorKind(503, "overloaded", "Too many requests are waiting"),
    errors.Unavailable: ErrorKind(503, "unavailable", "Nothing can answer right now"),
    errors.StateUnavailable: ErrorKind(503, "state-unavailable", "The decision cannot be made durable"),
    errors.StoreUnavailable: ErrorKind(503, "store-unavailable", "The store cannot be listed"),
    errors.DeadlineExceeded: ErrorKind(504, "deadline-exceeded", "The model did not answer in time"),
    errors.StoreFull: ErrorKind(507, "store-full", "The store has no room for it"),
}


class Problem(BaseModel):
    """An error as every route reports it (RFC 9457). `type` is stable; `detail` says what to do about it."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(examples=[TYPE_PREFIX + "invalid-input"])
    title: str = Field(examples=["Not rows this model takes"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["row 0, feature 'x1': expected a number, got the string \"a\""])
    model: str | None = None
    version: str | None = None
    request_id: str | None = None
    upload: UploadStatus | None = Field(None, description="of an upload that was refused: all that is known of it")
    gate: str | None = Field(None, description="of an upload that was refused: the gate")
    reason: str | None = Field(None, description="of an upload that was refused: what the gate has seen")
    gates: tuple[GateResult, ...] | None = Field(None, description="of an upload that was refused: every verdict")


def install(app: FastAPI, answer: Callable[[Request, Refusal], Response] | None = None) -> None:
    """Let `app` answer every error: this package's, the framework's and unexpected ones.

    `answer` gives each error its shape; without it every error is a problem.
    """
    shape = answer or (lambda _, refusal: problem_of(refusal))

    async def on_error(request: Request, error: Exception) -> Response:
        refusal = refusal_of(error, *names_of(request.path_params))
        if isinstance(error, HTTPException):
            refusal = refusal._replace(detail=_explained(request, error))
        return shape(request, refusal)

    for kind in (errors.ServingError, AccessRefused, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, on_error)


def problem_of(refusal: Refusal) -> Response:
    """Return the problem for a refusal."""
    kind = kind_of(refusal.error)
    more: dict[str, Any] = {}
    if isinstance(refusal.error, errors.UploadRefused):
        upload = refusal.error.status.model_dump(mode="json")
        more = {**{name: upload[name] for name in ("gate", "reason", "gates")}, "upload": upload}
    return problem(kind, refusal.detail, dict(refusal.headers), refusal.model, refusal.version, more)


def refusal_of(error: Exception, model: str | None = None, version: str | None = None) -> Refusal:
    """Return the refusal for `error`, for every protocol; an unexpected error is logged with its traceback."""
    headers: dict[str, str] = {}
    kind = kind_of(error)
    if kind is INTERNAL:
        log.error("request_failed", model=model, version=version, exc_info=error)
        return Refusal(error, kind.status, BUG, headers)
    if isinstance(error, AccessRefused):
        if error.challenge is not None:
            headers["WWW-Authenticate"] = error.challenge
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return Refusal(error, kind.status, f"{where}: {first['msg']}", headers, model, version)
    elif isinstance(error, HTTPException):
        return Refusal(error, kind.status, str(error.detail), error.headers or {}, model, version)
    elif kind.status in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_after_seconds", 1))
    if getattr(error, "closes_connection", False):
        headers["Connection"] = "close"
    return Refusal(error, kind.status, str(error), headers, model, version)


def kind_of(error: Exception) -> ErrorKind:
    """Return the kind of the nearest class of `error` that has one; any other error is the server's own failure."""
    if isinstance(error, AccessRefused):
        return replace(ADMIN_REFUSED if error.scope is TokenScope.ADMIN else ACCESS_REFUSED, status=error.status)
    if isinstance(error, RequestValidationError):
        return INVALID_REQUEST
    if isinstance(error, HTTPException):
        phrase = client.responses.get(error.status_code, "Error")
        return ErrorKind(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    return next((KINDS[base] for base in type(error).__mro__ if base in KINDS), INTERNAL)


def problem(
    kind: ErrorKind,
    detail: str,
    headers: dict[str, str],
    model: str | None = None,
    version: str | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    """Build the response: one line of detail, as valid JSON in valid UTF-8 for any text; `more` members are valid."""
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + kind.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": line_of(detail),
    }
    if model is not None:
        members["model"] = _clean(model)
    if version is not None:
        members["version"] = _clean(version)
    members |= {"request_id": REQUEST_ID.get(), **more}
    return Response(orjson.dumps(members), kind.status, headers, MEDIA_TYPE)


def line_of(detail: str) -> str:
    """Return the first line of a detail, at most `MAX_DETAIL` characters of it, as valid UTF-8."""
    return _clean(detail.partition("\n")[0][:MAX_DETAIL])


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def names_of(params: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the model and version in a URL, if they can be names."""
    found = (params.get("model"), params.get("version"))
    model, version = (name if name is not None and why_not_a_name(name) is None else None for name in found)
    return model, version


def _explained(request: Request, error: HTTPException) -> str:
    """Return the framework's text; for an unknown path or method, also what there is instead."""
    detail = str(error.detail)
    if error.status_code == 404 and detail == client.responses[404]:
        has_docs = services_of(request.app).settings.server.docs
        return NOTHING_HERE + ("; GET /docs lists what there is" if has_docs else "")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return f"{request.method[:20]} is not possible here" + (f"; allowed: {allowed}" if allowed else "")
    return detail

"""The answer to a refused request: an error code of MLflow and a message."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from serving.api.dialect import Refusal
from serving.api.problems import line_of

BAD_REQUEST = "BAD_REQUEST"

# The names are those of MLflow's ErrorCode (databricks.proto); every other error is the caller's fault.
CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_BAD_INPUT = 422  # in the native interface; 400 is what a scoring server's clients look for


def refuse(refusal: Refusal) -> Response:
    """Answer with an error code and one line that says what to do."""
    status = 400 if refusal.status == _BAD_INPUT else refusal.status
    body = orjson.dumps({"error_code": CODES.get(status, BAD_REQUEST), "message": line_of(refusal.detail)})
    return Response(body, status, dict(refusal.headers), "application/json")

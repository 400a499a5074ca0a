"""Errors in the protocol's shape, ``{"error": "..."}``: for predictions, and for every other route under ``/v2``."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from serving.api import openapi, problems
from serving.api.dialect import Refusal

INVALID = 422  # statuses of the native interface for which clients of this protocol expect 400


def error_of(refusal: Refusal) -> Response:
    """Return the answer to a refused request: one line, also if a text in it has several."""
    status = 400 if refusal.status == INVALID else refusal.status
    body = orjson.dumps({"error": problems.line_of(refusal.detail)})
    return Response(body, status, dict(refusal.headers), "application/json")


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors a route may answer with, as FastAPI's `responses`."""
    return openapi.errors_of(lambda detail, _: {"error": detail}, *statuses)

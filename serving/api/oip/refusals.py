"""Errors in the protocol's shape, ``{"error": "..."}``: for predictions, and for every other route under ``/v2``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.api import openapi, problems
from serving.api.access import AccessRefused
from serving.api.dialect import Refusal
from serving.domain.errors import ServingError

INVALID = 422  # in the native interface; clients of this protocol know 400 only


def error_of(refusal: Refusal) -> Response:
    """Return the answer to what is refused: one line, whatever a text in it holds."""
    status = 400 if refusal.status == INVALID else refusal.status
    return error(status, refusal.detail, dict(refusal.headers))


def error(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error of the protocol with this status."""
    return Response(orjson.dumps({"error": problems.line_of(detail)}), status, headers, "application/json")


class OpenInferenceRoute(APIRoute):
    """A route whose errors have the protocol's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what FastAPI makes of the route."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as wrong:
                first = wrong.errors()[0]
                return error(400, f"{' '.join(str(part) for part in first['loc'])}: {first['msg']}")
            except HTTPException as refused:
                return error(refused.status_code, str(refused.detail), dict(refused.headers or {}))
            except (ServingError, AccessRefused) as refused:
                return error_of(problems.refusal_of(refused, *problems.names_of(request.path_params)))

        return answer


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors a route may answer with, as FastAPI's `responses`."""
    return openapi.errors_of(lambda detail, _: {"error": detail}, *statuses)

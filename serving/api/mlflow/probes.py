"""The probes of a scoring server: ``/ping`` (SageMaker's too), ``/health`` and ``/version``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from serving.api.openapi import TEXT
from serving.domain.status import Status

NEWLINE = "\n"
_TEXT: dict[str, Any] = {"text/plain": TEXT}
_PROBE: dict[int | str, dict[str, Any]] = {
    200: {"description": "At least one model is active.", "content": _TEXT},
    503: {"description": "Starting, nothing active, or stopping.", "content": _TEXT},
}

router = APIRouter(tags=["mlflow"])


@router.get("/ping", summary="Can requests be answered? (SageMaker, MLflow)", responses=_PROBE, response_class=Response)
async def ping(request: Request) -> Response:
    """Answer a line feed, 200 while ``/health/ready`` does and 503 while it does not."""
    return _readiness(request)


@router.get("/health", summary="Can requests be answered? (MLflow)", responses=_PROBE, response_class=Response)
async def health(request: Request) -> Response:
    """Answer the same as ``/ping``."""
    return _readiness(request)


@router.get(
    "/version",
    summary="Version of the server (MLflow)",
    response_class=Response,
    responses={200: {"description": "The version of this server.", "content": _TEXT}},
)
async def version(request: Request) -> Response:
    """Answer with the version of this server; MLflow answers with its own."""
    return PlainTextResponse(request.app.version)


def _readiness(request: Request) -> Response:
    status: Status = request.app.state.status
    return PlainTextResponse(NEWLINE, 200 if status.is_ready else 503)

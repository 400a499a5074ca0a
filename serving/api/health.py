"""Probes and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from serving.api.schemas import Live, Readiness
from serving.api.services import services_of
from serving.domain.status import Status

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Does the process run?")
async def live() -> Live:
    """Answer 200 for as long as the process can answer at all, also while it stops."""
    return Live()


@router.get(
    "/health/ready",
    summary="Can requests be answered?",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Starting, nothing active, or stopping."}},
)
async def ready(request: Request) -> Response:
    """Answer 200 while a model is active, from the end of the first pass over the store until a stop is announced.

    Candidates, good or bad, never change it, and neither do other workers that do not serve: the reason names those.
    """
    status: Status = request.app.state.status
    reason = why_not_ready(status)
    active = sum(model.active is not None for model in status.models.values())
    readiness = Readiness(ready=reason is None, reason=reason or status.worker_problem, active=active)
    return JSONResponse(readiness.model_dump(), 200 if readiness.ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus exposition", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request) -> Response:
    """Return all metrics, as OpenMetrics where the caller asks for it."""
    body, content_type = await services_of(request.app).counts.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


def why_not_ready(status: Status) -> str | None:
    """Return why the server is not ready, None if it is."""
    if status.is_ready:
        return None
    if status.is_stopping:
        return "stopping: requests in flight are finished, new ones go elsewhere"
    if not status.has_started:
        return "starting: the first pass over the store has not ended"
    if not status.store.is_available:
        return f"no model is active, and the store cannot be listed: {status.store.reason or 'unknown'}"
    return "no model is active; GET /models says why"

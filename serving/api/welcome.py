"""What the server is and where to go next: ``GET /``, for a person who knows only its address."""

from __future__ import annotations

from fastapi import APIRouter, Request

from serving.api.edge import OPERATORS
from serving.api.paths import PAGE_FILES
from serving.api.schemas import Welcome
from serving.api.services import services_of

router = APIRouter(tags=["health"])


@router.get("/", summary="What is this, and where to go?")
async def show_welcome(request: Request) -> Welcome:
    """Name the service and its first paths. What this port does not have is null: `docs`, `openapi`, `ui`."""
    root = request.scope.get("root_path", "")
    server = services_of(request.app).settings.server
    is_here = server.admin_port is None or OPERATORS in request.scope
    has_docs = server.docs and is_here
    return Welcome(
        version=request.app.version,
        predict=f"POST {root}/models/{{model}}/predict",
        models=f"{root}/models",
        active=f"{root}/models/active",
        ready=f"{root}/health/ready",
        docs=f"{root}/docs" if has_docs else None,
        openapi=f"{root}/openapi.json" if has_docs else None,
        ui=root + PAGE_FILES if server.ui != "off" and is_here else None,
    )

"""Routes of predictions: they go straight to an ASGI application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from serving.api.endpoint import Endpoint


class PredictRoute(APIRoute):
    """A route whose endpoint is an ASGI application."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, _documented, **options)
        self.app = endpoint


def add_prediction(app: FastAPI, endpoint: Endpoint, path: str, name: str, **documentation: Any) -> None:
    """Add a route for predictions; `documentation` is what FastAPI's ``add_api_route`` takes."""
    app.router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        route_class_override=PredictRoute,
        response_model=None,
        name=name,
        operation_id=name,
        **documentation,
    )


async def _documented(request: Request) -> Response:  # noqa: ARG001  (FastAPI reads the signature)
    """Stand for the endpoint where FastAPI looks at its parameters."""
    raise AssertionError("requests go straight to the endpoint")

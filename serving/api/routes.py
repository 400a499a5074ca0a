"""The routes of predictions: they lead directly to the endpoint of their protocol, which is one of the services."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.services import services_of


class PredictRoute(APIRoute):
    """A route that is answered by an ASGI application, past FastAPI's handling of parameters and bodies."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, _documented, **options)
        self.app = endpoint


def add_prediction(app: FastAPI, protocol: str, path: str, name: str, **documentation: Any) -> None:
    """Add a route for predictions of one protocol; `documentation` is what FastAPI's ``add_api_route`` takes."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await services_of(scope["app"]).endpoints[protocol].answer(scope, receive, send)

    app.router.add_api_route(
        path,
        answer,
        methods=["POST"],
        route_class_override=PredictRoute,
        response_model=None,
        name=name,
        operation_id=name,
        **documentation,
    )


async def _documented(request: Request) -> Response:  # noqa: ARG001  (FastAPI reads the signature)
    """Take the place of the endpoint when FastAPI inspects its parameters."""
    raise AssertionError("requests go straight to the endpoint")

"""Routes as the protocols need them: those of predictions go straight to an ASGI application, others refuse each in
its own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from serving.api import problems
from serving.api.access import AccessRefused
from serving.api.dialect import Refusal
from serving.api.endpoint import Endpoint
from serving.domain.errors import ServingError


class PredictRoute(APIRoute):
    """A route whose endpoint is an ASGI application."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, _documented, **options)
        self.app = endpoint


def refusing(refuse: Callable[[Refusal], Response]) -> type[APIRoute]:
    """Return the class of routes whose errors are answered by `refuse`: those of a protocol with a shape of its own."""

    class RefusingRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except (ServingError, AccessRefused) as error:
                    return refuse(problems.refusal_of(error, *problems.names_of(request.path_params)))

            return answer

    return RefusingRoute


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

"""The service over HTTP. One file for each protocol; errors become problems in one place."""

from __future__ import annotations

from fastapi import FastAPI

from serving.api import access, admin, health, models, openapi, predict, predict_docs, problems, schemas
from serving.api.edge import Edge, Front
from serving.api.endpoint import Endpoint
from serving.api.paths import NATIVE
from serving.api.shortcut import RequestIds, Shortcut

__all__ = ["install"]


def install(app: FastAPI) -> None:
    """Add every route, the error handlers and the middleware to `app`, before it takes its first request.

    From the first request on, ``app.state`` holds `settings`, `metrics`, `active`, `status` and `operator`.
    `access`, `shortcut`, `front` and `admin_front` are there from now on, for a server that can use them.
    """
    app.state.access = access.Access()
    endpoints = {NATIVE: Endpoint(app.state.access, predict.Native())}
    predict.add_routes(app, endpoints[NATIVE])
    for router in (models.router, admin.router, health.router):
        app.include_router(router)
    problems.install(app)
    openapi.install(app, *predict_docs.COMPONENTS, schemas.Pin, schemas.Rollback)
    ids = RequestIds()
    app.state.shortcut = Shortcut(app.state, endpoints, ids)
    app.state.front = Front(app, endpoints, ids)
    app.state.admin_front = Front(app, endpoints, ids, is_for_operators=True)
    app.add_middleware(Edge, endpoints=endpoints, ids=ids)

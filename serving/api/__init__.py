"""The service over HTTP: one file or package for each protocol, and one place where errors get the shape of theirs."""

from __future__ import annotations

from fastapi import FastAPI, Request

from serving.api import (
    access,
    admin,
    documentation,
    health,
    mlflow,
    models,
    openapi,
    predict,
    predict_docs,
    problems,
    schemas,
    tensorflow,
    welcome,
)
from serving.api.dialect import Dialect
from serving.api.edge import Edge, PredictionRouter
from serving.api.endpoint import Endpoint
from serving.api.inflight import Inflight
from serving.api.oip import infer_docs, metadata, repository, rest
from serving.api.oip import schemas as oip_schemas
from serving.api.paths import MLFLOW, NATIVE, OPEN_INFERENCE, TENSORFLOW, path_of, protocol_of
from serving.api.shortcut import RequestIds, Shortcut

__all__ = ["install"]


def install(app: FastAPI) -> None:
    """Add every route, the error handlers and the middleware to `app`, before it takes its first request.

    From the first request on, ``app.state`` holds `settings`, `metrics`, `active`, `status` and `operator`.
    `access`, `inflight`, `shortcut`, `front` and `admin_front` are there from now on, for a server that can use them.
    """
    app.state.access = access.Access()
    app.state.inflight = Inflight()
    dialects: dict[str, Dialect] = {
        NATIVE: predict.Native(),
        OPEN_INFERENCE: rest.OpenInference(),
        MLFLOW: mlflow.Scoring(),
        **{TENSORFLOW[verb]: kind() for verb, kind in tensorflow.VERBS.items()},
    }
    endpoints = {name: Endpoint(app.state.access, dialect, app.state.inflight) for name, dialect in dialects.items()}
    predict.add_routes(app, endpoints[NATIVE])
    infer_docs.add_routes(app, endpoints[OPEN_INFERENCE])
    mlflow.add_routes(app, endpoints[MLFLOW])
    tensorflow.add_routes(app, {verb: endpoints[TENSORFLOW[verb]] for verb in tensorflow.VERBS})
    for router in (welcome.router, models.router, admin.router, health.router, metadata.router, repository.router):
        app.include_router(router)
    for router in (mlflow.router, tensorflow.router):
        app.include_router(router)
    problems.install(app, lambda request, refusal: dialects[_protocol_of(request)].refuse(refusal))
    bodies = (*infer_docs.COMPONENTS, oip_schemas.IndexRequest, oip_schemas.LoadRequest, schemas.Pin, schemas.Rollback)
    openapi.install(app, *predict_docs.COMPONENTS, *bodies, *mlflow.COMPONENTS, *tensorflow.COMPONENTS)
    documentation.add_routes(app)
    app.router.redirect_slashes = False  # `Edge` takes a slash at the end away: a redirect would lose bodies
    ids = RequestIds()
    app.state.shortcut = Shortcut(app.state, endpoints, ids)
    app.state.front = PredictionRouter(app, endpoints, ids)
    app.state.admin_front = PredictionRouter(app, endpoints, ids, is_for_operators=True)
    app.add_middleware(Edge, endpoints=endpoints, ids=ids)


def _protocol_of(request: Request) -> str:
    return protocol_of(path_of(request.scope["path"], request.scope.get("root_path", "")))

"""The service over HTTP: one file or package for each protocol, and one place where errors get their shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from serving.api import (
    admin,
    documentation,
    health,
    mlflow,
    models,
    openapi,
    page_files,
    page_session,
    predict,
    predict_docs,
    problems,
    schemas,
    tensorflow,
    upload_routes,
    welcome,
)
from serving.api.access import Access
from serving.api.counts import Counts, OwnCounts
from serving.api.dialect import Dialect, Refusal
from serving.api.edge import Edge
from serving.api.endpoint import Endpoint
from serving.api.events import event_routes
from serving.api.events.event_feed import EventFeed
from serving.api.inflight import Inflight
from serving.api.oip import infer_docs, oip_metadata, oip_repository, oip_schemas, rest
from serving.api.paths import MLFLOW, NATIVE, OPEN_INFERENCE, TENSORFLOW, path_of, protocol_of
from serving.api.predictor import Predictor
from serving.api.request_log import RequestIds, RequestLog
from serving.api.services import AppState, Background, Services, services_of
from serving.api.sessions import Sessions, SignInLimit
from serving.api.shortcut import Shortcut
from serving.api.traced_requests import TracedPredictor, TracedRequestLog, TracedShortcut
from serving.domain.decision import Operator
from serving.domain.upload import Uploads
from serving.plane.active_reference import find_in
from serving.recording.recorder import make_recorder
from serving.settings import ServerSettings, Settings
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import Tracer

__all__ = ["install", "make_services"]


def install(app: FastAPI) -> None:
    """Add every route, the error handlers and the middleware to `app`, before it takes its first request.

    At that time ``app.state`` is an `AppState`: its services are those of `make_services`.
    """
    for prediction_routes in (predict, infer_docs, mlflow, tensorflow):
        prediction_routes.add_routes(app)
    of_models = (welcome, models, event_routes, admin, upload_routes, page_session, health)
    for routes in (*of_models, oip_metadata, oip_repository, mlflow, tensorflow):
        app.include_router(routes.router)
    problems.install(app, _write_refusal)
    own = (schemas.Pin, schemas.LabelledVersion, schemas.Rollback, schemas.Steer, schemas.SignIn, schemas.EventList)
    bodies = (*infer_docs.COMPONENTS, oip_schemas.IndexRequest, oip_schemas.LoadRequest, *own)
    openapi.install(app, *predict_docs.COMPONENTS, *bodies, *mlflow.COMPONENTS, *tensorflow.COMPONENTS)
    documentation.add_routes(app)
    page_files.add_routes(app)
    app.router.redirect_slashes = False  # `Edge` takes a slash at the end away: a redirect would lose bodies
    app.add_middleware(Edge)


def make_services(
    state: AppState,
    settings: Settings,
    metrics: Metrics,
    operator: Operator,
    background: Background,
    uploads: Uploads,
    access: Access | None = None,
    counts: Counts | None = None,
    tracer: Tracer | None = None,
) -> Services:
    """Return the complete services of requests. `state` is ``app.state``, in which the caller puts them.

    `counts` is given where others count, too. Without `access` the tokens are read now; if one cannot be read,
    everything that may need a token is closed. Without a `tracer` requests are not traced. Blocks. Raises SettingsError
    if predictions cannot be recorded as asked.
    """
    access = access if access is not None else Access.read_or_close(settings.security)
    sessions = Sessions(access, settings.server.ui)
    counts = counts if counts is not None else OwnCounts(state, metrics)
    inflight = Inflight(settings.server.max_inflight_mb)
    sample = settings.log.access_sample
    requests = RequestLog(sample) if tracer is None else TracedRequestLog(sample, tracer)
    recorder = make_recorder(settings, metrics, lambda model, version: find_in(state.active, model, version).signature)
    usual = (state, settings.server, access, inflight, metrics, recorder)
    predictor = Predictor(*usual) if tracer is None else TracedPredictor(*usual, tracer=tracer)
    dialects = _make_dialects(settings.server, requests.ids)
    endpoints = {name: Endpoint(dialect, settings.server, predictor, sessions) for name, dialect in dialects.items()}
    quick = (dialects, settings.server, predictor, requests, metrics, recorder)
    return Services(
        settings=settings,
        metrics=metrics,
        operator=operator,
        background=background,
        access=access,
        sessions=sessions,
        failed_sign_ins=SignInLimit(),
        counts=counts,
        events=EventFeed(state, settings.server, operator, counts),
        inflight=inflight,
        requests=requests,
        predictor=predictor,
        endpoints=endpoints,
        shortcut=Shortcut(*quick) if tracer is None else TracedShortcut(*quick, tracer=tracer),
        uploads=uploads,
        operator_bodies=admin.make_body_reader(settings.server),
        recorder=recorder,
    )


def _make_dialects(settings: ServerSettings, ids: RequestIds) -> dict[str, Dialect]:
    max_rows, max_depth = settings.max_rows, settings.max_json_depth
    return {
        NATIVE: predict.Native(max_rows, max_depth),
        OPEN_INFERENCE: rest.OpenInference(ids, max_depth),
        MLFLOW: mlflow.Scoring(max_rows, max_depth),
        **{TENSORFLOW[verb]: make(max_depth) for verb, make in tensorflow.VERBS.items()},
    }


def _write_refusal(request: Request, refusal: Refusal) -> Response:
    """Return a refusal in the shape that clients of the request's path read."""
    protocol = protocol_of(path_of(request.scope["path"], request.scope.get("root_path", "")))
    return services_of(request.app).endpoints[protocol].write_refusal(refusal)

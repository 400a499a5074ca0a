"""The composition root: an application, its lifespan, and a server to run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from serving import __version__, api
from serving.domain.status import Status
from serving.plane.registry import ActiveReference
from serving.service import Service
from serving.settings import Settings, load_settings
from serving.telemetry.metrics import Metrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def lifespan(settings: Settings | None = None) -> Lifespan:
    """Return a lifespan that serves a store behind any FastAPI application.

    ``FastAPI(lifespan=serving.lifespan(settings))`` starts the watcher, the reconciler and the zygote, and puts into
    ``app.state``: `active` (the active reference), `status` (what the outside may know), `operator`, `settings`,
    `metrics` and `service`. Without settings they are loaded as the command line does. Handlers get a leased model
    with :func:`serving.model`.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        state.settings = settings if settings is not None else load_settings()
        state.active = ActiveReference()
        state.status = Status()
        state.metrics = Metrics(__version__)
        service = Service(state, state.settings, state.metrics)
        state.service, state.operator = service, service.operator
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    return run


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the whole service as an application: the lifespan above and the HTTP interface of ``docs/http.md``."""
    app = FastAPI(title="serving", version=__version__, lifespan=lifespan(settings))
    api.install(app)
    return app

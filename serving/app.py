"""The composition root: an application, its lifespan, and a server to run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from serving import __version__, api
from serving.api.access import Access
from serving.api.services import QuickState
from serving.domain.plan import Fact
from serving.domain.status import Status
from serving.plane.fair_turns import make_turns
from serving.plane.plane import Plane
from serving.recording.recorder import keep_recording
from serving.service import Service
from serving.settings import Settings, load_settings
from serving.store.upload_receiver import UploadReceiver
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import make_tracer

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def lifespan(settings: Settings | None = None, *, access: Access | None = None) -> Lifespan:
    """Return a lifespan that serves a store behind any FastAPI application.

    ``FastAPI(lifespan=serving.lifespan(settings))`` starts the watcher, the reconciler and the zygote, and puts into
    ``app.state``: `active` (the active reference), `status` (what the outside may know) and `services` (everything
    that stays as it is). Without settings they are loaded as the command line does; without `access` the tokens are
    read at the start. Handlers get a leased model with :func:`serving.model`.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        found = settings if settings is not None else load_settings()
        state.status = Status()
        metrics = Metrics(__version__)
        tracer = make_tracer(found.traces, metrics.count_traces)
        loop, turns = asyncio.get_running_loop(), make_turns()

        def make_plane(tell: Callable[[Fact], None]) -> Plane:
            return Plane(state, loop, turns, tell, replay=found.replay)

        service = Service(state, found, metrics, make_plane, tracer=tracer)
        uploads = UploadReceiver(service.upload_control)
        asked = (state, found, metrics, service.operator, service, uploads, access)
        state.services = api.make_services(*asked, tracer=tracer)
        service.start()
        try:
            async with keep_recording(state.services.recorder):
                yield
        finally:
            await asyncio.to_thread(service.stop)
            await asyncio.to_thread(turns.executor.shutdown)

    return run


make_lifespan = lifespan


def create_app(
    settings: Settings | None = None, *, access: Access | None = None, lifespan: Lifespan | None = None
) -> FastAPI:
    """Return the whole service as an application: the lifespan above and the HTTP interface of ``docs/http.md``."""
    run = lifespan if lifespan is not None else make_lifespan(settings, access=access)
    app = FastAPI(title="serving", version=__version__, lifespan=run)
    app.state = QuickState()
    api.install(app)
    return app

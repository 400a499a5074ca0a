"""Models inside a user's own FastAPI application: a lifespan, and a dependency that gives a handler a leased model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection

from serving import app as one_process
from serving.api.access import Access
from serving.api.predictor import Predictor
from serving.api.problems import kind_of
from serving.api.services import AppState
from serving.domain.errors import ServingError, Unavailable
from serving.domain.signature import Method, Signature
from serving.plane import active_reference
from serving.plane.servable import Servable
from serving.settings import Settings, load_settings


def lifespan(settings: Settings | None = None, *, access: Access | None = None) -> one_process.Lifespan:
    """Return a lifespan that serves a store behind any FastAPI application.

    ``FastAPI(lifespan=serving.lifespan(settings))`` puts into ``app.state``: `active` (the active reference), `status`
    (what the outside may know) and `services` (everything that stays as it is). With `server.workers` of 1 it starts
    the watcher, the reconciler and the zygote in this process, which is the only one of its `state.path`. Otherwise
    any number of processes of the application share those, in a process of their own that the first one starts.

    Without settings they are loaded as the command line does; without `access` the tokens are read at the start.
    Handlers get a leased model with :func:`serving.model`.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        found = settings if settings is not None else load_settings()
        if found.server.workers == 1:
            chosen = one_process.lifespan(found, access=access)
        else:
            from serving.worker.attached_control import make_shared_lifespan  # noqa: PLC0415  (one process needs none)

            chosen = make_shared_lifespan(found, access)
        async with chosen(app):
            yield

    return run


def create_app(settings: Settings | None = None, *, access: Access | None = None) -> FastAPI:
    """Return the whole service as an application: the lifespan above and the HTTP interface of ``docs/http.md``."""
    return one_process.create_app(settings, access=access, lifespan=lifespan(settings, access=access))


class Model:
    """One model for the length of one request: the version does not change under it, whatever is swapped meanwhile."""

    def __init__(self, predictor: Predictor, servable: Servable) -> None:
        self._predictor = predictor
        self._servable = servable

    @property
    def name(self) -> str:
        """The model's name."""
        return self._servable.id.model

    @property
    def version(self) -> str:
        """The version that answers."""
        return self._servable.id.version

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return self._servable.signature

    async def predict(self, rows: list[Any], method: Method | None = None) -> list[Any]:
        """Answer `rows` (arrays in feature order, or objects by feature name), one entry per row.

        `method` defaults to the model's own default. Raises HTTPException with the status and detail that the native
        interface would answer, so a handler need not catch anything.
        """
        try:
            answer = await self._predictor.answer_held(self._servable, rows, method)
        except ServingError as error:
            raise _http(error) from error
        return answer.prediction.list_rows()


def model(name: str) -> Callable[[HTTPConnection], AsyncIterator[Model]]:
    """Return a dependency that leases the active version of `name` until the response has been made.

    ``model: Annotated[serving.Model, Depends(serving.model("iris"))]``; answers 404 or 503 when there is none.
    Override it in tests with ``app.dependency_overrides``: keep the returned function, it is the key.
    """

    async def leased(connection: HTTPConnection) -> AsyncIterator[Model]:
        state: AppState = connection.app.state
        try:
            lease = active_reference.lease(state, name)
        except ServingError as error:
            raise _http(error) from error
        with lease as servable:
            yield Model(state.services.predictor, servable)

    return leased


def _http(error: ServingError) -> HTTPException:
    headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, Unavailable) else None
    return HTTPException(kind_of(error).status, str(error), headers)

"""Models inside a user's own FastAPI application: a dependency that gives a handler a leased model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from serving.api.predictor import Predictor
from serving.api.problems import kind_of
from serving.api.services import AppState
from serving.domain.errors import ServingError, Unavailable
from serving.domain.signature import Method, Signature
from serving.plane import active_reference
from serving.plane.servable import Servable


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

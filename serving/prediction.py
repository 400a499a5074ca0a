"""The one use case: rows in, predictions out, computed by exactly one version. Knows no HTTP.

    with hold(state, limits, "iris") as servable:
        answer = await execute(servable, request, limits)

The two steps are apart because a caller may hold its lease for longer than one call, and because whoever answers must
be able to name the version that failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.domain.batch import Batch, Column, Prediction
from serving.domain.errors import BodyTooLarge, InvalidInput, NothingActive, Overloaded, UnknownModel
from serving.domain.rows import rows_to_batch
from serving.domain.signature import Method, Signature
from serving.domain.tables import Table, table_to_batch
from serving.registry import ActiveReference, HoldsActive, Role, find
from serving.servable.servable import Lease, Servable
from serving.settings import ServerSettings, Settings

# Converting 2,000 rows of 30 numbers takes about 2 ms: more would be felt by the requests that wait behind it.
INLINE_ROWS = 2_000
INLINE_CELLS = 60_000
PIECE_ROWS = 1_000
YIELD_SECONDS = 1e-5
NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for. `max_queue` counts the requests that hold one servable."""

    max_rows: int = 100_000
    max_queue: int = 256
    deadline_seconds: float = 30.0
    default_model: str | None = None

    @classmethod
    def of(cls, settings: ServerSettings) -> Limits:
        """Take the limits from the server's settings."""
        return cls(settings.max_rows, settings.max_queue, settings.predict_seconds, settings.default_model)


class Piece(NamedTuple):
    """A run of rows out of many. `may_contain_bools` is False only when no row of it can hold a bool."""

    rows: list[Any]
    may_contain_bools: bool = True


class ManyRows(Protocol):
    """Rows that come in pieces, so that they need not all exist as Python values at once. Iterated in a worker thread.

    Iterating may raise RequestRefused when a piece turns out not to be rows.
    """

    def __len__(self) -> int:
        """How many rows there are in all pieces together."""
        ...

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces in order."""
        ...


class PredictRequest(NamedTuple):
    """Rows as they came out of JSON (lists or objects) or as a table, not yet checked against any signature.

    `method` None means the model's default one; `also` are further ones to answer the same rows with. `is_single` says
    the caller sent one row and expects one answer.
    A named tuple: one is made per request, and a frozen dataclass costs three times as much.
    """

    rows: list[Any] | ManyRows | Table
    method: str | None = None
    is_single: bool = False
    may_contain_bools: bool = True
    also: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What was computed, and by which version. `also` has what further methods gave for the same rows, in order."""

    model: str
    version: str
    method: Method
    rows: int
    prediction: Prediction
    is_single: bool
    also: tuple[tuple[Method, Prediction], ...] = ()

    @property
    def outputs(self) -> tuple[tuple[Method, Prediction], ...]:
        """Every method that was asked for with what it gave, in the order they were asked for."""
        return ((self.method, self.prediction), *self.also)


class HoldsSettings(Protocol):
    """``app.state``, as far as `predict_with` cares."""

    settings: Settings


@dataclass(slots=True)
class _Seen:
    """The active reference as it was read, so that choosing a model and leasing it see the same one."""

    active: ActiveReference


def hold(state: HoldsActive, limits: Limits, model: str | None = None, version: str | Role | None = None) -> Lease:
    """Take a lease on what answers for `model` (None: the default model). Event loop thread only; waits for nothing.

    Reads the active reference once. Raises UnknownModel, UnknownVersion, NothingActive, or Overloaded when
    `limits.max_queue` requests hold the servable already. The caller releases the lease.
    """
    held = look(state, limits, model, version).lease()
    if held.servable.leases > limits.max_queue:
        held.release()
        name = held.servable.id.model
        raise Overloaded(f"{limits.max_queue} requests are waiting for '{name}' already; try again later")
    return held


def look(state: HoldsActive, limits: Limits, model: str | None = None, version: str | Role | None = None) -> Servable:
    """Return what `hold` would hold, without a hold on it: good until the event loop turns. Raises what `hold` raises,
    except Overloaded. Event loop thread only.
    """
    if model is not None:
        return find(state, model, version)
    seen = _Seen(state.active)
    return find(seen, limits.default_model or _only_model(seen.active), version)


def execute_now(servable: Servable, request: PredictRequest, limits: Limits) -> Answer | None:
    """Do what `execute` does where nothing has to be waited for; None where something has.

    Event loop thread only; takes no hold, because nothing else happens there until it returns. Raises what `execute`
    raises.
    """
    rows = request.rows
    if isinstance(rows, Table):
        if rows.rows * rows.width > INLINE_CELLS:
            return None
        method = _method(servable, request, limits)
        batch = table_to_batch(servable.signature, rows)
    elif isinstance(rows, list) and len(rows) <= INLINE_ROWS:
        method, batch = _batch(servable, request, rows, limits)
    else:
        return None
    prediction = servable.engine.answer_now(method, batch)
    if prediction is None:
        return None
    answer = _answer(servable, method, batch, prediction, request)
    return _with_more_now(servable, batch, answer, request.also) if request.also else answer


async def execute(servable: Servable, request: PredictRequest, limits: Limits) -> Answer:
    """Check the rows against the signature and compute them; the caller holds a lease on `servable` throughout.

    Raises InvalidInput, BodyTooLarge (rows), and what `Engine.predict` raises. Many rows are converted off the loop.
    """
    rows = request.rows
    if isinstance(rows, list) and len(rows) <= INLINE_ROWS:
        method, batch = _batch(servable, request, rows, limits)
    elif isinstance(rows, Table):
        method = _method(servable, request, limits)
        if rows.rows * rows.width <= INLINE_CELLS:
            batch = table_to_batch(servable.signature, rows)
        else:
            batch = await asyncio.to_thread(table_to_batch, servable.signature, rows)
    else:
        method = _method(servable, request, limits)
        pieces = _pieces(rows, request.may_contain_bools) if isinstance(rows, list) else rows
        batch = await asyncio.to_thread(_convert, servable.signature, pieces)
    if request.also:
        return await _with_more(servable, method, batch, request, limits.deadline_seconds)
    prediction = await servable.engine.predict(method, batch, limits.deadline_seconds)
    return _answer(servable, method, batch, prediction, request)


def _with_more_now(servable: Servable, batch: Batch, answer: Answer, names: tuple[str, ...]) -> Answer | None:
    also = []
    for name in names:
        method = _known_method(servable.signature, name)
        prediction = servable.engine.answer_now(method, batch)
        if prediction is None:
            return None
        also.append((method, prediction))
    return answer._replace(also=tuple(also))


async def _with_more(
    servable: Servable, method: Method, batch: Batch, request: PredictRequest, seconds: float
) -> Answer:
    """Answer one batch with several methods one after another, all of them within `seconds`."""
    methods = [method, *(_known_method(servable.signature, name) for name in request.also)]
    ends_at = time.monotonic() + seconds
    given = []
    for each in methods:
        left = ends_at - time.monotonic()
        given.append((each, await servable.engine.predict(each, batch, max(left, 0.0))))
    (_, first), *also = given
    return _answer(servable, method, batch, first, request)._replace(also=tuple(also))


def _batch(servable: Servable, request: PredictRequest, rows: list[Any], limits: Limits) -> tuple[Method, Batch]:
    method = _method(servable, request, limits)
    return method, rows_to_batch(servable.signature, rows, may_contain_bools=request.may_contain_bools)


def _method(servable: Servable, request: PredictRequest, limits: Limits) -> Method:
    count = len(request.rows)
    signature = servable.signature
    method = signature.default_method if request.method is None else _known_method(signature, request.method)
    if count > limits.max_rows:
        raise BodyTooLarge(f"{count} rows in one request, at most {limits.max_rows}: send them in several requests")
    return method


def _answer(
    servable: Servable, method: Method, batch: Batch, prediction: Prediction, request: PredictRequest
) -> Answer:
    version_id = servable.id
    return Answer(version_id.model, version_id.version, method, batch.rows, prediction, request.is_single)


async def predict_with(state: HoldsSettings, servable: Servable, rows: list[Any], method: str | None = None) -> Answer:
    """Answer rows with a servable the caller holds, within the limits of the settings; raises what `execute` raises."""
    return await execute(servable, PredictRequest(rows, method), Limits.of(state.settings.server))


def _only_model(active: ActiveReference) -> str:
    names = sorted(active.models)
    if len(names) == 1:
        return names[0]
    if not names:
        raise NothingActive("no model is active yet; GET /models says what the store holds")
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    raise UnknownModel(
        f"there are {len(names)} models ({shown}) and no default: "
        "ask POST /models/{name}/predict, or set server.default_model"
    )


def _known_method(signature: Signature, name: str) -> Method:
    if name not in signature.methods:
        shown = name if len(name) <= 50 else name[:47] + "..."
        raise InvalidInput(f"method {shown!r} is not one this model offers: {', '.join(signature.methods)}")
    return name


def _pieces(rows: list[Any], may_contain_bools: bool) -> Iterator[Piece]:
    for start in range(0, len(rows), PIECE_ROWS):
        yield Piece(rows[start : start + PIECE_ROWS], may_contain_bools)


def _convert(signature: Signature, pieces: Iterable[Piece]) -> Batch:
    """Convert in a worker thread, piece by piece: one long call would keep the interpreter lock from the event loop.

    So would many short ones: a thread that lets go of the lock and takes it again at once (as numpy does) wins against
    one that waits for it, which never asks for its turn. Measured over 13 MiB: 90 ms without the sleep, 5 with it.
    """
    batches: list[Batch] = []
    first: Any = None
    done = 0
    for piece in pieces:
        rows = piece.rows
        if not batches:
            first = rows[0] if rows else None
        elif type(rows[0]) is not type(first):
            rows_to_batch(signature, [first, *rows])
        try:
            batches.append(rows_to_batch(signature, rows, may_contain_bools=piece.may_contain_bools))
        except InvalidInput:
            # Messages count rows from the start of what is given: put as many good ones in front as came before.
            return rows_to_batch(signature, [first] * done + rows)
        done += len(rows)
        time.sleep(YIELD_SECONDS)
    if len(batches) > 1:
        return _joined(batches, done)
    return batches[0] if batches else rows_to_batch(signature, [])


def _joined(batches: list[Batch], rows: int) -> Batch:
    matrices = [batch.matrix for batch in batches if batch.matrix is not None]
    if len(matrices) == len(batches):
        return Batch(rows, matrix=np.concatenate(matrices))
    columns = zip(*(batch.columns for batch in batches if batch.columns is not None), strict=True)
    return Batch(rows, columns=tuple(_joined_column(parts) for parts in columns))


def _joined_column(parts: tuple[Column, ...]) -> Column:
    arrays: list[NDArray[Any]] = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    # Bools are an array in a piece without missing values and a list in one with: then the whole column is a list.
    return [value for part in parts for value in (part.tolist() if isinstance(part, np.ndarray) else part)]

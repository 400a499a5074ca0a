"""The steps of one prediction: rows in, an answer out, computed by exactly one version. Knows no protocol.

    with hold(state, limits, "iris") as servable:
        answer = await execute(servable, request, limits)

There are two steps because a caller may hold its lease for longer than one call, and because the error answer must name
the version that failed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from serving.domain.errors import BodyTooLarge, InvalidInput, NothingActive, Overloaded, UnknownModel
from serving.domain.signature import Method, Signature
from serving.domain.text import shorten
from serving.plane.active_reference import ActiveReference, Asked, HoldsActive, find_in, read
from serving.plane.servable import Lease, Servable
from serving.plane.served_split import ServedSplit
from serving.rows.batch import Batch, Prediction
from serving.rows.conversion import ManyRows, are_few, convert_rows
from serving.rows.tables import Table
from serving.settings import ServerSettings

NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may ask for. `max_queue` counts the requests that hold one servable."""

    max_rows: int = 100_000
    max_queue: int = 256
    deadline_seconds: float = 30.0
    default_model: str | None = None

    @classmethod
    def of(cls, settings: ServerSettings) -> RequestLimits:
        """Take the limits from the server's settings."""
        return cls(settings.max_rows, settings.max_queue, settings.predict_seconds, settings.default_model)


class PredictRequest(NamedTuple):
    """Rows as they came out of JSON (lists or objects) or as a table, not yet checked against any signature.

    `method` None means the model's default one; `also` are further ones to answer the same rows with. `is_single` says
    the caller sent one row and expects one answer.
    A named tuple: one is made per request, and a frozen dataclass costs three times as much.
    """

    rows: list[Any] | ManyRows | Table
    method: str | None = None
    is_single: bool = False
    also: tuple[str, ...] = ()


class Prepared(NamedTuple):
    """A request as the model takes it: methods that it offers, and rows that have been checked."""

    method: Method
    batch: Batch
    is_single: bool
    also: tuple[Method, ...]


class Answer(NamedTuple):
    """What was computed, and by which version. `also` has what further methods gave for the same rows, in order.

    `batch` has the rows that were answered.
    """

    model: str
    version: str
    method: Method
    rows: int
    prediction: Prediction
    is_single: bool
    also: tuple[tuple[Method, Prediction], ...] = ()
    batch: Batch | None = None

    @property
    def outputs(self) -> tuple[tuple[Method, Prediction], ...]:
        """Every method that was asked for with what it gave, in the order they were asked for."""
        return ((self.method, self.prediction), *self.also)


def hold(state: HoldsActive, limits: RequestLimits, model: str | None = None, version: Asked = None) -> Lease:
    """Take a lease on what answers for `model` (None: the default model). Event loop thread only; waits for nothing.

    Reads the active reference once. Raises UnknownModel, UnknownVersion, NothingActive, or Overloaded when
    `limits.max_queue` requests hold the servable already. The caller releases the lease.
    """
    return take_lease(look(state, limits, model, version), limits)


def take_lease(servable: Servable, limits: RequestLimits, own: int = 0) -> Lease:
    """Take a lease on a servable that has just been looked up. Event loop thread only. Raises Overloaded as `hold`.

    `own` is how many leases on it the same request holds already.
    """
    held = servable.lease()
    if servable.leases - own > limits.max_queue:
        held.release()
        name = servable.id.model
        raise Overloaded(f"{limits.max_queue} requests are waiting for '{name}' already; try again later")
    return held


def look(state: HoldsActive, limits: RequestLimits, model: str | None = None, version: Asked = None) -> Servable:
    """Return the servable that `hold` would hold, without a lease: it is valid until the event loop turns.

    Raises what `hold` raises, except Overloaded. Event loop thread only.
    """
    return look_for_any(state, limits, model, version)[0]


def look_for_any(
    state: HoldsActive, limits: RequestLimits, model: str | None, version: Asked
) -> tuple[Servable, ServedSplit | None]:
    """Return the active servable, or the asked version, and how requests are shared, if this is one of those.

    Both are valid until the event loop turns, and of one reference, which is read once. Raises what `look` raises.
    """
    reference = read(state)
    name = model if model is not None else limits.default_model or _only_model(reference)
    servable = find_in(reference, name, version)
    return servable, reference.models[name].split if version is None else None


def prepare(servable: Servable, request: PredictRequest, limits: RequestLimits) -> Prepared:
    """Check a request against the signature of the servable and lay its rows out for the model.

    Computes only; any thread, but many rows take a while: see `prepare_off_loop`. Raises InvalidInput and BodyTooLarge.
    """
    signature = servable.signature
    method = _known_method(signature, request.method)
    also = tuple(_known_method(signature, name) for name in request.also) if request.also else ()
    count = len(request.rows)
    if count > limits.max_rows:
        raise BodyTooLarge(f"{count} rows in one request, at most {limits.max_rows}: send them in several requests")
    batch = convert_rows(signature, request.rows)
    return Prepared(method, batch, request.is_single, also)


async def prepare_off_loop(servable: Servable, request: PredictRequest, limits: RequestLimits) -> Prepared:
    """Do what `prepare` does, in a worker thread if that takes a while."""
    if are_few(request.rows):
        return prepare(servable, request, limits)
    return await asyncio.to_thread(prepare, servable, request, limits)


def execute_now(servable: Servable, request: PredictRequest, limits: RequestLimits) -> Answer | None:
    """Do what `execute` does if that needs no waiting, else return None.

    Event loop thread only; takes no lease, because nothing else happens there until it returns. Raises what `execute`
    raises.
    """
    if not are_few(request.rows):
        return None
    ready = prepare(servable, request, limits)
    prediction = servable.engine.answer_now(ready.method, ready.batch)
    if prediction is None:
        return None
    answer = _answer(servable, ready, prediction)
    return _with_more_now(servable, ready, answer) if ready.also else answer


async def execute(servable: Servable, request: PredictRequest, limits: RequestLimits) -> Answer:
    """Prepare a request and compute its answer; see `prepare_off_loop` and `compute`."""
    return await compute(servable, await prepare_off_loop(servable, request, limits), limits.deadline_seconds)


async def compute(servable: Servable, ready: Prepared, deadline_seconds: float) -> Answer:
    """Compute the answer to a prepared request; the caller holds a lease on `servable` from before it was prepared.

    Raises what `Engine.predict` raises. Further methods are computed one after another, all within the deadline.
    """
    ends_at = time.monotonic() + deadline_seconds if ready.also else 0.0
    batch = ready.batch
    prediction = await servable.engine.predict(ready.method, batch, deadline_seconds)
    answer = _answer(servable, ready, prediction)
    if not ready.also:
        return answer
    also = []
    for method in ready.also:
        left = max(ends_at - time.monotonic(), 0.0)
        also.append((method, await servable.engine.predict(method, batch, left)))
    return answer._replace(also=tuple(also))


def _with_more_now(servable: Servable, ready: Prepared, answer: Answer) -> Answer | None:
    also = []
    for method in ready.also:
        prediction = servable.engine.answer_now(method, ready.batch)
        if prediction is None:
            return None
        also.append((method, prediction))
    return answer._replace(also=tuple(also))


def _answer(servable: Servable, ready: Prepared, prediction: Prediction) -> Answer:
    its = servable.id
    return Answer(its.model, its.version, ready.method, ready.batch.rows, prediction, ready.is_single, (), ready.batch)


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


def _known_method(signature: Signature, name: str | None) -> Method:
    if name is None:
        return signature.default_method
    if name not in signature.methods:
        shown = shorten(name, 50)
        raise InvalidInput(f"method {shown!r} is not one this model offers: {', '.join(signature.methods)}")
    return name

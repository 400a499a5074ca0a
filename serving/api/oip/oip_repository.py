"""The model repository extension: list, load, unload. Operators' calls, with the admin token.

Models come from the store. So ``load`` looks at the store now and waits for the verdict. ``unload`` changes nothing in
the store: no version of the model is loaded until ``load``, also when newer versions arrive.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.api.admin import Actor, audit_decision, operator_of, read_body
from serving.api.models import ModelName, known_in
from serving.api.oip.oip_refusals import errors_of
from serving.api.oip.oip_schemas import IndexEntry, IndexRequest, LoadRequest
from serving.api.openapi import body_of
from serving.api.services import AppState
from serving.domain.decision import LoadModel, RefreshStore, UnloadModel
from serving.domain.errors import DeadlineExceeded, InvalidInput
from serving.domain.state import State
from serving.domain.status import ModelStatus, Status, VersionStatus

LOOK_SECONDS = 0.02

_ON_ITS_WAY = (State.STAGING, State.LOADING, State.VALIDATING, State.WARMING)
_STATES = (
    {
        State.READY: "READY",
        State.SHADOW: "READY",
        State.CANARY: "READY",
        State.ACTIVE: "READY",
        State.DRAINING: "UNLOADING",
        State.DISCOVERED: "UNKNOWN",
    }
    | dict.fromkeys(_ON_ITS_WAY, "LOADING")
    | dict.fromkeys((State.RETIRED, State.REJECTED, State.FAILED, State.QUARANTINED), "UNAVAILABLE")
)
_REFUSED = (State.REJECTED, State.FAILED, State.QUARANTINED)

router = APIRouter(prefix="/v2/repository", tags=["open inference protocol"])


@router.post(
    "/index",
    summary="Every version",
    responses=errors_of(400, 401, 403, 408, 413, 415),
    openapi_extra=body_of(IndexRequest, is_required=False),
)
async def index(request: Request, actor: Actor) -> list[IndexEntry]:  # noqa: ARG001  (the token is looked at there)
    """List every version of every model, or those that are ready."""
    wanted = await read_body(request, IndexRequest)
    return entries_of(request.app.state.status, only_ready=wanted.ready is True)


@router.post(
    "/models/{model}/load",
    summary="Look at the store now, and wait for the verdict",
    response_class=Response,
    responses={
        200: {"description": "The newest version that may answers, and has its verdict."},
        **errors_of(400, 401, 403, 404, 408, 413, 415, 503, 504),
    },
    openapi_extra=body_of(LoadRequest, is_required=False),
)
async def load(model: ModelName, request: Request, actor: Actor) -> Response:
    """Load the model: return when its newest version is active, or when it is known why it is not."""
    decision = LoadModel(model)
    with audit_decision(decision, actor):
        wanted = await read_body(request, LoadRequest)
        if wanted.parameters:
            raise InvalidInput(
                "'parameters' of a load are not taken: a model's files come from the store, nowhere else"
            )
        await load_newest(request.app.state, decision, actor)
    return Response()


@router.post(
    "/models/{model}/unload",
    summary="Take a model out of service until it is loaded",
    response_class=Response,
    responses={
        200: {"description": "Nothing answers for the model any more; requests in flight are finished."},
        **errors_of(400, 401, 403, 404, 408, 413, 415, 503),
    },
    openapi_extra=body_of(LoadRequest, is_required=False),
)
async def unload(model: ModelName, request: Request, actor: Actor) -> Response:
    """Take the model's versions out of service until ``load``, also over restarts; their files stay."""
    decision = UnloadModel(model)
    with audit_decision(decision, actor):
        await read_body(request, LoadRequest)  # 'unload_dependents' is all it may hold, and nothing depends on a model
        await operator_of(request.app.state).decide(decision, actor)
    return Response()


def entries_of(status: Status, *, only_ready: bool = False) -> list[IndexEntry]:
    """Return an entry for every version of every model."""
    entries = [_entry(model, version) for model in status.models.values() for version in model.versions]
    return [entry for entry in entries if entry.state == "READY" or not only_ready]


async def load_newest(state: AppState, decision: LoadModel, actor: str) -> None:
    """Look at the store now and wait until the model's newest version has its verdict; `state` is ``app.state``.

    Raises InvalidInput when it is refused, UnknownModel, DeadlineExceeded, and what an operator's call raises.
    """
    operator = operator_of(state)
    await operator.decide(RefreshStore(), actor)
    await operator.decide(decision, actor)
    known = await _settled(state, decision.model)
    if why := _why_refused(known):
        raise InvalidInput(f"failed to load '{decision.model}', {why}")


async def _settled(state: AppState, model: str) -> ModelStatus:
    """Wait until nothing is under way for the model; raises UnknownModel, or DeadlineExceeded."""
    seconds = state.services.settings.candidate.timeout_seconds
    ends_at = time.monotonic() + seconds
    while True:
        known = known_in(state.status, model)
        if not _is_under_way(known):
            return known
        if time.monotonic() > ends_at:
            raise DeadlineExceeded(f"no verdict on '{model}' within {seconds:g} s; it is still being looked at")
        await asyncio.sleep(LOOK_SECONDS)


def _asked_for(known: ModelStatus) -> VersionStatus | None:
    """Return the version that ``load`` waits for: the pinned one, else the newest."""
    wanted = (one for one in known.versions if known.pinned in (None, one.version))
    return next(wanted, None)


def _is_under_way(known: ModelStatus) -> bool:
    """Say whether something is under way for the model, so that waiting makes sense."""
    if known.target is not None and known.target.state not in _REFUSED:
        return True
    if known.active is None and any(one.state is State.DRAINING for one in known.versions):
        return True  # what an unload has taken out of service is loaded again when it is gone
    asked = _asked_for(known)
    if asked is None:
        return False
    is_settling = asked.state is State.DISCOVERED and asked.reason is None  # left alone while it may be written to
    return is_settling or asked.state in _ON_ITS_WAY


def _why_refused(known: ModelStatus) -> str | None:
    """Return why the version that was asked for does not answer; None if it does, or if another one goes on."""
    asked = _asked_for(known)
    if asked is None:
        return f"version '{known.pinned}', to which it is pinned, is not in the store" if known.pinned else None
    if known.active is not None and asked.state not in _REFUSED:
        return None
    return f"version '{asked.version}' is {asked.state}: {_reason(asked)}"


def _entry(model: ModelStatus, version: VersionStatus) -> IndexEntry:
    state = _STATES[version.state]
    return IndexEntry(
        name=model.name, version=version.version, state=state, reason="" if state == "READY" else _reason(version)
    )


def _reason(version: VersionStatus) -> str:
    """Return the evidence of the gate that refused a version, or else the reason of its state."""
    refused: Any = next((gate for gate in version.gates if gate.verdict == "refused"), None)
    return f"{refused.gate}: {refused.evidence}" if refused else version.reason or str(version.state)

"""Operators' calls over HTTP: each becomes a decision and a line in the log. Closed unless a token is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ValidationError

from serving.api.access import AccessRefused
from serving.api.bodies import BodyReader, refuse_encoding, refuse_media
from serving.api.json_bodies.strict_json import loads, refuse_depth, refuse_repeated_keys
from serving.api.models import LabelName, ModelName, VersionName
from serving.api.openapi import body_of, problems_of
from serving.api.schemas import ActiveModels, LabelledVersion, Pin, Rollback, Steer
from serving.api.services import AppState, services_of
from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    ModelDecision,
    Operator,
    PinVersion,
    RefreshStore,
    ReleaseVersion,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    SteerRollout,
    UnpinModel,
)
from serving.domain.errors import CrossSite, InvalidInput, ServingError
from serving.domain.status import ModelSummary
from serving.settings import ServerSettings, TokenScope

MAX_BODY_BYTES = 64 << 10

Document = TypeVar("Document", bound=BaseModel)

log = structlog.get_logger("serving.admin")


def make_body_reader(settings: ServerSettings) -> BodyReader:
    """Return a reader for the small bodies of operators' calls."""
    return BodyReader(MAX_BODY_BYTES, seconds=settings.body_seconds)


def check_actor(request: Request) -> str:
    """Check the token or the session, and return the caller's name for the history.

    Raises AccessRefused, or CrossSite for a session that does not count for this request.
    """
    actor = f"admin@{address_of(request)}"
    headers = request.scope["serving.headers"]
    try:
        session = services_of(request.app).sessions.check(TokenScope.ADMIN, request.method, headers)
    except (AccessRefused, CrossSite) as refused:
        call = f"{request.method} {request.url.path[:200]}"
        log.warning("admin", call=call, actor=actor, outcome="refused", reason=str(refused))
        raise
    return actor if session is None else f"{actor} (page)"


def address_of(request: Request) -> str:
    """Return the address of the client, as the history and the log name it."""
    return request.client.host if request.client else "unknown"


async def _actor(request: Request) -> str:
    return check_actor(request)


Actor = Annotated[str, Depends(_actor)]

router = APIRouter(tags=["operate"])


@router.post(
    "/models/{model}/pin",
    summary="Serve exactly this version",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(Pin),
)
async def pin(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Load the version if necessary, serve it, and keep it also when newer ones arrive and after a restart."""
    wanted = await read_body(request, Pin)
    return await _decide(request, PinVersion(model, wanted.version), actor)


@router.delete(
    "/models/{model}/pin", summary="Follow the newest valid version again", responses=problems_of(404, 409, 422)
)
async def unpin(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Remove the pin; without a pin nothing happens."""
    return await _decide(request, UnpinModel(model), actor)


@router.post(
    "/models/{model}/rollback",
    summary="Replace the active version by the next best",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(Rollback, is_required=False),
)
async def rollback(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Quarantine the active version and activate the next best. With a version in the body, leave only that one."""
    wanted = await read_body(request, Rollback)
    return await _decide(request, RollBackModel(model, wanted.version), actor)


@router.post(
    "/models/{model}/rollout",
    summary="Promote, roll back, hold or resume a rollout",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(Steer),
)
async def steer(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Do something with the rollout that is under way.

    `promote` makes its version active, `rollback` puts it into quarantine, `hold` keeps the share as it is, and
    `resume` ends that, or lets rollouts begin again after two in a row went back. The call can be repeated safely.
    """
    wanted = await read_body(request, Steer)
    return await _decide(request, SteerRollout(model, wanted.action, wanted.version), actor)


@router.post(
    "/models/{model}/versions/{version}/release",
    summary="Lift a version's quarantine",
    responses=problems_of(404, 409, 422),
)
async def release(model: ModelName, version: VersionName, request: Request, actor: Actor) -> ModelSummary:
    """Forget a version's quarantine and verdict, so that it is evaluated anew."""
    return await _decide(request, ReleaseVersion(model, version), actor)


@router.put(
    "/models/{model}/labels/{label}",
    summary="Let a label name a version",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(LabelledVersion),
)
async def set_label(model: ModelName, label: LabelName, request: Request, actor: Actor) -> ModelSummary:
    """Load the version if necessary, keep it loaded, and let the label answer with it from then on, in one swap."""
    wanted = await read_body(request, LabelledVersion)
    return await _decide(request, SetLabel(model, label, wanted.version), actor)


@router.delete("/models/{model}/labels/{label}", summary="Remove a label", responses=problems_of(404, 422))
async def remove_label(model: ModelName, label: LabelName, request: Request, actor: Actor) -> ModelSummary:
    """Remove the label; a label that there is not is no error."""
    return await _decide(request, RemoveLabel(model, label), actor)


@router.post("/refresh", summary="Look at the store now")
async def refresh(request: Request, actor: Actor) -> ActiveModels:
    """Look at the store now. Evaluations that this starts may still run when the call returns."""
    return await _decide_for_all(request, RefreshStore(), actor)


@router.post("/accept-state-loss", summary="Activate versions again after lost state", responses=problems_of(503))
async def accept_state_loss(request: Request, actor: Actor) -> ActiveModels:
    """Let versions be activated again although pins and quarantines were lost with a damaged state database."""
    return await _decide_for_all(request, AcceptStateLoss(), actor)


async def _decide(request: Request, decision: ModelDecision, actor: str) -> ModelSummary:
    with audit_decision(decision, actor):
        (model,) = await operator_of(request.app.state).decide(decision, actor)
        return model


async def _decide_for_all(request: Request, decision: RefreshStore | AcceptStateLoss, actor: str) -> ActiveModels:
    with audit_decision(decision, actor):
        models = await operator_of(request.app.state).decide(decision, actor)
        return ActiveModels(models=models, store=request.app.state.status.store)


@contextmanager
def audit_decision(decision: Decision, actor: str) -> Iterator[None]:
    """Log one line for an operator's call, whether it succeeded or not."""
    names = {name: getattr(decision, name, None) for name in ("model", "version", "label", "action")}
    fields: dict[str, Any] = {"call": decision.kind, "actor": actor}
    fields |= {key: name[:120] for key, name in names.items() if name is not None}
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, ServingError) else type(error).__name__
        log.warning("admin", **fields, outcome="refused", reason=reason)
        raise
    log.info("admin", **fields, outcome="done")


def operator_of(state: AppState) -> Operator:
    """Return the operator, which carries out decisions; `state` is ``app.state``."""
    return state.services.operator


async def read_body(request: Request, kind: type[Document]) -> Document:
    """Read a small JSON body; an empty one stands for an empty object."""
    headers = request.scope["serving.headers"]
    refuse_media(headers)
    refuse_encoding(headers)
    services = services_of(request.app)
    raw = await services.operator_bodies.read(request.receive, headers)
    if not raw.strip():
        raw = b"{}"
    max_depth = services.settings.server.max_json_depth
    document = loads(raw, max_depth=max_depth)
    refuse_repeated_keys(raw, document, max_depth, None)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        refuse_depth(raw, max_depth)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise InvalidInput(f"{where!r} in the body: {first['msg']}" if where else f"the body: {first['msg']}") from None

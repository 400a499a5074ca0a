"""Operator calls: pin, unpin, rollback, release, refresh. Closed unless a token is configured."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError

from serving.api.bodies import BodyReader, refuse_media
from serving.api.models import ModelName, VersionName
from serving.api.openapi import body_of, problems_of
from serving.api.problems import AdminRefused
from serving.api.schemas import ActiveModels, Pin, Rollback
from serving.api.strict_json import loads, refuse_depth, refuse_repeats, with_repeats
from serving.domain.errors import InvalidInput, ServingError
from serving.domain.status import ModelSummary, Operator
from serving.settings import SecuritySettings, Settings, SettingsError, read_admin_token

MAX_BODY_BYTES = 64 << 10
CLOSED = (
    "operator calls are closed: start the server with SERVING_SECURITY__ADMIN_TOKEN set, or with admin_token or "
    "admin_token_file under [security] in settings.toml"
)

Document = TypeVar("Document", bound=BaseModel)

log = structlog.get_logger("serving.admin")
_bodies = BodyReader(MAX_BODY_BYTES)
_bearer = HTTPBearer(auto_error=False, scheme_name="adminToken", description="The token of `security.admin_token`.")


def load_token(settings: SecuritySettings) -> bytes | None:
    """Return the SHA-256 of the configured token, which is all a comparison needs; None when there is no token.

    Reads the token's file; raises SettingsError.
    """
    token = read_admin_token(settings)
    return None if token is None else hashlib.sha256(token.encode()).digest()


class TokenCheck:
    """Lets operators' calls through. The token is read once, with the first call or by `load`."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._digest: bytes | None = None

    def load(self, settings: Settings) -> None:
        """Read the token; raises SettingsError. For a start that should fail when the token cannot be read."""
        self._digest = load_token(settings.security)
        self._settings = settings

    def check(self, settings: Settings, given: str | None) -> None:
        """Raise AdminRefused unless `given` is the token: 403 when there is none to give, else 401."""
        if settings is not self._settings:
            try:
                self.load(settings)
            except SettingsError as error:
                log.error("admin_token_unreadable", reason=str(error))
                raise AdminRefused(403, f"{CLOSED} (what is set cannot be read, see the log)") from None
        if self._digest is None:
            raise AdminRefused(403, CLOSED)
        if given is None:
            raise AdminRefused(401, "send the header 'Authorization: Bearer <admin token>'", "Bearer")
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(digest, self._digest):
            raise AdminRefused(401, "this is not the admin token", 'Bearer error="invalid_token"')


async def _actor(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> str:
    """Let the call through and name who makes it, for the history; raises AdminRefused."""
    actor = f"admin@{request.client.host if request.client else 'unknown'}"
    tokens: TokenCheck = request.app.state.token_check
    try:
        tokens.check(request.app.state.settings, credentials.credentials if credentials else None)
    except AdminRefused as refused:
        call = f"{request.method} {request.url.path[:200]}"
        log.warning("admin", call=call, actor=actor, outcome="refused", reason=str(refused))
        raise
    return actor


Actor = Annotated[str, Depends(_actor)]

router = APIRouter(tags=["operate"], responses=problems_of(401, 403, 503))


@router.post(
    "/models/{model}/pin",
    summary="Serve exactly this version",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(Pin),
)
async def pin(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Load the version if need be, serve it, and stay with it whatever arrives, also after a restart."""
    wanted = await _read(request, Pin)
    with _audited("pin", actor, model=model, version=wanted.version):
        return await _operator(request).pin(model, wanted.version, actor)


@router.delete(
    "/models/{model}/pin", summary="Follow the newest valid version again", responses=problems_of(404, 409, 422)
)
async def unpin(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Take the pin away; none to take away is fine too."""
    with _audited("unpin", actor, model=model):
        return await _operator(request).unpin(model, actor)


@router.post(
    "/models/{model}/rollback",
    summary="Leave the active version",
    responses=problems_of(400, 404, 409, 413, 415, 422),
    openapi_extra=body_of(Rollback, is_required=False),
)
async def rollback(model: ModelName, request: Request, actor: Actor) -> ModelSummary:
    """Quarantine the active version and activate the next best; with a version in the body, leave only that one."""
    wanted = await _read(request, Rollback)
    with _audited("rollback", actor, model=model, version=wanted.version):
        return await _operator(request).rollback(model, actor, wanted.version)


@router.post(
    "/models/{model}/versions/{version}/release",
    summary="Lift a version's quarantine",
    responses=problems_of(404, 409, 422),
)
async def release(model: ModelName, version: VersionName, request: Request, actor: Actor) -> ModelSummary:
    """Forget a version's quarantine and verdict, so that it is evaluated anew."""
    with _audited("release", actor, model=model, version=version):
        return await _operator(request).release(model, version, actor)


@router.post("/refresh", summary="Look at the store now")
async def refresh(request: Request, actor: Actor) -> ActiveModels:
    """Return when a look at the store has been acted upon; evaluations it started may still run."""
    with _audited("refresh", actor):
        return ActiveModels(models=await _operator(request).refresh(actor))


@contextmanager
def _audited(call: str, actor: str, **names: str | None) -> Iterator[None]:
    """Write one line for an operator's call, whatever came of it."""
    fields: dict[str, Any] = {"call": call, "actor": actor}
    fields |= {key: name[:120] for key, name in names.items() if name is not None}
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, ServingError) else type(error).__name__
        log.warning("admin", **fields, outcome="refused", reason=reason)
        raise
    log.info("admin", **fields, outcome="done")


def _operator(request: Request) -> Operator:
    operator: Operator = request.app.state.operator
    return operator


async def _read(request: Request, kind: type[Document]) -> Document:
    """Read a small JSON body; an empty one stands for an empty object."""
    headers = dict(request.scope["headers"])
    refuse_media(headers)
    raw = await _bodies.read(request.receive, headers)
    if not raw.strip():
        raw = b"{}"
    document = loads(raw)
    refuse_repeats(with_repeats(raw))
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        refuse_depth(raw)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise InvalidInput(f"{where!r} in the body: {first['msg']}" if where else f"the body: {first['msg']}") from None

"""``/ui/session``: exchanges a token for the page's cookie, says what it opens, and signs out."""

from __future__ import annotations

from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response

from serving.api.access import AccessRefused
from serving.api.admin import address_of, read_body
from serving.api.openapi import body_of, problems_of
from serving.api.origins import ORIGIN
from serving.api.paths import PAGE_SESSION
from serving.api.schemas import PageSession, SignIn
from serving.api.services import services_of
from serving.api.sessions import LIFE_SECONDS, Session, TooManySignIns, name_cookie
from serving.settings import TokenScope

_SCOPES = (TokenScope.READ, TokenScope.PREDICT, TokenScope.ADMIN)

log = structlog.get_logger("serving.admin")

router = APIRouter(tags=["page"])


@router.get(PAGE_SESSION, summary="What may the page do?", responses=problems_of(403, 404))
async def show_session(request: Request) -> PageSession:
    """Say what the caller may do, whether the page is signed in, and what it could do with a token."""
    session = services_of(request.app).sessions.find(request.method, request.scope["serving.headers"])
    return _describe(request, session, request.scope["serving.headers"].get(b"authorization"))


@router.post(
    PAGE_SESSION,
    summary="Sign in: exchange a token for a cookie",
    responses=problems_of(400, 401, 403, 404, 413, 415, 422, 429),
    openapi_extra=body_of(SignIn),
)
async def sign_in(request: Request, response: Response) -> PageSession:
    """Set a cookie, `serving_session` and the port, which opens what the token opens, for 12 hours at most.

    Scripts cannot read it, and browsers do not send it for pages of other sites. Whoever changes something with it, or
    predicts, has to be the page of this server. It ends when its token is changed or removed.
    """
    services = services_of(request.app)
    try:
        services.failed_sign_ins.require_room()
        wanted = await read_body(request, SignIn)
        found = services.sessions.sign_in(wanted.token.strip().encode("utf-8", "replace"))
        if found is None:
            services.failed_sign_ins.count_failure()
            raise AccessRefused(TokenScope.READ, 401, "this token is not known here", 'Bearer error="invalid_token"')
    except (AccessRefused, TooManySignIns) as refused:
        log.warning("admin", call="sign_in", actor=_actor_of(request), outcome="refused", reason=str(refused))
        raise
    session, value = found
    scopes = [str(scope) for scope in _SCOPES if scope in session.scopes]
    log.info("admin", call="sign_in", actor=_actor_of(request), outcome="done", scopes=scopes)
    _set_cookie(request, response, value, LIFE_SECONDS)
    return _describe(request, session)


@router.delete(PAGE_SESSION, summary="Sign out", responses=problems_of(403, 404))
async def sign_out(request: Request, response: Response) -> PageSession:
    """Remove the cookie from the browser; without one nothing happens."""
    if services_of(request.app).sessions.find(request.method, request.scope["serving.headers"]) is not None:
        log.info("admin", call="sign_out", actor=_actor_of(request), outcome="done")
    _set_cookie(request, response, b"", 0)
    return _describe(request, None)


def _describe(request: Request, session: Session | None, authorization: bytes | None = None) -> PageSession:
    services = services_of(request.app)
    access = services.access
    held = access.find_scopes(authorization) | (session.scopes if session is not None else frozenset())
    ui = services.settings.server.ui
    assert ui != "off"  # then there is nothing under this path
    obtainable = services.sessions.obtainable
    return PageSession(
        ui=ui,
        scopes=tuple(scope for scope in _SCOPES if scope in held),
        signed_in=session is not None,
        expires_at=session.end if session is not None else None,
        uploads=services.settings.store.uploads,
        needs=tuple(scope for scope in _SCOPES if scope in obtainable and not access.is_open(scope)),
    )


def _set_cookie(request: Request, response: Response, value: bytes, seconds: int) -> None:
    """Set the cookie for everything below the mount point; only over TLS where the browser speaks it.

    A proxy that ends TLS may not say so; the browser's ``Origin`` does.
    """
    path = quote(request.scope.get("root_path", "")) or "/"
    headers = request.scope["serving.headers"]
    name = name_cookie(headers).decode()
    cookie = f"{name}={value.decode()}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    if request.scope.get("scheme") == "https" or headers.get(ORIGIN, b"").lower().startswith(b"https://"):
        cookie += "; Secure"
    response.headers["set-cookie"] = cookie


def _actor_of(request: Request) -> str:
    return f"page@{address_of(request)}"

"""Sessions of the page: a browser shows a signed cookie in place of the token that it was exchanged for.

The server keeps no table of sessions, so a session counts in every worker and after a restart. A cookie holds when it
ends, random bytes, and their HMAC-SHA256 with a key that is derived from the digest of the token. So a session opens
what its token opens, and ends at once when the token is changed or removed.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import math
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from secrets import token_bytes
from typing import Literal, NamedTuple

from serving.api.access import Access, AccessRefused, bearer
from serving.api.bodies import Headers, Message, Receive
from serving.api.origins import refuse_other_pages
from serving.domain.errors import Unavailable
from serving.settings import TokenScope

COOKIE = b"serving_session"
LIFE_SECONDS = 12 * 3600
MOST_COOKIES = 3  # of one name in one request: others, at other paths of this host, may set it, too

_LABEL = b"serving: session of the page, 1"
_TIME_BYTES, _NONCE_BYTES, _MAC_BYTES = 8, 16, 32
_COOKIE_CHARACTERS = math.ceil((_TIME_BYTES + _NONCE_BYTES + _MAC_BYTES) * 8 / 6)

Clock = Callable[[], float]


class TooManySignIns(Unavailable):
    """Too many sign-ins have failed in this process; the next one may be tried in `retry_after_seconds`."""


class Session(NamedTuple):
    """What a cookie opens, and until when, in seconds since 1970."""

    scopes: frozenset[TokenScope]
    expires_at: float

    @property
    def end(self) -> datetime:
        """When it ends."""
        return datetime.fromtimestamp(self.expires_at, UTC)


class Sessions:
    """Says what callers over HTTP may do: by their tokens, or by the session of the page. Event loop thread only.

    With `ui` of "read" no session opens admin, and with "off" there are none. `now` returns the time in seconds since
    1970, because processes that started at different times must agree.
    """

    def __init__(self, access: Access, ui: Literal["off", "read", "admin"], now: Clock = time.time) -> None:
        self._access = access
        self._now = now
        hidden = {TokenScope.ADMIN} if ui == "read" else set()
        keys = access.derive_keys(_LABEL) if ui != "off" else {}
        self._keys = tuple((key, frozenset(scopes - hidden)) for key, scopes in keys.items())

    @property
    def obtainable(self) -> frozenset[TokenScope]:
        """What the sessions of all tokens together open."""
        return frozenset().union(*(scopes for _, scopes in self._keys))

    def check(self, scope: TokenScope, method: str, headers: Headers) -> Session | None:
        """Raise AccessRefused unless the caller's token or session opens `scope`; return the session if that does it.

        A bearer token goes before a session. Raises CrossSite if a session would open it, but may not count for this
        request: see `serving.api.origins`. A cookie that is not ours is ignored.
        """
        if b"cookie" in headers and not self._access.is_open(scope):
            session = self.find(method, headers)
            if session is not None:
                if scope not in session.scopes:
                    raise AccessRefused(scope, 403, f"this session does not open {scope}; {self._advice(scope)}")
                return session
        self._access.check(scope, headers.get(b"authorization"))
        return None

    def find(self, method: str, headers: Headers) -> Session | None:
        """Return the session of a request that has no bearer token, None without a valid one. Raises CrossSite."""
        if bearer(headers.get(b"authorization")) is not None:
            return None
        session = next(filter(None, map(self._read, _cookies_of(headers))), None)
        if session is not None:
            refuse_other_pages(method, headers)
        return session

    def end_with(self, session: Session, receive: Receive) -> Receive:
        """Return a `receive` of ASGI that says that the client has gone when the session ends: so does its stream."""

        async def receive_in_time() -> Message:
            try:
                async with asyncio.timeout(session.expires_at - self._now()):
                    return await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}

        return receive_in_time

    def sign_in(self, token: bytes) -> tuple[Session, bytes] | None:
        """Return a new session for a token, and the value of its cookie; None for a token that is not known."""
        given = self._access.derive_key(token, _LABEL)
        matches = [(hmac.compare_digest(given, key), scopes) for key, scopes in self._keys]
        scopes = next((scopes for is_same, scopes in matches if is_same), None)
        if scopes is None:
            return None
        expires_at = math.floor(self._now()) + LIFE_SECONDS
        content = expires_at.to_bytes(_TIME_BYTES) + token_bytes(_NONCE_BYTES)
        return Session(scopes, expires_at), _encode(content + _sign(given, content))

    def _read(self, value: bytes) -> Session | None:
        """Return the session of a cookie's value, None unless it is one of this server that has not ended."""
        if len(value) != _COOKIE_CHARACTERS:
            return None
        try:
            raw = b64decode(value + b"=" * (-len(value) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        if _encode(raw) != value:  # base64 has several spellings of the same bytes
            return None
        content, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        expires_at = int.from_bytes(content[:_TIME_BYTES])
        if not 0 < expires_at - self._now() <= LIFE_SECONDS:
            return None
        matches = [(hmac.compare_digest(mac, _sign(key, content)), scopes) for key, scopes in self._keys]
        scopes = next((scopes for is_same, scopes in matches if is_same), None)
        return None if scopes is None else Session(scopes, expires_at)

    def _advice(self, scope: TokenScope) -> str:
        if scope in self.obtainable:
            return f"sign in with the {scope} token"
        return f"no session does (server.ui); send the header 'Authorization: Bearer <{scope} token>'"


class SignInLimit:
    """Bounds how many sign-ins may fail in one process: `most` at once, then `per_second`. Event loop thread only."""

    def __init__(self, most: float = 10, per_second: float = 1, now: Clock = time.monotonic) -> None:
        self._most = self._left = most
        self._per_second = per_second
        self._now = now
        self._seen = now()

    def require_room(self) -> None:
        """Raise TooManySignIns when too many have failed."""
        now = self._now()
        self._left = min(self._most, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 1:
            seconds = math.ceil((1 - self._left) / self._per_second)
            raise TooManySignIns(f"too many sign-ins have failed; try again in {seconds} s", seconds)

    def count_failure(self) -> None:
        """Count a sign-in that failed."""
        self._left -= 1


def _sign(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)


def _encode(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def name_cookie(headers: Headers) -> bytes:
    """Return the name of the cookie where the client finds this server: `COOKIE`, with the port if its address has one.

    A browser has one set of cookies for all ports of a host, so servers would overwrite each other's.
    """
    _, mark, port = headers.get(b"host", b"").rpartition(b":")
    return b"%b_%b" % (COOKIE, port) if mark and port.isdigit() else COOKIE


def _cookies_of(headers: Headers) -> Iterator[bytes]:
    wanted, found = name_cookie(headers), 0
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == wanted and found < MOST_COOKIES:
            found += 1
            yield value

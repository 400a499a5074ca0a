"""Decides which calls are allowed: the scopes predict, read and admin, and the tokens that open them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

import structlog

from serving.settings import SecuritySettings, SettingsError, TokenScope, read_digests

CLOSED = (
    "operator calls are closed: start the server with SERVING_SECURITY__ADMIN_TOKEN set, or with admin_token or "
    "admin_token_file under [security] in settings.toml"
)
UNREADABLE = "the tokens that are set cannot be read: everything that may need one is closed, see the log"

log = structlog.get_logger("serving.access")


class AccessRefused(Exception):
    """A call without the right token. 401: the token is missing or unknown; 403: it is for another scope."""

    def __init__(self, scope: TokenScope, status: int, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope
        self.status = status
        self.challenge = challenge


class Access:
    """Allows calls or refuses them. It holds only digests of tokens; their files are read once, before it is made.

    An admin token opens everything, another token its own scope. Without any token of a scope, predict and read are
    open and admin is closed. Without digests (None: a token could not be read) everything that may need a token is
    closed. Any thread may ask.
    """

    def __init__(self, digests: Mapping[TokenScope, Iterable[bytes]] | None) -> None:
        self._digests: tuple[tuple[TokenScope, bytes], ...] | None = None
        if digests is not None:
            self._digests = tuple((scope, digest) for scope, found in digests.items() for digest in found)

    @classmethod
    def read(cls, settings: SecuritySettings) -> Access:
        """Read the tokens; raises SettingsError. For a start that should fail if one cannot be read. Blocks."""
        return cls(read_digests(settings))

    @classmethod
    def read_or_close(cls, settings: SecuritySettings) -> Access:
        """Do what `read` does; if a token cannot be read, close everything that may need one, and log the reason."""
        try:
            return cls.read(settings)
        except SettingsError as error:
            log.error("tokens_unreadable", reason=str(error))
            return cls(None)

    def is_open(self, scope: TokenScope) -> bool:
        """Say whether a scope needs no token."""
        return scope is not TokenScope.ADMIN and self._digests is not None and not self._has(scope)

    def derive_keys(self, label: bytes) -> dict[bytes, set[TokenScope]]:
        """Return a key for each token, derived from its digest for the use that `label` names, and what it opens."""
        keys: dict[bytes, set[TokenScope]] = {}
        for scope, digest in self._digests or ():
            opened = set(TokenScope) if scope is TokenScope.ADMIN else {scope}
            keys.setdefault(_derive(digest, label), set()).update(opened)
        return keys

    @staticmethod
    def derive_key(token: bytes, label: bytes) -> bytes:
        """Return the key that `derive_keys` has for this token, if there is such a token."""
        return _derive(hashlib.sha256(token).digest(), label)

    def find_scopes(self, authorization: bytes | None) -> frozenset[TokenScope]:
        """Return what a caller with this value of ``Authorization`` may do, without a session."""
        return frozenset(scope for scope in TokenScope if self._opens(scope, authorization))

    def _opens(self, scope: TokenScope, authorization: bytes | None) -> bool:
        try:
            self.check(scope, authorization)
        except AccessRefused:
            return False
        return True

    def check(self, scope: TokenScope, authorization: bytes | None) -> None:
        """Raise AccessRefused unless the value of the header ``Authorization`` opens this scope."""
        if self.is_open(scope):
            return
        if self._digests is None:
            raise AccessRefused(scope, 403, UNREADABLE)
        if not self._has(scope):
            raise AccessRefused(scope, 403, CLOSED)
        token = bearer(authorization)
        if token is None:
            raise AccessRefused(scope, 401, f"send the header 'Authorization: Bearer <{scope} token>'", "Bearer")
        held = self._scopes_of(token, self._digests)
        if not held:
            message = f"this token is not known here; send the {scope} token"
            raise AccessRefused(scope, 401, message, 'Bearer error="invalid_token"')
        if scope not in held and TokenScope.ADMIN not in held:
            message = f"this token is for {' and '.join(sorted(held))}; send the {scope} token"
            raise AccessRefused(scope, 403, message, f'Bearer error="insufficient_scope", scope="{scope}"')

    def _has(self, scope: TokenScope) -> bool:
        return any(one is scope for one, _ in self._digests or ())

    @staticmethod
    def _scopes_of(token: bytes, digests: tuple[tuple[TokenScope, bytes], ...]) -> set[TokenScope]:
        """Compare with every token, so that the time does not show which one was nearly equal."""
        given = hashlib.sha256(token).digest()
        matches = [hmac.compare_digest(given, digest) for _, digest in digests]
        return {scope for (scope, _), is_same in zip(digests, matches, strict=True) if is_same}


def _derive(digest: bytes, label: bytes) -> bytes:
    return hmac.digest(digest, label, hashlib.sha256)


def bearer(authorization: bytes | None) -> bytes | None:
    """Return the token of an ``Authorization`` header, None when it holds none. Any bytes may be in it."""
    scheme, _, token = (authorization or b"").strip().partition(b" ")
    return token.strip() or None if scheme.lower() == b"bearer" else None

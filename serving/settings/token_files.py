"""Reads the tokens of each scope, which say who may do what, from the settings or from files."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from serving.settings.groups import SecuritySettings
from serving.settings.setting_problems import SettingsError
from serving.settings.token_digest import RULE, TokenDigest, why_not_a_token

MAX_TOKENS = 100
_MAX_BYTES = 64 << 10


class TokenScope(StrEnum):
    """What a token allows. ADMIN allows everything, the others only what their names say."""

    PREDICT = "predict"
    READ = "read"
    ADMIN = "admin"


def read_digests(security: SecuritySettings) -> Mapping[TokenScope, tuple[bytes, ...]]:
    """Return the SHA-256 of every token of each scope, an empty tuple without any. Blocks on the files.

    Raises SettingsError when a setting and its file are both given, when a file cannot be read, and for a token that
    no HTTP header can carry. No message ever contains a token.
    """
    return {scope: _read_scope(security, scope) for scope in TokenScope}


def _read_scope(security: SecuritySettings, scope: TokenScope) -> tuple[bytes, ...]:
    setting: TokenDigest | None = getattr(security, f"{scope}_token")
    file: Path | None = getattr(security, f"{scope}_token_file")
    refuse_both(scope, setting, file)
    if setting is not None:
        return (setting.digest,)
    return () if file is None else tuple(TokenDigest(token).digest for token in read_token_file(file, scope))


def refuse_both(scope: TokenScope, setting: object, file: object) -> None:
    """Raise SettingsError when a token and a file of tokens are both given."""
    if setting is not None and file is not None:
        raise SettingsError(f"security: {scope}_token and {scope}_token_file are both set; keep one of them")


def read_token_file(file: Path, scope: TokenScope) -> tuple[str, ...]:
    """Return the tokens of a file, one on each line, at least one.

    Ignores empty lines and lines that begin with ``#``. Blocks. Raises SettingsError.
    """
    where = f"security.{scope}_token_file: "
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{where}cannot read {file}: {error.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise SettingsError(f"{where}{file} holds no tokens: it is longer than {_MAX_BYTES} bytes")
    lines = [line.strip() for line in raw.decode("utf-8", "replace").split("\n")]
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise SettingsError(f"{where}{file}: is empty; put a token there or remove the setting")
    if len(tokens) > MAX_TOKENS:
        raise SettingsError(f"{where}{file}: has {len(tokens)} tokens, at most {MAX_TOKENS} are taken")
    if any(why_not_a_token(token) for token in tokens):
        raise SettingsError(f"{where}{file}: a token is {RULE}")
    return tokens

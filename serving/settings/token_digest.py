"""Keeps a token as its SHA-256 from the moment it is read, so that no part of the settings holds the text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

RULE = "one line of ASCII without spaces"


def why_not_a_token(text: str) -> str | None:
    """Say what `text` should be as a token that an HTTP header can carry, None when it is one. Never repeats it."""
    if not text:
        return "not be empty; put a token there or remove the setting"
    if not all("!" <= character <= "~" for character in text):
        return f"be {RULE}"
    return None


class TokenDigest:
    """SHA-256 of one token, the 32 bytes in `digest`; as a field of settings it takes the token as text.

    The text itself is not kept, so that no dump of the settings or of the process can reveal it.
    """

    __slots__ = ("digest",)

    def __init__(self, token: str) -> None:
        self.digest = hashlib.sha256(token.encode()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenDigest) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return "TokenDigest(...)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept text, or a TokenDigest (pydantic's protocol)."""
        serialization = core_schema.to_string_ser_schema()
        return core_schema.no_info_wrap_validator_function(
            cls._from_value, core_schema.str_schema(), serialization=serialization
        )

    @classmethod
    def _from_value(cls, value: Any, as_text: Callable[[Any], str]) -> TokenDigest:
        if isinstance(value, cls):
            return value
        token = as_text(value).strip()
        if why := why_not_a_token(token):
            raise PydanticCustomError("token", "should {why}", {"why": why})
        return cls(token)

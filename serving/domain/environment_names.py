"""Which names an environment can have."""

from __future__ import annotations

from serving.domain.environment import OWN
from serving.domain.version import why_not_a_name

RESERVED_NAMES = frozenset({OWN, "path", "python", "idle_seconds", "named"})


def why_not_an_environment_name(text: str) -> str | None:
    """Say why `text` cannot name an environment, or None when it can: it is a key of settings and a directory."""
    if text.lower() in RESERVED_NAMES:
        return f"'{text}' is a reserved word"
    return why_not_a_name(text)

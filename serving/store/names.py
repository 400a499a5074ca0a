"""Decides which names count in the store, and which of them are artefacts."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable

from serving.domain.manifest import GOLDEN_NAME, MANIFEST_NAME
from serving.domain.version import FULL_NAMES, SUFFIXES, Format

IGNORED_ENDINGS = ("~", ".tmp", ".part", ".partial", ".swp", ".filepart")
LOOKED_INTO = frozenset({".json", ".txt", ".bst", ".model", ".xgb", ".lgb", ".sav", ".bin", ".dat", ".mdl"})
_NEVER_LOOKED_INTO = frozenset({MANIFEST_NAME, GOLDEN_NAME, "requirements.txt"})
LOST_AND_FOUND = "lost+found"  # at the root of an ext4 volume, hence of many a mounted store


class Names:
    """The names that count: not hidden, not of an unfinished file, not ignored by a setting.

    `ignore` holds glob patterns for bare names; case matters. Immutable, so any thread may use it.
    """

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        patterns = [fnmatch.translate(pattern) for pattern in ignore]
        self._ignored = re.compile("|".join(patterns)) if patterns else None

    def exists(self, name: str) -> bool:
        """Say whether the bare `name` counts."""
        if name.startswith(".") or name.endswith(IGNORED_ENDINGS) or name == LOST_AND_FOUND:
            return False
        return self._ignored is None or self._ignored.match(name) is None


def artefact_format(name: str) -> Format | None:
    """Return the format that the suffix of `name` stands for, or None when it is not an artefact. Case is ignored.

    For lone files and single files. For files in a version directory use `format_in_version`.
    """
    return SUFFIXES.get(os.path.splitext(name)[1].lower())


def format_in_version(name: str) -> Format | None:
    """Return the format of a file in a version directory, where two more names are artefacts. Case is ignored."""
    return artefact_format(name) or FULL_NAMES.get(name.lower())


def artefact_name(suffix: str, format: Format) -> str:  # noqa: A002  (what it is called everywhere else)
    """Return the name of an artefact with this suffix in a version directory; the name shows its format."""
    name = f"model{suffix.lower()}"
    if format_in_version(name) is format:
        return name
    known = {kind: ending for ending, kind in reversed(SUFFIXES.items())}
    whole = {kind: full for full, kind in FULL_NAMES.items()}
    return f"model{known[format]}" if format in known else whole[format]


def is_looked_into(name: str) -> bool:
    """Say whether only the content of a file shows if it is an artefact: other files have such names, too."""
    lower = name.lower()
    return os.path.splitext(lower)[1] in LOOKED_INTO and lower not in _NEVER_LOOKED_INTO


def artefact_stem(name: str) -> str:
    """Return `name` without its suffix: the version of a single file, the model of a lone file."""
    return os.path.splitext(name)[0]

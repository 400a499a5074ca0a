"""Names of models and versions, their natural order, and the identity of a version."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

NAME_RULE = "letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100 characters"
RESERVED = frozenset({"active", "models", "versions", "predict", "pin", "rollback", "release", "history", "refresh"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOKEN = re.compile(r"\d+|[a-z]+")
_LETTERS, _NUMBER = 0, 1

OrderKey = tuple[tuple[int, int, str], ...]


class Format(StrEnum):
    """Artefact formats, named by what reads them."""

    JOBLIB = "joblib"
    PICKLE = "pickle"
    SKOPS = "skops"
    ONNX = "onnx"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"


SUFFIXES: dict[str, Format] = {
    ".joblib": Format.JOBLIB,
    ".pkl": Format.PICKLE,
    ".pickle": Format.PICKLE,
    ".skops": Format.SKOPS,
    ".onnx": Format.ONNX,
    ".ubj": Format.XGBOOST,
}

# Whole names that are artefacts in version directories only: other files commonly have these suffixes.
FULL_NAMES: dict[str, Format] = {
    "model.json": Format.XGBOOST,
    "model.txt": Format.LIGHTGBM,
}


def why_not_a_name(text: str) -> str | None:
    """Say why `text` cannot name a model or a version, or None when it can."""
    if text.lower() in RESERVED:
        return f"'{text}' is a reserved word"
    if not _NAME.fullmatch(text):
        return f"{text[:120]!r} is not a name: use {NAME_RULE}"
    return None


def usable_name(text: str) -> str:
    """Return a valid name that resembles `text`; ``model`` when no usable character is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._")[:100] or "model"
    return f"{name}-1" if name.lower() in RESERVED else name


def order_key(name: str) -> OrderKey:
    """Return a key that puts version names in natural order.

    Runs of digits compare as numbers, letters without case, separators only separate, and one leading ``v`` before a
    digit is dropped: ``v10 > v9``, ``1.10 > 1.9``, ``2026-11-20 > 2026-9-1``; ``1``, ``01`` and ``v1`` are equal.
    """
    text = name.lower()
    if text[:1] == "v" and text[1:2].isdigit():
        text = text[1:]
    return tuple(
        (_NUMBER, int(token), "") if token[0].isdigit() else (_LETTERS, 0, token) for token in _TOKEN.findall(text)
    )


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a version: ``sha256:<hex>`` over (file name, sha256 hex) pairs, in any order."""
    lines = sorted(f"{sha256}  {name}\n" for name, sha256 in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class VersionId:
    """What a version is: model, version name and digest. Never a time."""

    model: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version} ({self.digest[:19]})"

"""``manifest.json`` and ``golden.json``: the documents in which a publisher describes a version.

Both are plain JSON documents described in ``docs/store.md``. Parsing is strict: an unknown key is an error, so that a
misspelt field is never silently ignored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

from serving.data_model import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from serving.domain.errors import ServingError
from serving.domain.signature import Method, Signature
from serving.domain.text import one_line

MANIFEST_NAME = "manifest.json"
GOLDEN_NAME = "golden.json"
MAX_DOCUMENT_BYTES = 64 << 20

Document = TypeVar("Document", bound=BaseModel)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class InvalidDocument(ServingError):
    """A manifest or golden file that does not follow its format."""


class ManifestFile(BaseModel):
    """One file of a version: its bare name, sha256 and size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """What ``serving publish`` writes beside the artefact. It lists every file of the version except itself.

    `libraries` are the versions it was trained with, `environment` the name of the environment that it is to run in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    model: str
    version: str
    created_at: datetime
    files: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]
    libraries: dict[str, str] = {}
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    signature: Signature | None = None
    breaking: bool = False
    metrics: dict[str, JsonValue] = {}


class Golden(BaseModel):
    """Stored inputs with expected outputs.

    `instances` are rows as a client would send them; `expected` maps a method to one answer per row, as the server
    would give it. Numbers may differ by ``atol + rtol * |expected|``; labels must be equal.
    `deterministic = false` opts out of the comparison of values for models that answer differently each time: the
    rows must still be answered, with the expected shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instances: Annotated[list[Any], Field(min_length=1)]
    expected: Annotated[dict[Method, list[Any]], Field(min_length=1)]
    rtol: Annotated[float, Field(ge=0)] = 1e-6
    atol: Annotated[float, Field(ge=0)] = 1e-9
    deterministic: bool = True


def parse_manifest(raw: bytes) -> Manifest:
    """Parse ``manifest.json``; raises InvalidDocument with one line that names the field."""
    return _parse_document(Manifest, MANIFEST_NAME, raw)


def parse_golden(raw: bytes) -> Golden:
    """Parse ``golden.json``; raises InvalidDocument with one line that names the field."""
    return _parse_document(Golden, GOLDEN_NAME, raw)


def _parse_document(kind: type[Document], name: str, raw: bytes) -> Document:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidDocument(f"{name}: {one_line(where)}: {first['msg']}") from None

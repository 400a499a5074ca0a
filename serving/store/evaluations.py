"""What evaluating a version came to, kept by digest: one file each, which holds the report and the compiled form.

A file is ``sha256 of the rest (32 bytes) | length of the head (u64, little-endian) | head (JSON) | graphs``. Its name
is ``<digest>@<basis>``: a verdict holds for the same bytes under the same libraries and settings only.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Collection
from contextlib import suppress

import orjson
from pydantic import ValidationError

from serving.domain.compiled import Graph
from serving.domain.report import CandidateReport, Evaluation
from serving.store.asides import Asides
from serving.store.durable import create_file, sync_directory

_HEAD = struct.Struct("<Q")
_SHA256_BYTES = 32
_BASIS_CHARACTERS = 16


class Evaluations:
    """The directory of these files. Any thread; blocks on the disk; raises OSError."""

    def __init__(self, directory: str, asides: Asides) -> None:
        self._directory = directory
        self._asides = asides

    def read(self, digest: str, basis: str) -> Evaluation | None:
        """Return what was written, None when there is nothing or it is damaged (then it is removed)."""
        path = self._path(digest, basis)
        try:
            with open(path, "rb") as file:
                raw = memoryview(file.read())
        except FileNotFoundError:
            return None
        try:
            return _decode(raw)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, ValidationError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return None

    def write(self, digest: str, basis: str, evaluation: Evaluation) -> None:
        """Write durably; what was known on another basis is given up."""
        path = self._path(digest, basis)
        content = _encode(evaluation)
        with self._asides.new() as aside:
            create_file(aside, [hashlib.sha256(b"".join(content)).digest(), *content], 0o600)
            os.rename(aside, path)
        sync_directory(self._directory)
        self._remove(lambda name: name.startswith(f"{_bare(digest)}@") and name != os.path.basename(path))

    def remove_all_but(self, digests: Collection[str]) -> None:
        """Remove what belongs to none of `digests`."""
        kept = {_bare(digest) for digest in digests}
        self._remove(lambda name: name.partition("@")[0] not in kept)

    def _remove(self, is_meant: Callable[[str], bool]) -> None:
        for name in filter(is_meant, os.listdir(self._directory)):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, name))

    def _path(self, digest: str, basis: str) -> str:
        return os.path.join(self._directory, f"{_bare(digest)}@{basis[:_BASIS_CHARACTERS]}")


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _encode(evaluation: Evaluation) -> list[bytes]:
    described = [{"outputs": graph.outputs, "bytes": len(graph.content)} for graph in evaluation.graphs]
    head = orjson.dumps({"report": evaluation.report.model_dump(mode="json"), "graphs": described})
    return [_HEAD.pack(len(head)), head, *(graph.content for graph in evaluation.graphs)]


def _decode(raw: memoryview) -> Evaluation:
    content = raw[_SHA256_BYTES:]
    if hashlib.sha256(content).digest() != raw[:_SHA256_BYTES]:
        raise ValueError("damaged")
    (size,) = _HEAD.unpack_from(content)
    start = _HEAD.size + size
    head = orjson.loads(content[_HEAD.size : start])
    graphs = []
    for each in head["graphs"]:
        outputs = {method: tuple(names) for method, names in each["outputs"].items()}
        graphs.append(Graph(bytes(content[start : start + each["bytes"]]), outputs))
        start += each["bytes"]
    return Evaluation(CandidateReport.model_validate(head["report"]), tuple(graphs))

"""Keeps evaluations by digest: one file each, with the report and the compiled form.

A file is ``b"SVEVAL02" | sha256 of the head (32 bytes) | length of the head (u64, little-endian) | head (JSON) |
graphs``; the head has the sha256 of each graph. Its name is ``<digest>@<basis>``: a verdict holds for the same bytes
under the same libraries and settings only. The graphs are those that a checker has written, with their bounds. Files of
the first format hold unchecked graphs; they are removed when they are found. A graph may have hundreds of megabytes:
this module never copies one while it holds the interpreter lock.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

import orjson
from pydantic import ValidationError

from serving.domain.compiled_form import Graph
from serving.domain.report import CandidateReport, Evaluation
from serving.store.durable import create_file, sync_directory
from serving.store.temporary_files import TemporaryFiles

_MAGIC = b"SVEVAL02"
_PREFIX = struct.Struct("<8s32sQ")
_MOST_HEAD_BYTES = 64 << 20
_BASIS_CHARACTERS = 16


class EvaluationFiles:
    """The directory of these files. Any thread; blocks on the disk; raises OSError."""

    def __init__(self, directory: str, temporary_files: TemporaryFiles) -> None:
        self._directory = directory
        self._temporary_files = temporary_files

    def read(self, digest: str, basis: str) -> Evaluation | None:
        """Return the evaluation, None when there is none. Removes a file that cannot be used."""
        path = self._path_of(digest, basis)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return _decode_evaluation(descriptor)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, ValidationError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return None
        finally:
            os.close(descriptor)

    def write(self, digest: str, basis: str, evaluation: Evaluation) -> None:
        """Write an evaluation durably, and remove those of the same digest on another basis."""
        path = self._path_of(digest, basis)
        with self._temporary_files.make_path() as temporary:
            create_file(temporary, _encode_evaluation(evaluation), 0o600)
            os.rename(temporary, path)
        sync_directory(self._directory)
        self._remove_matching(
            lambda name: name.startswith(f"{_strip_algorithm(digest)}@") and name != os.path.basename(path)
        )

    def remove_all_but(self, digests: Collection[str]) -> None:
        """Remove all evaluations except those of `digests`."""
        kept = {_strip_algorithm(digest) for digest in digests}
        self._remove_matching(lambda name: name.partition("@")[0] not in kept)

    def _remove_matching(self, is_meant: Callable[[str], bool]) -> None:
        for name in filter(is_meant, os.listdir(self._directory)):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, name))

    def _path_of(self, digest: str, basis: str) -> str:
        return os.path.join(self._directory, f"{_strip_algorithm(digest)}@{basis[:_BASIS_CHARACTERS]}")


def _strip_algorithm(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _encode_evaluation(evaluation: Evaluation) -> Iterator[bytes | memoryview]:
    described = [
        {**graph.describe(), "sha256": hashlib.sha256(graph.content).hexdigest()} for graph in evaluation.graphs
    ]
    head = orjson.dumps({"report": evaluation.report.model_dump(mode="json"), "graphs": described})
    yield _PREFIX.pack(_MAGIC, hashlib.sha256(head).digest(), len(head))
    yield head
    yield from (graph.content for graph in evaluation.graphs)


def _decode_evaluation(descriptor: int) -> Evaluation:
    magic, sha256, size = _PREFIX.unpack(os.pread(descriptor, _PREFIX.size, 0))
    if magic != _MAGIC or size > _MOST_HEAD_BYTES:
        raise ValueError("the head is damaged or of another format")
    raw = os.pread(descriptor, size, _PREFIX.size)
    if hashlib.sha256(raw).digest() != sha256:
        raise ValueError("the head does not have the sha256 in the prefix")
    head = orjson.loads(raw)
    start = _PREFIX.size + size
    graphs = []
    for each in head["graphs"]:
        content = os.pread(descriptor, each["bytes"], start)
        if hashlib.sha256(content).hexdigest() != each["sha256"]:
            raise ValueError("a graph does not have the sha256 in the head")
        graphs.append(Graph.of(each, content))
        start += len(content)
    return Evaluation(CandidateReport.model_validate(head["report"]), tuple(graphs))

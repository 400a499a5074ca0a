"""Reads records again: files of both formats, and whole directories."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from serving.domain.errors import ServingError
from serving.recording.parquet_records import iterate_lines, iterate_parquet
from serving.recording.record_files import JSONL, PARQUET, UNFINISHED, name_finished

_TEXTS = ("model", "version", "method")


class UnreadableRecords(ServingError):
    """A file that is not one of records, or cannot be read here."""


class RecordedRequest(NamedTuple):
    """The rows of one request and what one method answered: those that were written, in order."""

    request_id: str | None
    model: str
    version: str
    method: str
    seconds: float
    rows: list[Any]
    answers: list[Any]
    left_out: tuple[str, ...]


def list_record_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and those of directories, in the order of the times in their names.

    Raises UnreadableRecords for a path that is neither a file of records nor a directory with some.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = set(_iterate_readable(path))
            if not inner:
                raise UnreadableRecords(f"'{path}' has no records: no file ends with {JSONL} or {PARQUET}")
            found += inner
        elif path.suffix in (JSONL, PARQUET):
            found.append(path)
        else:
            raise UnreadableRecords(f"'{path}' is no file of records: its name ends neither with {JSONL} nor {PARQUET}")
    return sorted(found, key=lambda each: (each.name.removeprefix(UNFINISHED), each))


def read_requests(path: Path) -> Iterator[RecordedRequest]:
    """Yield the requests in a file, or in the one that has been made of it. Blocks.

    Raises UnreadableRecords, or OSError; FileNotFoundError only before anything is yielded.
    """
    request: RecordedRequest | None = None
    before: Any = None
    for document in _iterate_documents(path):
        try:
            key = document["time"], document["request_id"], *(document[name] for name in _TEXTS)
            row, rows, answers = int(document["row"]), document["features"], document.get("answer")
            left_out = tuple(map(str, document.get("left_out") or ()))
            if request is None or key != before or row != len(request.rows):
                if request is not None:
                    yield request
                model, version, method = (str(document[name]) for name in _TEXTS)
                seconds = float(document["seconds"])
                request = RecordedRequest(document["request_id"], model, version, method, seconds, [], [], left_out)
        except (KeyError, TypeError, ValueError):
            raise UnreadableRecords(f"'{path}' is no file of records: a row lacks a field or has a wrong one") from None
        before = key
        request.rows.append(rows)
        request.answers.append(answers)
        if left_out != request.left_out:
            request = request._replace(left_out=tuple(sorted({*left_out, *request.left_out})))
    if request is not None:
        yield request


def _iterate_readable(directory: Path) -> Iterator[Path]:
    """Yield the files of records below a directory. A server may remove some meanwhile: rglob of Python 3.11 raises."""
    for root, _, names in os.walk(directory):
        for name in names:
            path = _choose_finished(Path(root, name))
            if path.suffix == JSONL or (path.suffix == PARQUET and not path.name.startswith(UNFINISHED)):
                yield path


def _choose_finished(path: Path) -> Path:
    """Return the file that was made of an unfinished one, which has the same records, if there is one by now."""
    if path.suffix == JSONL and path.name.startswith(UNFINISHED):
        finished = name_finished(path)
        if finished.exists():
            return finished
    return path


def _iterate_documents(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from _iterate_file(path)
    except FileNotFoundError:
        finished = _choose_finished(path)
        if finished == path:
            raise
        yield from _iterate_file(finished)


def _iterate_file(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == JSONL:
        yield from iterate_lines(path)
        return
    try:
        yield from iterate_parquet(path)
    except ImportError:
        raise UnreadableRecords(f"'{path}': Parquet needs pyarrow; install this package with its extra arrow") from None
    except ValueError as error:
        raise UnreadableRecords(f"'{path}' is no Parquet file of records: {error}") from None

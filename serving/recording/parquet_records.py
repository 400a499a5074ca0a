"""Records as Parquet, by pyarrow, which is imported when the first file is made.

A file has the fields of `serving.recording.record_lines` as columns, and one column ``features.<name>`` for each
feature. Numbers are float64, whole answers int64, texts strings. A column of anything else, or of different things, has
JSON texts, and says so in its metadata; so has ``features``, where rows have different fields, or too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

ROW_GROUP = 10_000
MOST_COLUMNS = 2_000
FEATURES, PREFIX, ANSWER, LEFT_OUT = "features", "features.", "answer", "left_out"
IS_JSON = {b"serving": b"json"}
PAUSE_ROWS, PAUSE_SECONDS = 16, 2e-4

_EXACT, _INT64 = 2**53, 2**63
_HEAD = ("time", "request_id", "model", "version", "method", "rows", "seconds", "row")
_NUMBERS = frozenset({int, float})


class _Kinds:
    """What one column holds, over all rows."""

    def __init__(self) -> None:
        self.types: set[type] = set()
        self.inner: set[type] = set()
        self.is_large = False

    def add(self, value: Any) -> None:
        kind = type(value)
        self.types.add(kind)
        if kind is list:
            self.inner.update(map(type, value))
        elif kind is int and abs(value) > _EXACT:
            self.is_large = True
            if not -_INT64 <= value < _INT64:
                self.types.add(object)

    def choose(self, pa: Any, *, takes_integers: bool = False) -> Any:
        """Return the type of pyarrow for the column; None: JSON texts."""
        kinds = self.types - {type(None)}
        if kinds == {int} and (takes_integers or self.is_large):
            return pa.int64()
        if kinds <= _NUMBERS and not self.is_large:
            return pa.float64()
        if kinds == {list} and self.inner <= _NUMBERS | {type(None)}:
            return pa.list_(pa.float64())
        return {frozenset({bool}): pa.bool_(), frozenset({str}): pa.string()}.get(frozenset(kinds))


class _Survey:
    """What a whole file of lines holds."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] | None = None
        self.is_even = True
        self.features: dict[str, _Kinds] = {}
        self.answer = _Kinds()

    def add(self, document: dict[str, Any]) -> None:
        self.answer.add(document.get(ANSWER))
        features = document[FEATURES]
        if not self.is_even:
            return
        names = tuple(features) if type(features) is dict else None
        if names is None or len(names) > MOST_COLUMNS or self.names not in (None, names):
            self.is_even = False
            return
        self.names = names
        for name, value in features.items():
            kinds = self.features.get(name)
            if kinds is None:
                kinds = self.features[name] = _Kinds()
            kinds.add(value)


def write_parquet(source: Path, target: Path, is_late: Callable[[], bool]) -> bool:
    """Make a Parquet file of lines of JSON; returns False, without a file, if it `is_late` before the end. Blocks.

    Raises OSError. The target is for this user alone.
    """
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    survey = _Survey()
    target.unlink(missing_ok=True)
    try:
        for document in _iterate_in_time(source, is_late):
            survey.add(document)
        schema = _make_schema(pa, survey)
        target.touch(0o600)
        documents = _iterate_in_time(source, is_late)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            while group := list(islice(documents, ROW_GROUP)):
                columns = [_make_column(pa, field, group) for field in schema]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, _Late):
            return False
        raise
    return True


def iterate_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as the documents that it was made of. Blocks. Raises OSError or ValueError."""
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    with pq.ParquetFile(path) as file:
        is_json = {field.name for field in file.schema_arrow if (field.metadata or {}).items() >= IS_JSON.items()}
        for batch in file.iter_batches(ROW_GROUP):
            for row in pa.Table.from_batches([batch]).to_pylist():
                yield _make_document(row, is_json)


def _make_document(row: dict[str, Any], is_json: set[str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    features: dict[str, Any] = {}
    for name, value in row.items():
        plain = orjson.loads(value) if name in is_json and value is not None else value
        if name.startswith(PREFIX):
            features[name.removeprefix(PREFIX)] = plain
        elif name == "time":
            document[name] = value.isoformat(timespec="microseconds")
        else:
            document[name] = plain
    if not document.get(LEFT_OUT):
        document.pop(LEFT_OUT, None)
    return {FEATURES: features, **document}


def iterate_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the documents of a file of lines of JSON; lines that are none are passed over. Blocks. Raises OSError."""
    with path.open("rb") as file:
        for line in file:
            try:
                document = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if type(document) is dict and FEATURES in document:
                yield document


class _Late(Exception):
    """The time is over."""


def _iterate_in_time(path: Path, is_late: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yield documents, and pause now and then: the interpreter lock is the event loop's."""
    for number, document in enumerate(iterate_lines(path)):
        yield document
        if number % PAUSE_ROWS == 0:
            time.sleep(PAUSE_SECONDS)
            if is_late():
                raise _Late


def _make_schema(pa: Any, survey: _Survey) -> Any:
    fixed = {"time": pa.timestamp("us", "UTC"), "rows": pa.int64(), "seconds": pa.float64(), "row": pa.int64()}
    fields = [pa.field(name, fixed.get(name, pa.string())) for name in _HEAD]
    if survey.is_even:
        fields += [_make_field(pa, PREFIX + name, kinds.choose(pa)) for name, kinds in survey.features.items()]
    else:
        fields.append(_make_field(pa, FEATURES, None))
    answer = survey.answer.choose(pa, takes_integers=True)
    return pa.schema([*fields, _make_field(pa, ANSWER, answer), pa.field(LEFT_OUT, pa.list_(pa.string()))])


def _make_field(pa: Any, name: str, kind: Any) -> Any:
    return pa.field(name, pa.string(), metadata=IS_JSON) if kind is None else pa.field(name, kind)


def _make_column(pa: Any, field: Any, group: list[dict[str, Any]]) -> Any:
    name: str = field.name
    if name.startswith(PREFIX):
        key = name.removeprefix(PREFIX)
        values = [document[FEATURES][key] for document in group]
    else:
        values = [document.get(name) for document in group]
    if name == "time":
        values = [datetime.fromisoformat(value) for value in values]
    elif (field.metadata or {}).items() >= IS_JSON.items():
        values = [None if value is None else orjson.dumps(value).decode() for value in values]
    return pa.array(values, field.type)

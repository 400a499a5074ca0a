"""Arrow IPC streams (https://arrow.apache.org/docs/format/Columnar.html), by pyarrow where it is installed.

pyarrow is imported with the first stream, in a worker thread: that takes a tenth of a second and 40 MB, which servers
without such streams save. Streams are checked in three steps. The sizes that messages declare are added up before
anything is decompressed (`arrow_sizes`); pyarrow validates every offset and index; and columns of nested, extension or
object types are refused.
"""

from __future__ import annotations

import time
from enum import Enum, auto
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.formats.answer_columns import columns_of
from serving.api.formats.arrow_sizes import check_sizes, may_grow, most_bytes
from serving.api.formats.iso_8601 import to_iso_texts
from serving.domain.errors import BodyTooLarge, InvalidInput, Malformed, NotAcceptable
from serving.domain.signature import Dtype, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Tensor
from serving.rows.conversion import YIELD_SECONDS
from serving.rows.integers import has_rounded
from serving.rows.row_problems import describe_value
from serving.rows.tables import Table

INSTALL = "pyarrow is not installed on this server: pip install 'serving[arrow]'"
INLINE_BYTES = 8 << 10  # a millisecond, if they are bools of which some are missing
PIECE_VALUES = 10_000
TAKEN = "numbers, bools, strings, dates, durations, or a dictionary of numbers, bools or strings"

_FILE = b"ARROW1"


@cache
def why_not() -> str | None:
    """Return what is missing to use the format, None if nothing is. It is found out once, without an import."""
    return None if find_spec("pyarrow") is not None else INSTALL


def is_imported() -> bool:
    """Say whether pyarrow has been imported already."""
    return _pyarrow.cache_info().currsize > 0


def reads_slowly(raw: bytes) -> bool:
    """Say whether a stream takes too long for the event loop: a long one, one that may grow, or the first one."""
    return len(raw) > INLINE_BYTES or not is_imported() or may_grow(_pyarrow(), raw)


def read(raw: bytes, signature: Signature) -> Table:
    """Return the rows of a stream, by the names of its columns; numbers without nulls as views of the body.

    There may be many record batches, and compressed ones; nulls are missing values. Raises Malformed; BodyTooLarge for
    a stream that grows beyond its limit; InvalidInput for columns of types that no model takes.
    """
    pa = _pyarrow()
    if raw.startswith(_FILE):
        raise Malformed("the body is an Arrow file; send a stream, as pyarrow.ipc.new_stream writes it")
    try:
        check_sizes(pa, raw)
        options = pa.ipc.IpcReadOptions(use_threads=False)  # a pool of its own would take the event loop's core
        with pa.ipc.open_stream(pa.py_buffer(raw), options=options) as stream:
            _check_width(len(stream.schema), signature)
            kinds = _kinds_of(pa, stream.schema)
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise Malformed(f"the body is not a sound Arrow stream: {reason}") from None
    names = tuple(table.schema.names)
    anything = {feature.name for feature in signature.features if feature.dtype is Dtype.ANY}
    left: int | None = None
    columns: list[Tensor] = []
    for name, kind, column in zip(names, kinds, table.columns, strict=True):
        if kind is not _Kind.CODED:
            columns.append(_values(kind, column, may_be_float=name not in anything))
            continue
        if left is None:
            left = most_bytes(raw) - table.nbytes
        values, size = _decoded(column, left)
        left -= size
        columns.append(values)
    return Table(table.num_rows, columns=tuple(columns), names=names)


def write(answer: Answer, signature: Signature) -> bytes:
    """Return a stream of one record batch, its columns named like those of CSV; its metadata has model and version.

    Raises NotAcceptable for values of several kinds in one column.
    """
    pa = _pyarrow()
    columns = columns_of(answer, signature)
    try:
        arrays = [pa.array(column) for _, column in columns]
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # the last one: an integer of over 64 bits
        raise NotAcceptable(f"{answer.method} gives values Arrow has no type for: ask for application/json") from None
    schema = pa.schema(
        [pa.field(name, array.type) for (name, _), array in zip(columns, arrays, strict=True)],
        metadata={"model": answer.model, "version": answer.version, "method": answer.method},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    body: bytes = sink.getvalue().to_pybytes()
    return body


@cache
def _pyarrow() -> Any:
    """Import it, the first time for a tenth of a second."""
    import_module("pyarrow.ipc")
    return import_module("pyarrow")


# --- reading ----------------------------------------------------------------------------------------------------------


class _Kind(Enum):
    """What the cells of a column are. MOMENT: a date or a duration. CODED: positions in a dictionary."""

    WHOLE = auto()
    FLOAT = auto()
    BOOL = auto()
    TEXT = auto()
    MOMENT = auto()
    CODED = auto()


def _kinds_of(pa: Any, schema: Any) -> list[_Kind]:
    """Return the kind of each column; raises InvalidInput for a type that no model takes."""
    found = []
    for name, given in zip(schema.names, schema.types, strict=True):
        kind = _kinds(pa).get(given.id)
        if kind is None or (kind is _Kind.CODED and _kinds(pa).get(given.value_type.id) in _NEVER_CODED):
            called = str(given).partition("\n")[0][:60]
            raise InvalidInput(f"column {describe_value(name)} is of the type {called}; send {TAKEN}")
        found.append(kind)
    return found


_NEVER_CODED = (None, _Kind.MOMENT, _Kind.CODED)


@cache
def _kinds(pa: Any) -> dict[int, _Kind]:
    """Return kinds by Arrow's number of a type. Views have none: a few of their bytes can mean any amount of text."""
    ids = pa.lib
    whole = [getattr(ids, f"Type_{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)]
    return {
        **dict.fromkeys(whole, _Kind.WHOLE),
        **dict.fromkeys((ids.Type_HALF_FLOAT, ids.Type_FLOAT, ids.Type_DOUBLE), _Kind.FLOAT),
        **dict.fromkeys((ids.Type_STRING, ids.Type_LARGE_STRING), _Kind.TEXT),
        **dict.fromkeys((ids.Type_TIMESTAMP, ids.Type_DATE32, ids.Type_DATE64, ids.Type_DURATION), _Kind.MOMENT),
        ids.Type_BOOL: _Kind.BOOL,
        ids.Type_DICTIONARY: _Kind.CODED,
    }


def _check_width(found: int, signature: Signature) -> None:
    """Refuse too many columns before they are read, and a table of none: no data would show how many rows it has."""
    wanted = len(signature.features)
    if not 0 < found <= wanted:
        raise InvalidInput(
            f"the stream has {found} columns, the model takes {wanted}: one for each feature, by its name"
        )


def _values(kind: _Kind, column: Any, *, may_be_float: bool) -> Tensor:
    """Return a chunked column in the form of a table: an array, with NaN for null among numbers, or a list.

    `may_be_float`: whole numbers with nulls may become floats.
    """
    may_have_nulls = kind is _Kind.FLOAT or (kind is _Kind.WHOLE and may_be_float and not _would_round(column))
    if may_have_nulls or (kind in (_Kind.WHOLE, _Kind.BOOL) and not column.null_count):
        arrays = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.empty(0)
    if kind is _Kind.MOMENT:  # those with a time zone are in UTC
        return [text for chunk in column.chunks for text in to_iso_texts(chunk.to_numpy(zero_copy_only=False))]
    values: list[Any] = []
    for start in range(0, len(column), PIECE_VALUES):
        values += column.slice(start, PIECE_VALUES).to_pylist()
        if len(column) > PIECE_VALUES:
            time.sleep(YIELD_SECONDS)  # lets the event loop have the interpreter: see `serving.rows.conversion`
    return values


def _would_round(column: Any) -> bool:
    """Say whether a column has nulls, and also an integer that a float would round."""
    chunks = [chunk.fill_null(0).to_numpy(zero_copy_only=False) for chunk in column.chunks if column.null_count]
    return any(map(has_rounded, chunks))


def _decoded(column: Any, most: int) -> tuple[list[Any], int]:
    """Return the values of a dictionary-encoded column and how many characters they have together.

    A long string in the dictionary that a million rows use becomes a million long strings in the rows. Raises
    BodyTooLarge beyond `most` characters.
    """
    values: list[Any] = []
    size = 0
    for chunk in column.chunks:
        known = [*chunk.dictionary.to_pylist(), None]
        places = _places(chunk.indices)
        lengths = np.array([len(value) if isinstance(value, str) else 8 for value in known], dtype=np.int64)
        size += int(lengths[places].sum())
        if size > most:
            raise BodyTooLarge(
                "a dictionary of the stream stands for more text than is read; send fewer rows at a time"
            )
        values += [known[place] for place in places.tolist()]
        time.sleep(YIELD_SECONDS)
    return values, size


def _places(indices: Any) -> NDArray[np.int64]:
    """Return positions in the dictionary; -1, the last one, for null."""
    places: NDArray[Any] = indices.to_numpy(zero_copy_only=False)
    if indices.null_count:
        places = np.where(np.isnan(places), -1, places)
    return places.astype(np.int64)

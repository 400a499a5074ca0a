"""Every way to send rows and to read answers, written against the protocols' pages and not with the server's code.

A wire makes a request of cells, or None where it cannot carry them; its `read` gives a list of values for each row.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

CSV, NPY, ARROW = "text/csv", "application/x-npy", "application/vnd.apache.arrow.stream"
EXACT = 2**53
_DTYPES = {"FP64": "<f8", "INT64": "<i8", "UINT64": "<u8", "BOOL": "?"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One model, one of its methods, the names of its features, and rows as lists of cells, texts or objects."""

    model: str
    method: str
    names: tuple[str, ...]
    container: str
    rows: list[Any]

    @property
    def columns(self) -> list[list[Any]] | None:
        """The cells by feature; None for objects."""
        if self.container == "objects":
            return None
        if self.container == "texts":
            return [list(self.rows)]
        return [list(each) for each in zip(*self.rows, strict=True)]

    @property
    def is_named(self) -> bool:
        """Whether names tell the columns apart."""
        return len(set(self.names)) == len(self.names)


@dataclass(frozen=True, slots=True)
class Request:
    """A path and a body with its headers."""

    path: str
    body: bytes
    headers: tuple[str, ...] = ("Content-Type: application/json",)


@dataclass(frozen=True, slots=True)
class Wire:
    """One form of one protocol."""

    name: str
    make: Callable[[Asked], Request | None]
    read: Callable[[dict[str, str], bytes], list[Any]]


def flat(value: Any) -> list[Any]:
    """Return the values of one row of JSON, whatever their nesting."""
    return [leaf for each in value for leaf in flat(each)] if isinstance(value, list) else [value]


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


def _predictions(key: str) -> Callable[[dict[str, str], bytes], list[Any]]:
    return lambda headers, body: [flat(row) for row in json.loads(body)[key]]


# --- native -----------------------------------------------------------------------------------------------------------


def _arrays(asked: Asked) -> Request:
    return Request(f"/models/{asked.model}/predict", _json({"instances": asked.rows, "method": asked.method}))


def _objects(asked: Asked) -> Request | None:
    if asked.container == "objects" or not asked.is_named:
        return None
    rows = [dict(zip(asked.names, row, strict=True)) for row in _lists(asked)]
    return Request(f"/models/{asked.model}/predict", _json({"instances": rows, "method": asked.method}))


def _lists(asked: Asked) -> list[list[Any]]:
    return [[row] for row in asked.rows] if asked.container == "texts" else asked.rows


def _form(asked: Asked, media_type: str, body: bytes) -> Request:
    headers = (f"Content-Type: {media_type}", f"Accept: {media_type}")
    return Request(f"/models/{asked.model}/predict?method={asked.method}", body, headers)


def _csv(asked: Asked) -> Request | None:
    if asked.columns is None or not asked.is_named or any(map(_is_unclear, (c for row in _lists(asked) for c in row))):
        return None
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(asked.names)
    for row in _lists(asked):
        if row == [None]:  # an empty line is no row
            return None
        writer.writerow([_written(cell) for cell in row])
    return _form(asked, CSV, file.getvalue().encode())


def _is_unclear(cell: Any) -> bool:
    """Say whether a text reads as something else in CSV, which knows no types."""
    if not isinstance(cell, str):
        return False
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("", "true", "false") or cell != cell.strip()
    return True


def _written(cell: Any) -> str:
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else repr(cell) if isinstance(cell, float) else str(cell)


def _read_csv(headers: dict[str, str], body: bytes) -> list[Any]:
    return list(csv.reader(io.StringIO(body.decode(), newline="")))[1:]


def _npy(asked: Asked) -> Request | None:
    if asked.columns is None:
        return None
    array = _uniform(asked)
    if array is None:
        return None
    file = io.BytesIO()
    np.save(file, array)
    return _form(asked, NPY, file.getvalue())


def _uniform(asked: Asked) -> Any:
    """Return all cells as one array of the dtype they have in common; None where there is none."""
    rows = _lists(asked)
    kinds = {type(cell) for row in rows for cell in row}
    if kinds <= {float, type(None), int} and float in kinds | {float if type(None) in kinds else int}:
        if any(isinstance(cell, int) and abs(cell) > EXACT for row in rows for cell in row):
            return None
        return np.array(rows, dtype=np.float64)
    if kinds == {int}:
        is_signed = all(cell < 2**63 for row in rows for cell in row)
        return np.array(rows, dtype=np.int64 if is_signed else np.uint64)
    if kinds == {bool}:
        return np.array(rows)
    is_text = kinds == {str} and not any(cell.endswith("\0") for row in rows for cell in row)
    return np.array(rows) if is_text and sum(len(c) for row in rows for c in row) < 100_000 else None


def _read_npy(headers: dict[str, str], body: bytes) -> list[Any]:
    array = np.load(io.BytesIO(body), allow_pickle=False)
    return list(array.reshape(len(array), -1).tolist())


def _arrow(asked: Asked) -> Request | None:
    if asked.columns is None or not asked.is_named:
        return None
    try:
        table = pa.table([_arrow_column(column) for column in asked.columns], names=list(asked.names))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=200)
    return _form(asked, ARROW, sink.getvalue())


def _arrow_column(column: list[Any]) -> Any:
    kinds = {type(cell) for cell in column} - {type(None)}
    if kinds == {int, float} and any(isinstance(cell, int) and abs(cell) > EXACT for cell in column):
        raise pa.ArrowInvalid("would be rounded")
    if bool in kinds and len(kinds) > 1:
        raise pa.ArrowInvalid("of several kinds")
    return pa.array(column, pa.float64() if kinds in ({int, float}, set()) else None)


def _read_arrow(headers: dict[str, str], body: bytes) -> list[Any]:
    table = pa.ipc.open_stream(body).read_all()
    return [flat(list(row)) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


# --- MLflow and TensorFlow --------------------------------------------------------------------------------------------


def _split(asked: Asked) -> Request | None:
    if asked.container == "objects" or not asked.is_named:
        return None
    document = {"columns": list(asked.names), "data": _lists(asked)}
    return _invocation(asked, {"dataframe_split": document})


def _records(asked: Asked) -> Request | None:
    if not asked.is_named:
        return None
    is_object = asked.container == "objects"
    rows = asked.rows if is_object else [dict(zip(asked.names, row, strict=True)) for row in _lists(asked)]
    return _invocation(asked, {"dataframe_records": rows})


def _invocation(asked: Asked, document: dict[str, Any]) -> Request:
    return Request(f"/models/{asked.model}/invocations", _json({**document, "params": {"method": asked.method}}))


def _instances(asked: Asked) -> Request:
    return Request(
        f"/v1/models/{asked.model}:predict", _json({"instances": asked.rows, "signature_name": asked.method})
    )


def _inputs(asked: Asked) -> Request | None:
    if asked.columns is None or not asked.is_named:
        return None
    document = {"inputs": dict(zip(asked.names, asked.columns, strict=True)), "signature_name": asked.method}
    return Request(f"/v1/models/{asked.model}:predict", _json(document))


# --- Open Inference Protocol ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its cells in order of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    def raw(self) -> bytes:
        """Return it as binary; NaN for what is missing."""
        if self.datatype == "BYTES":
            return b"".join(len(raw).to_bytes(4, "little") + raw for raw in (text.encode() for text in self.data))
        cells = [math.nan if cell is None else cell for cell in self.data]
        return np.array(cells, dtype=_DTYPES[self.datatype]).tobytes()


def tensors(asked: Asked, *, may_be_null: bool) -> list[Tensor] | None:
    """Return the rows as one tensor where they have one datatype, else one for each feature; None: they cannot be."""
    if asked.columns is None:
        return None
    rows = _lists(asked)
    every = _datatype([cell for row in rows for cell in row], may_be_null=may_be_null)
    if every is not None and not (every == "BYTES" and len(rows[0]) > 1):
        return [Tensor("input", every, (len(rows), len(rows[0])), [cell for row in rows for cell in row])]
    kinds = [_datatype(column, may_be_null=may_be_null) for column in asked.columns]
    if not asked.is_named or None in kinds:
        return None
    named = zip(asked.names, kinds, asked.columns, strict=True)
    return [Tensor(name, kind, (len(rows), 1), column) for name, kind, column in named if kind is not None]


def _datatype(column: Sequence[Any], *, may_be_null: bool) -> str | None:
    kinds = {type(cell) for cell in column}
    if kinds == {int}:
        return "INT64" if max(column) < 2**63 else "UINT64" if min(column) >= 0 else None
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str} or (kinds == {str, type(None)} and may_be_null):
        return "BYTES"
    if kinds <= {int, float, type(None)}:
        return None if any(isinstance(cell, int) and abs(cell) > EXACT for cell in column) else "FP64"
    return None


def _infer(asked: Asked) -> Request | None:
    found = tensors(asked, may_be_null=True)
    if found is None:
        return None
    inputs = [{"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": t.data} for t in found]
    document = {"inputs": inputs, "outputs": [{"name": asked.method}]}
    return Request(f"/v2/models/{asked.model}/infer", _json(document))


def _infer_binary(asked: Asked) -> Request | None:
    found = tensors(asked, may_be_null=False)
    if found is None:
        return None
    raws = [tensor.raw() for tensor in found]
    inputs = [
        {"name": t.name, "datatype": t.datatype, "shape": t.shape, "parameters": {"binary_data_size": len(raw)}}
        for t, raw in zip(found, raws, strict=True)
    ]
    outputs = [{"name": asked.method, "parameters": {"binary_data": True}}]
    head = _json({"inputs": inputs, "outputs": outputs})
    lines = ("Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(head)}")
    return Request(f"/v2/models/{asked.model}/infer", head + b"".join(raws), lines)


def _read_infer(headers: dict[str, str], body: bytes) -> list[Any]:
    length = int(headers.get("inference-header-content-length", len(body)))
    outputs = json.loads(body[:length])["outputs"]
    rest, columns = body[length:], []
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size")
        data = flat(output["data"]) if size is None else raw_values(output["datatype"], rest[:size])
        rest = rest[size or 0 :]
        columns.append(by_row(data, output["shape"]))
    return [[value for part in row for value in part] for row in zip(*columns, strict=True)]


def by_row(data: list[Any], shape: Sequence[int]) -> list[list[Any]]:
    """Cut the values of a tensor into rows."""
    width = math.prod(shape[1:])
    return [data[place * width : (place + 1) * width] for place in range(shape[0])]


def raw_values(datatype: str, raw: bytes) -> list[Any]:
    """Read a binary tensor."""
    if datatype != "BYTES":
        return list(np.frombuffer(raw, dtype=_DTYPES[datatype]).tolist())
    found, place = [], 0
    while place < len(raw):
        size = int.from_bytes(raw[place : place + 4], "little")
        found.append(raw[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return found


WIRES = (
    Wire("JSON", _arrays, _predictions("predictions")),
    Wire("JSON objects", _objects, _predictions("predictions")),
    Wire("CSV", _csv, _read_csv),
    Wire("npy", _npy, _read_npy),
    Wire("Arrow", _arrow, _read_arrow),
    Wire("MLflow split", _split, _predictions("predictions")),
    Wire("MLflow records", _records, _predictions("predictions")),
    Wire("TF instances", _instances, _predictions("predictions")),
    Wire("TF inputs", _inputs, _predictions("outputs")),
    Wire("OIP JSON", _infer, _read_infer),
    Wire("OIP binary", _infer_binary, _read_infer),
)
UNTYPED = frozenset({"CSV", "npy", "Arrow", "OIP binary", "gRPC"})  # where integers may come back as what holds them


def requests(asked: Asked) -> Iterator[tuple[Wire, Request]]:
    """Yield a request for each wire that can carry these rows."""
    for wire in WIRES:
        made = wire.make(asked)
        if made is not None:
            yield wire, made

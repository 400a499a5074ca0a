"""The body of an inference request: JSON, with blobs behind it, read as rows.

The header ``Inference-Header-Content-Length`` gives the length of the JSON at the start of the body. The blobs of
inputs with the parameter ``binary_data_size`` follow it in order. Unknown fields are ignored.
"""

from __future__ import annotations

import math
import time
from array import array
from typing import Any, NamedTuple

from serving.api.bodies import Headers
from serving.api.json_bodies.brackets import refuse_many_values
from serving.api.json_bodies.cutter import Layout, read_json
from serving.api.json_bodies.long_array import LongArray
from serving.api.json_bodies.strict_json import loads, refuse_repeated_keys
from serving.api.oip.specs import table_of
from serving.api.oip.tensors import (
    DTYPES,
    ReceivedTensor,
    check_shape,
    from_blob,
    from_numbers,
    from_values,
    joined,
    shape_of,
    wrong_count,
    wrong_nesting,
)
from serving.domain.errors import InvalidInput
from serving.domain.signature import METHODS, Signature
from serving.plane.prediction import PredictRequest
from serving.rows.conversion import YIELD_SECONDS
from serving.rows.integers import EXACT
from serving.rows.row_problems import describe_value, is_unicode

HEADER_LENGTH = b"inference-header-content-length"
MOST_PLAIN = 256  # values in a row; more of them are read faster as an array

PLAIN_QUOTES = 14  # of inputs, name, datatype, shape and data, and of the values of two of them
DATA_LEVEL, LEAST_BYTES = 4, 4 << 10  # {"inputs": [{"data": [

_LAYOUT = Layout(
    ("data",),
    ((DATA_LEVEL, LEAST_BYTES),),
    'send {"inputs": [{"name", "shape", "datatype", "data"}]}',
    only_keys=True,
)
_NOTHING: dict[str, Any] = {}
_NUMBERS = frozenset({float, int})


class Infer(NamedTuple):
    """One request: `rows` if it is only a few plain numbers, else `inputs`.

    `methods` empty: the model's default one. `binary` holds those whose answer will be a blob; `is_binary`: all will.
    """

    id: str
    inputs: list[ReceivedTensor]
    methods: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    is_binary: bool = False
    rows: list[Any] | None = None

    def request(self, signature: Signature) -> PredictRequest:
        """Return the request to the model; raises InvalidInput."""
        if self.rows is not None:
            return PredictRequest(self.rows)
        first, *more = self.methods or (None,)
        return PredictRequest(table_of(self.inputs, signature), first, also=tuple(filter(None, more)))


def read(headers: Headers, raw: bytes, max_depth: int) -> Infer:
    """Read a body; raises NotJson or InvalidInput. Blocks, the longer the larger it is; any thread."""
    given = headers.get(HEADER_LENGTH)
    if given is not None:
        return _infer(*_parts(given, raw, max_depth))
    document, text = read_json(raw, _LAYOUT, max_depth)
    plain = _plain(document)
    if plain is None or text.count(b'"') != PLAIN_QUOTES + (4 if plain.id else 0):
        refuse_repeated_keys(text, document, max_depth, None)
    return plain or _infer(document, memoryview(b""))


def _plain(document: Any) -> Infer | None:
    """Read the most common small request: one row of numbers in one tensor, without options. None for all others.

    This saves three quarters of the time that such a request takes otherwise; the result is the same.
    """
    match document:
        case {"outputs": _} | {"parameters": _}:
            return None
        case {"inputs": [{"name": str(), "datatype": "FP64" | "FP32", "shape": [int(), int()], "data": [*_]} as entry]}:
            identity, values = document.get("id", ""), entry["data"]
            if "parameters" in entry or type(identity) is not str or not identity.isascii():
                return None
        case _:
            return None
    if len(values) == 1 and type(values[0]) is list:
        values = values[0]
    rows, columns = entry["shape"]
    is_row = rows == 1 and rows is not True and columns == len(values) and columns is not True
    if not is_row or not 0 < columns <= MOST_PLAIN or not _NUMBERS.issuperset(map(type, values)):
        return None
    if entry["datatype"] == "FP32":
        values = array("f", values).tolist()
    return Infer(identity, [], rows=[values]) if sum(map(abs, values)) <= EXACT else None


def _parts(given: bytes, raw: bytes, max_depth: int) -> tuple[Any, memoryview]:
    """Return the JSON of a body and the bytes after it."""
    if not given.isdigit() or len(given) > len(str(len(raw))) or not 0 < int(given) <= len(raw):
        asked = given.decode("latin-1")[:40]
        raise InvalidInput(
            f"Inference-Header-Content-Length is {asked!r}; expected the bytes of JSON at the start of the body, "
            f"1 to {len(raw)}"
        )
    length = int(given)
    text = raw[:length]
    refuse_many_values(text, max_depth, _LAYOUT.advice)
    document = loads(text, max_depth=max_depth)
    refuse_repeated_keys(text, document, max_depth, None)
    return document, memoryview(raw)[length:]


def _infer(document: Any, blobs: memoryview) -> Infer:
    if not isinstance(document, dict):
        raise InvalidInput('the body is not an object; send {"inputs": [{"name", "shape", "datatype", "data"}]}')
    identity = document.get("id", "")
    if not isinstance(identity, str):
        raise InvalidInput("'id' is not a string; leave it out and one is made")
    if not is_unicode([identity]):
        raise InvalidInput("'id' is not a text of Unicode")
    tensors = []
    taken = 0
    for entry in _objects(document, "inputs"):
        tensor, size = _input(entry, blobs[taken:])
        tensors.append(tensor)
        taken += size
    if taken != len(blobs):
        raise InvalidInput(
            f"{len(blobs) - taken} bytes follow the data of the inputs: is a binary_data_size too small?"
        )
    is_binary = _parameters(document).get("binary_data_output") is True
    methods, binary = _outputs(document, is_binary=is_binary)
    return Infer(identity, tensors, methods, binary, is_binary)


def _input(entry: dict[str, Any], blobs: memoryview) -> tuple[ReceivedTensor, int]:
    """Return an input, and how many bytes of the blobs it takes."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise InvalidInput(
            f"an input needs a name, a datatype (texts) and a shape (an array), it is {describe_value(entry)}"
        )
    sizes = shape_of(name, shape)
    values = entry.get("data")
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        if isinstance(values, LongArray):
            return _tensor_of(values, name, datatype, sizes), 0
        if type(values) is not list:
            raise InvalidInput(
                f"input {describe_value(name)}: 'data' is not an array, and there is no binary_data_size"
            )
        return from_values(name, datatype, sizes, values), 0
    if values is not None:
        raise InvalidInput(f"input {describe_value(name)} has both 'data' and binary_data_size: send one")
    if type(size) is not int or not 0 <= size <= len(blobs):
        raise InvalidInput(
            f"input {describe_value(name)}: binary_data_size is {describe_value(size)}, and {len(blobs)} bytes of data "
            "are left after the JSON (Inference-Header-Content-Length says where it ends)"
        )
    return from_blob(name, datatype, sizes, blobs[:size]), size


def _tensor_of(array: LongArray, name: str, datatype: str, shape: tuple[int, ...]) -> ReceivedTensor:
    """Make a tensor of a long array. Raises InvalidInput or NotJson; blocks, the longer the longer it is."""
    if datatype in DTYPES and DTYPES[datatype].kind == "f":
        numbers = array.read_numbers()
        if numbers is not None:
            check_shape(name, datatype, shape, numbers.shape)
            return from_numbers(name, datatype, shape, numbers.reshape(-1))
    is_nested = len(shape) > 1 and array.is_nested
    columns = shape[1] if len(shape) > 1 else 1
    rows = (array.cut_exactly() if array.is_nested else array).of_width(columns if is_nested else 1)
    if not len(rows):  # blanks between brackets
        return from_values(name, datatype, shape, [])
    if len(rows) != (shape[0] if is_nested else math.prod(shape)):
        array.cut_exactly()  # raises NotJson for what is no array, which is told first
        raise wrong_nesting(name, shape) if is_nested else wrong_count(name, shape, len(rows))
    parts = []
    done = 0
    for piece in rows:
        values = piece.rows
        if is_nested and any(type(row) is not list or len(row) != columns for row in values):
            raise wrong_nesting(name, shape)
        some = (len(values), columns) if is_nested else (len(values),)
        parts.append(from_values(name, datatype, some, values, before=done).values)
        done += len(values)
        time.sleep(YIELD_SECONDS)
    return ReceivedTensor(name, datatype, shape, joined(parts))


def _outputs(document: dict[str, Any], *, is_binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the methods that are asked for, and those whose answer will be a blob."""
    methods: list[str] = []
    binary = set()
    for entry in _objects(document, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str):
            raise InvalidInput(
                f"an output needs a name, it is {describe_value(entry)}; the names are the model's methods"
            )
        if name in methods:
            raise InvalidInput(f"the output {describe_value(name)} is asked for twice")
        if len(methods) >= len(METHODS):
            raise InvalidInput(f"more than {len(METHODS)} outputs; there are {', '.join(METHODS)}")
        methods.append(name)
        if _parameters(entry).get("binary_data", is_binary) is True:
            binary.add(name)
    return tuple(methods), frozenset(binary)


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if found is None:
        return []
    if type(found) is not list or any(type(entry) is not dict for entry in found):
        raise InvalidInput(f"'{key}' is not an array of objects")
    return found


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return _NOTHING
    if type(found) is not dict:
        raise InvalidInput("'parameters' is not an object")
    return found

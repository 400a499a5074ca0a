"""The wire between the server and a host: typed frames of plain bytes over a Unix stream socket.

A frame is a fixed prefix, a JSON header and a payload of raw buffers::

    4 bytes  b"SVH1"
    u8       kind (Kind)
    u8       flags: 1 = the payload is not on the socket but at the start of the shared arena
    u16      0
    u32      length of the header in bytes
    u64      request id; 0 outside of a prediction
    u64      length of the payload in bytes

all little-endian. The header is a JSON object decoded strictly for its kind; the payload holds the tensors' buffers one
after another, each aligned to 8 bytes. Nothing here is ever unpickled, in either direction.

The arena is an anonymous shared mapping made by the server for one process that answers. A request of
`ARENA_THRESHOLD_BYTES` or more that fits goes through it, which spares the copy through the socket (measured for 2.4
MB: 523 us by socket, 227 us by arena). A process has one request at a time: the arena is free when the next is sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any, TypeGuard

import numpy as np
import orjson

from serving.domain.batch import Batch, Column, Tensor
from serving.domain.errors import ProtocolError
from serving.domain.signature import METHODS

MAGIC = b"SVH1"
PREFIX = struct.Struct("<4sBBHIQQ")
FLAG_ARENA = 1
MAX_HEADER_BYTES = 256 << 20
MAX_PAYLOAD_BYTES = 4 << 30
ARENA_BYTES = 64 << 20
ARENA_THRESHOLD_BYTES = 256 << 10

Buffer = bytes | bytearray | memoryview

_ALIGNMENT = 8
_LONGEST_AXIS = 1 << 40  # beyond what any memory holds
_DTYPES = frozenset(
    ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"],
)
_JSON = "json"


class Kind(IntEnum):
    """What a frame is. The first two go to the host, the others come from it."""

    EVALUATE = 1
    PREDICT = 2
    GATE_STARTED = 10
    GATE_RESULT = 11
    REPORT = 12
    GRAPH = 13
    PREDICTION = 20
    REFUSAL = 21
    FAILURE = 22


@dataclass(frozen=True, slots=True)
class Prefix:
    """The decoded fixed part of a frame."""

    kind: Kind
    in_arena: bool
    header_bytes: int
    request_id: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame; `payload` may be a view into the arena and is valid until the answer is sent."""

    kind: Kind
    request_id: int
    header: Buffer
    payload: memoryview


def pack_prefix(kind: Kind, request_id: int, header_bytes: int, payload_bytes: int, *, in_arena: bool = False) -> bytes:
    """Return the fixed part of a frame."""
    flags = FLAG_ARENA if in_arena else 0
    return PREFIX.pack(MAGIC, kind, flags, 0, header_bytes, request_id, payload_bytes)


def unpack_prefix(raw: Buffer) -> Prefix:
    """Decode the fixed part of a frame; raises ProtocolError for anything that is not one."""
    magic, kind, flags, zero, header_bytes, request_id, payload_bytes = PREFIX.unpack(raw)
    if magic != MAGIC or zero != 0 or flags & ~FLAG_ARENA:
        raise ProtocolError(f"not a frame: {bytes(raw)[:16].hex()}")
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"frame too large: header {header_bytes}, payload {payload_bytes} bytes")
    try:
        known = Kind(kind)
    except ValueError:
        raise ProtocolError(f"unknown frame kind {kind}") from None
    return Prefix(known, bool(flags & FLAG_ARENA), header_bytes, request_id, payload_bytes)


def decode_object(raw: Buffer) -> dict[str, Any]:
    """Decode a JSON header that must be an object; raises ProtocolError."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"header is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError("header is not a JSON object")
    return value


# --- tensors ----------------------------------------------------------------------------------------------------------


def encode_tensors(tensors: Iterable[Tensor | Column]) -> tuple[list[dict[str, Any]], list[Buffer]]:
    """Turn arrays and lists into descriptions for a header and buffers for a payload, without copying arrays."""
    descriptions: list[dict[str, Any]] = []
    buffers: list[Buffer] = []
    for tensor in tensors:
        if isinstance(tensor, np.ndarray):
            array = np.ascontiguousarray(tensor)
            if array.dtype.byteorder == ">":
                array = array.astype(array.dtype.newbyteorder("<"))
            if array.dtype.str not in _DTYPES:
                raise ProtocolError(f"arrays of dtype {array.dtype} do not go over the wire")
            descriptions.append({"dtype": array.dtype.str, "shape": tensor.shape})
            buffers.append(array.reshape(-1).view(np.uint8).data if array.size else b"")
        else:
            raw = orjson.dumps(tensor)
            descriptions.append({"dtype": _JSON, "nbytes": len(raw)})
            buffers.append(raw)
        padding = -len(buffers[-1]) % _ALIGNMENT
        if padding:
            buffers.append(bytes(padding))
    return descriptions, buffers


def decode_tensors(descriptions: Sequence[Any], payload: memoryview) -> tuple[Tensor, ...]:
    """Rebuild tensors as views into `payload` (lists are copies); raises ProtocolError unless it fits exactly."""
    tensors: list[Tensor] = []
    offset = 0
    for description in descriptions:
        tensor, nbytes = _decode_tensor(description, payload, offset)
        tensors.append(tensor)
        offset += nbytes + (-nbytes % _ALIGNMENT)
    if offset != len(payload):
        raise ProtocolError(f"tensors describe {offset} bytes of a payload of {len(payload)}")
    return tuple(tensors)


def _decode_tensor(description: Any, payload: memoryview, offset: int) -> tuple[Tensor, int]:
    if not isinstance(description, dict):
        raise ProtocolError("a tensor description is not an object")
    dtype = description.get("dtype")
    if dtype == _JSON:
        nbytes = description.get("nbytes")
        if type(nbytes) is not int or not 0 <= nbytes <= len(payload) - offset:
            raise ProtocolError("a JSON tensor does not fit its payload")
        try:
            value = orjson.loads(payload[offset : offset + nbytes])
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"a JSON tensor is not JSON: {error}") from None
        if not isinstance(value, list):
            raise ProtocolError("a JSON tensor is not a list")
        return value, nbytes
    shape = description.get("shape")
    if type(dtype) is not str or dtype not in _DTYPES or not _is_shape(shape):
        raise ProtocolError(f"not a tensor: dtype {dtype!r}, shape {shape!r}")
    count = prod(shape)
    nbytes = count * np.dtype(dtype).itemsize
    if nbytes > len(payload) - offset:
        raise ProtocolError(f"a tensor of {nbytes} bytes does not fit its payload")
    return np.frombuffer(payload, dtype=dtype, count=count, offset=offset).reshape(shape), nbytes


def _is_shape(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(length) is int and 0 <= length <= _LONGEST_AXIS for length in value)


# --- predictions ------------------------------------------------------------------------------------------------------


def encode_batch(method: str, batch: Batch) -> tuple[bytes, list[Buffer]]:
    """Return header and payload buffers of a PREDICT frame."""
    columns = batch.columns if batch.matrix is None else (batch.matrix,)
    descriptions, buffers = encode_tensors(columns or ())
    header = {"method": method, "rows": batch.rows, "matrix": batch.matrix is not None, "tensors": descriptions}
    return orjson.dumps(header), buffers


def decode_batch(header: Buffer, payload: memoryview) -> tuple[str, Batch]:
    """Return method and batch of a PREDICT frame; arrays are read-only views into `payload`."""
    fields = decode_object(header)
    method, rows, is_matrix = fields.get("method"), fields.get("rows"), fields.get("matrix")
    tensors = fields.get("tensors")
    if method not in METHODS or type(rows) is not int or type(is_matrix) is not bool or not isinstance(tensors, list):
        raise ProtocolError("not the header of a prediction")
    decoded = decode_tensors(tensors, payload)
    if any(len(tensor) != rows for tensor in decoded):
        raise ProtocolError(f"a column does not have {rows} rows")
    if not is_matrix:
        return method, Batch(rows, columns=decoded)
    if len(decoded) != 1 or not isinstance(decoded[0], np.ndarray) or decoded[0].ndim != 2:
        raise ProtocolError("a matrix is one tensor of two dimensions")
    return method, Batch(rows, matrix=decoded[0])

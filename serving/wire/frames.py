"""The wire between the server and a host: typed frames of plain bytes over a Unix stream socket.

A frame is a fixed prefix, a JSON header and a payload of raw buffers::

    4 bytes  b"SVH1"
    u8       kind (FrameKind)
    u8       flags: 1 = the payload is not on the socket but at the start of the shared arena (PREDICT only)
    u16      the most rows that may be computed together with those of frames of other channels; 0 = only these
             (PREDICT only)
    u32      length of the header in bytes
    u64      request id; 0 outside of a prediction
    u64      length of the payload in bytes

all little-endian. The header is a JSON object decoded strictly for its kind; what payloads hold is in
:mod:`serving.wire.payloads`. Nothing is ever unpickled, in either direction.

A host that has opened its candidate's file is an enemy from then on, so `BOUNDS` says for each kind who sends it and
how large it may be. The prefix is checked against it before memory is allocated or more is read. An evaluation always
has this order::

    server                     host
    EVALUATE        ------->
                    <-------   GATE_STARTED, GATE_RESULT     for each gate that does not open the file
                    <-------   GATE_STARTED (load), PREPARED
                    <-------   NEEDS                         what the file needs, found out without running any of it
    LOAD            ------->                                 only now is the file loaded
                    <-------   GATE_RESULT (load)
                    <-------   GATE_STARTED, GATE_RESULT     for each other gate, up to the first that refuses
                    <-------   GRAPH (none, one or two), REPORT

When a gate refuses before the load gate, PREPARED comes before REPORT. NEEDS is sent in the server's own environment
only, and not when a version is loaded again. When the version is to run in another environment, the server ends this
host instead of sending LOAD, and a host there goes on with the gate load.

All of this goes over the **lifeline** of the host. After REPORT no frame does; when the lifeline ends, the host ends.
Requests go over **channels**: a socket and an arena for each slot of each process that answers, see
:mod:`serving.host.serve_channels`. On each channel a PREDICT is answered by one PREDICTION, REFUSAL or FAILURE with the
same request id before the next is sent. Any other frame ends the channel. The frames of one channel take at most this
much memory in the server at a time: one frame, and the values parsed from its JSON (see `MAX_HEADER_SEPARATORS`).

A child whose first frame is CHECKER is not a host but a checker of graphs, which opens no file: it answers
CHECKER_READY, and answers CHECK by CHECKED or REFUSAL. See :mod:`serving.host.graph_check`.

The arena is an anonymous shared mapping made by the server for one channel. A request of `ARENA_THRESHOLD_BYTES` or
more that fits goes through it, which spares the copy through the socket (measured for 2.4 MB: 523 us by socket, 227 us
by arena). A channel has one request at a time, so the arena is free for the next one.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum, auto
from typing import Any, NamedTuple, Union

from serving import json_codec
from serving.domain.errors import ProtocolError
from serving.domain.report import GateName
from serving.rows.batch import MAX_ANSWER_BYTES

MAGIC = b"SVH1"
PREFIX = struct.Struct("<4sBBHIQQ")
FLAG_ARENA = 1
MOST_MERGED_ROWS = (1 << 16) - 1
MAX_REQUEST_HEADER_BYTES = 256 << 20
MAX_REQUEST_PAYLOAD_BYTES = 4 << 30
MAX_GRAPH_BYTES = 2 << 30  # an ONNX file has no more; a request for an evaluation says less
MAX_HEADER_SEPARATORS = 5 << 18  # 100,000 features have 700,000
ARENA_BYTES = 64 << 20
ARENA_THRESHOLD_BYTES = 256 << 10

Buffer = Union[bytes, bytearray, memoryview]

_FEW_BYTES = 64


class FrameKind(IntEnum):
    """What a frame is."""

    EVALUATE = 1
    PREDICT = 2
    LOAD = 3
    CHECKER = 4
    CHECK = 5
    GATE_STARTED = 10
    GATE_RESULT = 11
    REPORT = 12
    GRAPH = 13
    PREPARED = 14
    NEEDS = 17
    CHECKER_READY = 15
    CHECKED = 16
    PREDICTION = 20
    REFUSAL = 21
    FAILURE = 22


class Side(Enum):
    """Who sends a frame."""

    SERVER = auto()
    HOST = auto()


class Bounds(NamedTuple):
    """What a frame of one kind may be: who sends it, and the most bytes of its header and of its payload.

    `times` is how many of them one evaluation may bring; None for what is no part of an evaluation.
    """

    sender: Side
    header_bytes: int
    payload_bytes: int
    times: int | None = None


BOUNDS: dict[FrameKind, Bounds] = {
    FrameKind.EVALUATE: Bounds(Side.SERVER, MAX_REQUEST_HEADER_BYTES, 0, 1),
    FrameKind.LOAD: Bounds(Side.SERVER, 2, 0, 1),
    FrameKind.PREDICT: Bounds(Side.SERVER, MAX_REQUEST_HEADER_BYTES, MAX_REQUEST_PAYLOAD_BYTES),
    FrameKind.CHECKER: Bounds(Side.SERVER, 256, 0),
    FrameKind.CHECK: Bounds(Side.SERVER, MAX_REQUEST_HEADER_BYTES, 2 * MAX_GRAPH_BYTES),
    FrameKind.GATE_STARTED: Bounds(Side.HOST, 256, 0, len(GateName)),
    FrameKind.GATE_RESULT: Bounds(Side.HOST, 16 << 10, 0, len(GateName)),
    FrameKind.PREPARED: Bounds(Side.HOST, 64 << 10, 0, 1),
    FrameKind.NEEDS: Bounds(Side.HOST, 1 << 20, 0, 1),
    FrameKind.GRAPH: Bounds(Side.HOST, 1 << 20, MAX_GRAPH_BYTES, 2),
    FrameKind.REPORT: Bounds(Side.HOST, 16 << 20, 0, 1),  # 100,000 features with names of 100 bytes
    FrameKind.CHECKER_READY: Bounds(Side.HOST, 64 << 10, 0),
    FrameKind.CHECKED: Bounds(Side.HOST, 64 << 10, 2 * MAX_GRAPH_BYTES),
    FrameKind.PREDICTION: Bounds(Side.HOST, 1 << 20, MAX_ANSWER_BYTES),
    FrameKind.REFUSAL: Bounds(Side.HOST, 16 << 10, 0),
    FrameKind.FAILURE: Bounds(Side.HOST, 16 << 10, 0),
}
ANSWERS = frozenset({FrameKind.PREDICTION, FrameKind.REFUSAL, FrameKind.FAILURE})
_KINDS = {int(kind): (kind, bounds.header_bytes, bounds.payload_bytes) for kind, bounds in BOUNDS.items()}


class Prefix(NamedTuple):
    """The decoded fixed part of a frame."""

    kind: FrameKind
    in_arena: bool
    header_bytes: int
    request_id: int
    payload_bytes: int
    most_rows: int = 0


class Frame(NamedTuple):
    """One whole frame; `payload` may be a view into the arena and is valid until the answer is sent.

    `most_rows` is how many rows a host may compute together, if it computes these rows with those of other channels.
    """

    kind: FrameKind
    request_id: int
    header: Buffer
    payload: memoryview
    most_rows: int = 0


def pack_prefix(
    kind: FrameKind,
    request_id: int,
    header_bytes: int,
    payload_bytes: int,
    *,
    in_arena: bool = False,
    most_rows: int = 0,
) -> bytes:
    """Return the fixed part of a frame; `most_rows` is at most `MOST_MERGED_ROWS`."""
    flags = FLAG_ARENA if in_arena else 0
    return PREFIX.pack(MAGIC, kind, flags, most_rows, header_bytes, request_id, payload_bytes)


def unpack_prefix(raw: Buffer) -> Prefix:
    """Decode the fixed part of a frame; raises ProtocolError for anything that is not one, or larger than its kind."""
    magic, number, flags, most_rows, header_bytes, request_id, payload_bytes = PREFIX.unpack(raw)
    if magic != MAGIC or flags & ~FLAG_ARENA:
        raise ProtocolError(f"not a frame: {bytes(raw)[:16].hex()}")
    if number not in _KINDS:
        raise ProtocolError(f"unknown frame kind {number}")
    kind, most_header_bytes, most_payload_bytes = _KINDS[number]
    if header_bytes > most_header_bytes or payload_bytes > most_payload_bytes:
        seen = f"header {header_bytes}, payload {payload_bytes} bytes"
        raise ProtocolError(f"{kind.name} too large: {seen}; at most {most_header_bytes} and {most_payload_bytes}")
    if (flags or most_rows) and kind is not FrameKind.PREDICT:
        raise ProtocolError(f"{kind.name} in the arena or with other rows, which is for requests only")
    return Prefix(kind, bool(flags), header_bytes, request_id, payload_bytes, most_rows)


def decode_object(raw: Buffer) -> dict[str, Any]:
    """Decode a JSON header that must be an object, of bounded structure; raises ProtocolError."""
    if count_separators(raw, b",:[{") > MAX_HEADER_SEPARATORS:
        raise ProtocolError(f"header of more than {MAX_HEADER_SEPARATORS} separators of values")
    try:
        value = json_codec.loads(raw)
    except json_codec.JSONDecodeError as error:
        raise ProtocolError(f"header is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError("header is not a JSON object")
    return value


def count_separators(raw: Buffer, separators: bytes = b",[{") -> int:
    """Return an upper bound on the number of values in a JSON document, about as fast as a copy of it.

    With colons among `separators` keys count too. An empty list takes 3 bytes in JSON and 80 in memory, a key 5 and
    150, and other threads wait while it is parsed: a million took 0.1 to 0.5 s. So JSON of an enemy is counted first.
    """
    if len(raw) <= _FEW_BYTES:
        return len(raw)
    text = bytes(raw)
    return sum(text.count(separator) for separator in separators)

"""How much an Arrow stream grows when it is read, found out before any of it is decompressed.

A compressed buffer begins with its size uncompressed, which pyarrow allocates at once. A FlatBuffer lists the buffers;
this module reads the few fields of it that are needed, after ``format/Message.fbs`` of https://github.com/apache/arrow.
Clients choose the positions: reading beyond the end raises struct.error, which becomes Malformed.
"""

from __future__ import annotations

import struct
from typing import Any

from serving.domain.errors import BodyTooLarge, Malformed

LEAST_BYTES = 64 << 20
MAX_MESSAGES = 10_000
MAX_BUFFERS = 1_000_000

# fields of the tables, by their place in the schema
_HEADER_TYPE, _HEADER = 1, 2
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3
_DICTIONARY_DATA = 1
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_BUFFER = struct.Struct("<qq")


def most_bytes(raw: bytes) -> int:
    """Return how many bytes the values of a stream may have: 64 MiB, and more only if the body itself has more."""
    return max(LEAST_BYTES, 2 * len(raw))


def may_grow(pa: Any, raw: bytes) -> bool:
    """Say whether a stream has compressed buffers or dictionaries, by which it may grow.

    True also for bytes that are not a stream.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(raw)):
            metadata = memoryview(message.metadata)
            kind, header = _header(metadata)
            if kind == _DICTIONARY_BATCH:
                return True
            if kind == _RECORD_BATCH and _field(metadata, header, _BATCH_COMPRESSION) is not None:
                return True
    except (struct.error, pa.ArrowException, OSError):
        return True
    return False


def check_sizes(pa: Any, raw: bytes) -> None:
    """Raise BodyTooLarge for a stream whose buffers together are too large; Malformed for what is not a stream.

    `pa` is pyarrow, which cuts the stream into messages without copying any. Raises pyarrow's errors, too.
    """
    total, most = 0, most_bytes(raw)
    buffers = 0
    for count, message in enumerate(pa.ipc.MessageReader.open_stream(pa.py_buffer(raw))):
        if count >= MAX_MESSAGES:
            raise BodyTooLarge(f"the stream has more than {MAX_MESSAGES} messages; write fewer, longer record batches")
        if message.body is None or not message.body.size:
            continue
        try:
            sizes = _sizes(memoryview(message.metadata), memoryview(message.body))
        except struct.error:
            raise Malformed("the body is not a sound Arrow stream: a message points beyond its end") from None
        buffers += len(sizes)
        total += sum(sizes)
        if total > most or buffers > MAX_BUFFERS:
            raise BodyTooLarge(f"the stream has more than {most} bytes when it is read; send fewer rows at a time")


def _sizes(metadata: memoryview, body: memoryview) -> list[int]:
    """Return the sizes that the buffers of one message will have in memory."""
    kind, batch = _header(metadata)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return []
    if kind == _DICTIONARY_BATCH:
        data_at = _field(metadata, batch, _DICTIONARY_DATA)
        if data_at is None:
            return []
        batch = _follow(metadata, data_at)
    buffers_at = _field(metadata, batch, _BATCH_BUFFERS)
    if buffers_at is None:
        return []
    vector = _follow(metadata, buffers_at)
    count = _unsigned(metadata, vector)
    if vector < 0 or vector + 4 + count * _BUFFER.size > len(metadata):
        raise struct.error
    found = list(_BUFFER.iter_unpack(metadata[vector + 4 : vector + 4 + count * _BUFFER.size]))
    if _field(metadata, batch, _BATCH_COMPRESSION) is None:
        return [max(0, length) for _, length in found]
    return [_uncompressed(body, offset, length) for offset, length in found]


def _header(metadata: memoryview) -> tuple[int, int]:
    """Return the kind of a message, 0 for none, and the position of the table that describes it."""
    message = _root(metadata)
    kind_at = _field(metadata, message, _HEADER_TYPE)
    header_at = _field(metadata, message, _HEADER)
    if kind_at is None or kind_at >= len(metadata) or header_at is None:
        return 0, 0
    return metadata[kind_at], _follow(metadata, header_at)


def _uncompressed(body: memoryview, offset: int, length: int) -> int:
    """Return the uncompressed size that a buffer declares; -1 means that it is not compressed."""
    if length <= 0:
        return 0
    if offset < 0:
        raise struct.error
    size = int(struct.unpack_from("<q", body, offset)[0])
    return length if size < 0 else size


# --- FlatBuffers ------------------------------------------------------------------------------------------------------


def _root(data: memoryview) -> int:
    return _unsigned(data, 0)


def _follow(data: memoryview, at: int) -> int:
    return at + _unsigned(data, at)


def _field(data: memoryview, table: int, place: int) -> int | None:
    """Return the position of a field of a table, None if it is left out."""
    if table < 0 or table + 4 > len(data):
        raise struct.error
    virtual = table - int(struct.unpack_from("<i", data, table)[0])
    if virtual < 0:
        raise struct.error
    size = int(struct.unpack_from("<H", data, virtual)[0])
    entry = 4 + 2 * place
    if entry + 2 > size:
        return None
    offset = int(struct.unpack_from("<H", data, virtual + entry)[0])
    return table + offset if offset else None


def _unsigned(data: memoryview, at: int) -> int:
    if at < 0:
        raise struct.error
    return int(struct.unpack_from("<I", data, at)[0])

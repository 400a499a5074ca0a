"""Limits messages before objects are made from them.

The limit on bytes is not enough: sixteen megabytes of two-byte submessages become eight million objects, which takes
2.3 seconds in one call that holds the interpreter lock (measured). So the parts of a large message are counted first,
in steps that give other threads their turn. The format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.domain.errors import BodyTooLarge, InvalidInput

MAX_PARTS = 100_000  # objects of that many take 30 ms at worst
MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}

Kind = TypeVar("Kind", bound=Message)


async def read(kind: type[Kind], raw: bytes) -> Kind:
    """Parse a message; raises InvalidInput if it is none, BodyTooLarge if it has more than MAX_PARTS parts."""
    if len(raw) > LARGE_BYTES:
        await asyncio.to_thread(refuse_many_parts, kind, raw)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise _not_a_message(kind) from None


def refuse_many_parts(kind: type[Message], raw: bytes) -> None:
    """Count the fields of a message of `kind`, at all levels together. Any thread; blocks.

    Raises BodyTooLarge as soon as there are too many, and InvalidInput if the message is cut off. A packed list is one
    field.
    """
    seen = 0
    todo: list[tuple[Any, int, int]] = [(kind.DESCRIPTOR, 0, len(raw))]
    while todo:
        level, at, end = todo.pop()
        fields = level.fields_by_number
        while at < end:
            seen += 1
            if seen > MAX_PARTS:
                advice = "send strings in raw_input_contents, or fewer at a time"
                raise BodyTooLarge(f"the message has more than {MAX_PARTS} fields and strings; {advice}")
            key, at = _varint(kind, raw, at, end)
            wire_type = key & 7
            if wire_type == _LENGTH:
                size, at = _varint(kind, raw, at, end)
                field = fields.get(key >> 3)
                if field is not None and field.message_type is not None:
                    todo.append((field.message_type, at, at + size))
                at += size
            elif wire_type == _VARINT:
                _, at = _varint(kind, raw, at, end)
            elif wire_type in _FIXED_BYTES:
                at += _FIXED_BYTES[wire_type]
            else:
                raise _not_a_message(kind)
            if at > end:
                raise _not_a_message(kind)


def _varint(kind: type[Message], raw: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number, and the position after it."""
    value = 0
    for place in range(min(MAX_VARINT_BYTES, end - at)):
        byte = raw[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise _not_a_message(kind)


def _not_a_message(kind: type[Message]) -> InvalidInput:
    return InvalidInput(f"what was sent is no {kind.DESCRIPTOR.full_name}: the message is cut off, or of another kind")

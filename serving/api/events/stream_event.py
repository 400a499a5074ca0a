"""One event as clients read it: its name, its data, and the id from which they can go on."""

from __future__ import annotations

from collections.abc import Iterable

import orjson


class StreamEvent:
    """An event; its bytes are made once for all clients. `data` is JSON in one line."""

    __slots__ = ("data", "id", "kind", "text")

    def __init__(self, kind: str, data: bytes, event_id: str | None = None) -> None:
        """`event_id` is of plain letters, digits and dashes."""
        self.kind = kind
        self.data = data
        self.id = event_id
        lines = b"" if event_id is None else b"id: %b\n" % event_id.encode()
        self.text = b"event: %b\n%bdata: %b\n\n" % (kind.encode(), lines, data)

    @property
    def document(self) -> bytes:
        """The event as a JSON object."""
        identity = b"" if self.id is None else b'"id":%b,' % orjson.dumps(self.id)
        return b'{"event":%b,%b"data":%b}' % (orjson.dumps(self.kind), identity, self.data)


def write_document(events: Iterable[StreamEvent]) -> bytes:
    """Return events as one JSON document."""
    return b'{"events":[%b]}' % b",".join(event.document for event in events)


def write_text(events: Iterable[StreamEvent]) -> bytes:
    """Return events as a part of a stream."""
    return b"".join([event.text for event in events])

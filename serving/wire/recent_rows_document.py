"""Recent rows as a JSON document, for workers and hosts. Both ends are this package: the document is not checked."""

from __future__ import annotations

from serving import json_codec
from serving.domain.recent_rows import AnsweredRows, RecentRows


def encode_recent_rows(recent: RecentRows) -> str:
    """Return the document. Takes a while for many rows; any thread."""
    pieces = [[piece.rows, piece.answers] for piece in recent.pieces]
    return json_codec.dumps({"version": recent.version, "pieces": pieces}).decode()


def decode_recent_rows(document: str) -> RecentRows:
    """Return what `encode_recent_rows` was given."""
    fields = json_codec.loads(document)
    return RecentRows(fields["version"], tuple(AnsweredRows(*piece) for piece in fields["pieces"]))

"""Recent rows as a JSON document, for workers and hosts. Both ends are this package: the document is not checked."""

from __future__ import annotations

from contextlib import suppress

from serving import json_codec
from serving.domain.recent_rows import AnsweredRows, RecentRows


def encode_recent_rows(recent: RecentRows) -> str:
    """Return the document, without pieces whose answers JSON cannot hold. Takes a while for many rows; any thread."""
    pieces = []
    for piece in recent.pieces:
        with suppress(TypeError):
            pieces.append(json_codec.dumps([piece.rows, piece.answers]).decode())
    return f"[{json_codec.dumps(recent.version).decode()},[{','.join(pieces)}]]"


def decode_recent_rows(document: str) -> RecentRows:
    """Return what `encode_recent_rows` was given."""
    version, pieces = json_codec.loads(document)
    return RecentRows(version, tuple(AnsweredRows(rows, answers) for rows, answers in pieces))

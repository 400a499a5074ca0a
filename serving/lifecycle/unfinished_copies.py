"""Versions whose files do not come to rest: a copy that takes long, one that was given up, one that is never closed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from serving.lifecycle.records import ModelRecord, VersionRecord

UNFINISHED_SECONDS = 10.0  # longer than most copies take: an operator should know of the others
MAX_UNFINISHED = 10


def was_unfinished(record: VersionRecord, settle_seconds: float, now: float) -> bool:
    """Whether the files of a version that have just changed again had not come to rest before."""
    is_recent = now < record.not_before + settle_seconds
    return record.digest is None and (record.unfinished is not None or is_recent)


def list_unfinished(models: Iterable[ModelRecord], now: float) -> tuple[str, ...]:
    """Say of each version that has been on its way for long what it lacks; of at most `MAX_UNFINISHED` of them."""
    lines = (
        f"'{record.model}/{record.version}' is not complete yet: {record.unfinished}"
        for model in models
        for record in model.listed.values()
        if record.unfinished is not None and record.digest is None and now - record.begun_at > UNFINISHED_SECONDS
    )
    return tuple(islice(lines, MAX_UNFINISHED))

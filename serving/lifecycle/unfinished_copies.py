"""Versions whose files do not settle: a copy that takes long, was given up, or is never closed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from serving.lifecycle.records import ModelRecord, VersionRecord

UNFINISHED_SECONDS = 10.0  # longer than most copies take: an operator should know of the others
MAX_UNFINISHED = 10


def was_unfinished(record: VersionRecord, settle_seconds: float, now: float) -> bool:
    """Whether the files of a version, which have just changed again, had not settled before."""
    is_recent = now < record.not_before + settle_seconds
    return record.digest is None and (record.unfinished is not None or is_recent)


def list_unfinished(models: Iterable[ModelRecord], now: float) -> tuple[str, ...]:
    """Return what is missing of each version that takes long to arrive; at most `MAX_UNFINISHED` of them."""
    lines = (
        f"'{record.model}/{record.version}' is not complete yet: {record.unfinished}"
        for model in models
        for record in model.listed.values()
        if record.unfinished is not None and record.digest is None and now - record.begun_at > UNFINISHED_SECONDS
    )
    return tuple(islice(lines, MAX_UNFINISHED))

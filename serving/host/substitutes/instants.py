"""Reads and writes the times in JSON documents, as RFC 3339 has them; older Pythons read no ``Z``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T t_](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(?:([Zz])|([+-])(\d\d):?(\d\d))?)?"
)
_MOST_SECONDS = 2e10  # a larger number counts milliseconds


def read_instant(value: str | float) -> datetime:
    """Return the time in a text like ``2026-11-20T08:00:00Z`` or in seconds since 1970; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(value)
    if not isinstance(value, str):
        seconds = value / 1000 if abs(value) > _MOST_SECONDS else value
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    found = _INSTANT.fullmatch(value)
    if found is None:
        raise ValueError(value)
    year, month, day, hour, minute, second, fraction, is_utc, sign, hours, minutes = found.groups()
    zone = timezone.utc if is_utc else None
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(offset if sign == "+" else -offset)
    whole = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone)
    return whole + timedelta(microseconds=int((fraction or "0").ljust(6, "0")[:6]))


def write_instant(value: datetime) -> str:
    """Return a time as RFC 3339 has it, with ``Z`` for UTC."""
    return re.sub(r"\+00:00$", "Z", value.isoformat())

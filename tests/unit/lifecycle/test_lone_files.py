"""Names of lone files: later content, later name; known content, known name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.domain.listing import Entry, FileStamp
from serving.domain.version import Format, VersionId, order_key
from serving.lifecycle import lone_files
from serving.lifecycle.history import History


def entry(content: int) -> Entry:
    stamp = FileStamp("churn.joblib", 1, content, content, content)
    return Entry("churn", "", "churn.joblib", "churn.joblib", Format.JOBLIB, (stamp,), is_lone=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    now = [datetime(2026, 11, 20, 8, 0, 0, tzinfo=UTC)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now[0]

    monkeypatch.setattr(lone_files, "datetime", Clock)
    return now


def test_a_content_is_named_by_the_second_it_was_first_seen(tmp_path: Path, clock: list[datetime]) -> None:
    names = History(tmp_path, "b", 10).lone_names
    assert names.name(entry(1)) == "20261120T080000Z"
    clock[0] = datetime(2026, 11, 20, 9, 0, 0, tzinfo=UTC)
    assert names.name(entry(1)) == "20261120T080000Z", "the same content keeps its name"
    assert names.name(entry(2)) == "20261120T090000Z"


def test_a_later_content_has_a_later_name_even_when_the_clock_goes_back(tmp_path: Path, clock: list[datetime]) -> None:
    names = History(tmp_path, "b", 10).lone_names
    first = names.name(entry(1))
    second = names.name(entry(2))
    clock[0] = datetime(2026, 11, 19, 8, 0, 0, tzinfo=UTC)
    third = names.name(entry(3))
    assert order_key(first) < order_key(second) < order_key(third)
    assert third == "20261120T080002Z"


def test_bytes_that_were_here_before_get_their_old_name_back(tmp_path: Path, clock: list[datetime]) -> None:
    names = History(tmp_path, "b", 10).lone_names
    old = names.name(entry(1))
    assert names.recognise(VersionId("churn", old, "sha256:aa"), entry(1).fingerprint) == old
    clock[0] = datetime(2026, 11, 21, tzinfo=UTC)
    again = names.name(entry(2))
    assert again != old
    assert names.recognise(VersionId("churn", again, "sha256:aa"), entry(2).fingerprint) == old
    assert names.name(entry(2)) == old

"""Uploads are shown while they are under way, and for a while after."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from serving.domain.upload import UploadState, UploadStatus
from serving.lifecycle import upload_table
from serving.lifecycle.upload_table import MAX_SHOWN, SHOWN_SECONDS, UploadTable
from tests.fakes import NOON


def status(number: int) -> UploadStatus:
    named = {"model": "m", "version": None, "file": "model.joblib", "actor": "a", "at": NOON}
    return UploadStatus(id=str(number), state=UploadState.RECEIVING, **named)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_upload_is_shown_as_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    later = NOON + timedelta(seconds=7)
    monkeypatch.setattr(upload_table, "now_utc", lambda: later)
    table = UploadTable()
    table.add(status(1))
    table.change("1", bytes=5)
    found = table.change("1", state=UploadState.CHECKING)
    assert found is not None
    assert found.at == later, "it says since when it is in that state"
    assert table.list_status() == (found,)
    assert found.bytes == 5


def test_what_has_ended_stays_as_it_ended() -> None:
    table = UploadTable()
    table.add(status(1))
    ended = table.change("1", state=UploadState.REFUSED, gate="golden")
    assert table.change("1", bytes=7) is None
    assert table.change("2", bytes=7) is None
    assert table.list_status() == (ended,)


def test_what_has_ended_is_forgotten_after_a_while() -> None:
    clock = Clock()
    table = UploadTable(clock)
    table.add(status(1))
    assert table.next_due() == math.inf
    table.change("1", state=UploadState.PUBLISHED)
    clock.now = table.next_due() - 1
    assert len(table.list_status()) == 1
    clock.now = table.next_due()
    assert (clock.now, table.list_status(), table.next_due()) == (SHOWN_SECONDS, (), math.inf)


def test_only_the_newest_are_shown_and_all_that_are_under_way() -> None:
    table = UploadTable()
    for number in range(MAX_SHOWN + 5):
        table.add(status(number))
        if number:
            table.change(str(number), state=UploadState.FAILED)
    shown: Any = [one.id for one in table.list_status()]
    assert shown == ["0", *map(str, range(6, MAX_SHOWN + 5))]

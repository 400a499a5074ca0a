"""The history for readers who want every entry once: what comes after an id, and when it cannot be said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import StateUnavailable
from serving.domain.event_page import HistoryQuery, name_event, parse_event_id
from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.lifecycle import state_file
from serving.lifecycle.database import StateDamaged
from serving.lifecycle.history import History
from serving.lifecycle.state_file import DATABASE_NAME

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@contextmanager
def opened(directory: Path, max_rows: int = 1000) -> Iterator[History]:
    history = History(directory, "basis", max_rows)
    history.start()
    try:
        yield history
    finally:
        history.close()


def entry(reason: str, **changes: Any) -> HistoryEntry:
    given: dict[str, Any] = {"at": NOON, "version": "1", "actor": "system", "event": "transition", "reason": reason}
    return HistoryEntry(**(given | changes))


def tell(history: History, *reasons: str, model: str = "m") -> str:
    """Write entries in one turn, and return the id of the newest."""
    for reason in reasons:
        history.events.note(entry(reason), model)
    history.flush()
    assert history.events.newest is not None
    return history.events.newest


def reasons_after(history: History, event_id: str | None, limit: int = 100) -> tuple[list[str | None], str | None]:
    """Return the reasons of all entries after one, read page by page, and the gap before them."""
    page = history.events.read_after(event_id, limit)
    reasons, gap = [one.reason for one in page.entries], page.gap
    while not page.is_last:
        page = history.events.read_after(page.newest, limit)
        assert page.gap is None
        reasons += [one.reason for one in page.entries]
    assert page.newest == history.events.newest
    return reasons, gap


def test_every_entry_after_an_id_comes_once_in_order_whatever_the_page(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        begin = tell(history, "0")
        tell(history, "1", "2", "3")
        tell(history, "4", model="other")
        for limit in (1, 2, 3, 4, 100):
            assert reasons_after(history, begin, limit) == (["1", "2", "3", "4"], None)
        assert [one.model for one in history.events.read_after(begin, 100).entries] == ["m", "m", "m", "other"]


def test_an_id_holds_over_restarts(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        begin = tell(history, "0")
        history.events.note(entry("at the end"), "m")
    with opened(tmp_path) as history:
        assert history.events.newest == begin[:-1] + "2"
        tell(history, "later")
        assert reasons_after(history, begin) == (["at the end", "later"], None)


def test_a_first_log_has_an_id_before_it_has_an_entry(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        history.flush()
        begin = history.events.newest
        assert begin is not None
        tell(history, "the first")
        assert reasons_after(history, begin) == (["the first"], None)


def test_the_newest_entry_is_told_when_it_is_on_disk(tmp_path: Path) -> None:
    blocked = tmp_path / DATABASE_NAME
    blocked.mkdir()
    with opened(tmp_path) as history:
        history.events.note(entry("while blocked"), "m")
        history.flush()
        assert history.events.newest is None
        with pytest.raises(StateUnavailable):
            history.events.read_after(None, 10)
        blocked.rmdir()
        newest = tell(history, "after")
        page = history.events.read_after(None, 10)
        assert (page.newest, page.entries, page.gap is None) == (newest, (), False)


def test_a_log_whose_name_was_dropped_with_what_could_not_be_written_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "MAX_UNWRITTEN", 3)
    with opened(tmp_path) as history:

        def fail(*_: object, **__: object) -> None:
            raise StateUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(history._file._database, "write", fail)
            for number in range(5):
                history.events.note(entry(str(number)), "m")
                history.flush()
        history.flush()
        assert history.events.newest is None
        begin = tell(history, "named")
        tell(history, "later")
        assert reasons_after(history, begin) == (["later"], None)


def test_after_a_failed_write_the_newest_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as history:
        before = tell(history, "0")

        def fail(*_: object, **__: object) -> None:
            raise StateUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(history._file._database, "write", fail)
            assert tell(history, "1", "2") == before
        assert reasons_after(history, before) == ([], None)
        history.flush()
        assert reasons_after(history, before) == (["1", "2"], None)


def test_a_decision_writes_what_was_noted_before_it(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        before = tell(history, "0")
        history.events.note(entry("1"), "m")
        history.decisions.pin("m", "1")
        history.flush()
        assert reasons_after(history, before) == (["1"], None)


def test_entries_that_were_trimmed_are_a_gap(tmp_path: Path) -> None:
    with opened(tmp_path, max_rows=3) as history:
        ids = [tell(history, str(number)) for number in range(8)]  # 5, 6 and 7 are kept
        for seen in ids[:4]:
            reasons, gap = reasons_after(history, seen)
            assert reasons == ["5", "6", "7"]
            assert gap is not None
            assert "history_rows" in gap
        assert reasons_after(history, ids[4]) == (["5", "6", "7"], None)
        assert reasons_after(history, ids[7]) == ([], None)


def test_a_log_that_was_restored_from_its_copy_is_another_one(tmp_path: Path) -> None:
    """Numbers begin again that a client has seen with other entries."""
    with opened(tmp_path) as history:
        tell(history, "0", "1")
        history.decisions.pin("m", "1")  # in the copy
        in_copy = tell(history, "2", "3", "4")
    (tmp_path / DATABASE_NAME).write_bytes(b"damaged" * 1000)
    with opened(tmp_path) as history:
        tell(history, "5", "6", "7", "8", "9")
        reasons, gap = reasons_after(history, in_copy)
        kept = [one.reason for one in history.events.read_entries(HistoryQuery())]
        assert kept[::-1][-5:] == ["5", "6", "7", "8", "9"]
        assert reasons == ["5", "6", "7", "8", "9"]
        assert gap is not None
        assert "restored" in gap


@pytest.mark.parametrize("has_copy", [True, False])
def test_a_log_that_is_lost_while_the_server_runs_is_another_one(tmp_path: Path, has_copy: bool) -> None:
    with opened(tmp_path) as history:
        history.decisions.pin("m", "1")
    with opened(tmp_path) as history:
        seen = tell(history, "0", "1", "2")
        if not has_copy:
            (tmp_path / f"{DATABASE_NAME}.copy").unlink()
        history.events.note(entry("noticed"), "m")
        history._file.report(StateDamaged("as SQLite would say at the next page that it reads"))
        (tmp_path / DATABASE_NAME).write_bytes(b"damaged" * 1000)
        newest = tell(history, "3")
        assert newest.partition("-")[0] != seen.partition("-")[0]
        reasons, gap = reasons_after(history, seen)
        assert reasons == ["noticed", "3"]
        assert gap is not None


def test_a_file_that_was_put_back_as_it_was_before_is_a_gap(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        tell(history, "0")
    shutil.copyfile(tmp_path / DATABASE_NAME, tmp_path / "backup")
    with opened(tmp_path) as history:
        seen = tell(history, "1", "2")
    shutil.copyfile(tmp_path / "backup", tmp_path / DATABASE_NAME)
    with opened(tmp_path) as history:
        reasons, gap = reasons_after(history, seen)
        assert reasons == []
        assert gap is not None
        assert "lost" in gap


@pytest.mark.parametrize("text", ["", "x", "x-", "-1", "log-one", "log--1", "log-٣", "log-" + "9" * 30])
def test_what_is_no_id_is_of_no_log(tmp_path: Path, text: str) -> None:
    found = parse_event_id(text)
    assert found is None or found == ("", 1)
    with opened(tmp_path) as history:
        tell(history, "0")
        assert reasons_after(history, text)[1] is not None


def test_an_id_is_read_as_it_was_written() -> None:
    assert parse_event_id(name_event("1f2e3d4c", 250)) == ("1f2e3d4c", 250)


def test_the_history_of_all_models_is_found_by_what_it_says(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        for number, (model, changes) in enumerate(
            [
                ("m", {}),
                ("m", {"after": State.ACTIVE, "at": NOON + timedelta(seconds=0.5)}),
                ("other", {"version": "2", "at": NOON + timedelta(seconds=1)}),
                ("other", {"event": "pin", "actor": "admin@here", "at": NOON + timedelta(seconds=2)}),
            ]
        ):
            history.events.note(entry(str(number), **changes), model)
        history.flush()

        def find(**wanted: Any) -> str:
            return "".join(one.reason or "" for one in history.events.read_entries(HistoryQuery(**wanted)))

        assert find() == "3210"
        assert find(limit=2) == "32"
        assert find(before_id=3) == "10"
        assert (find(model="m"), find(version="2"), find(event="pin"), find(actor="admin@here")) == (
            "10",
            "2",
            "3",
            "3",
        )
        assert (find(state=State.ACTIVE), find(state=State.READY), find(model="gone")) == ("1", "", "")
        assert find(since=NOON + timedelta(seconds=0.5)) == "321"
        assert find(until=NOON + timedelta(seconds=0.5)) == "0"
        assert find(since=datetime(2026, 11, 20, 12, 0, 1), model="other") == "32"  # noqa: DTZ001  (UTC is meant)
        assert find(since=(NOON + timedelta(seconds=2)).astimezone(datetime.strptime("+02:00", "%z").tzinfo)) == "3"

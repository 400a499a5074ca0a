"""Problems of the store are logged once each, when they last."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from serving.domain.listing import Listing
from serving.lifecycle import store_poller
from serving.lifecycle.store_poller import StorePoller
from serving.settings import StoreSettings


@pytest.fixture
def looking(tmp_path: Path) -> Any:
    watcher = Mock(mode="events", problem=None)
    made = StorePoller(StoreSettings(path=tmp_path), Mock(), watcher, Mock(), Mock())

    def look(*problems: str) -> list[str]:
        made._next_resync = 1e12
        with capture_logs() as lines:
            made.took_in(Listing({}, problems), is_changed=False)
        return [line["problem"] for line in lines if line["event"] == "store_problem"]

    look.made = made  # type: ignore[attr-defined]
    return look


def test_a_problem_that_lasts_is_logged_once(looking: Any) -> None:
    assert looking("a") == []
    assert looking("a", "b") == ["a"]
    assert looking("a", "b") == ["b"]
    assert looking("a", "b") == []


def test_versions_on_their_way_and_why_the_store_is_polled_are_problems(looking: Any) -> None:
    looking.made._watcher.problem = "changes are found by polling only: inotify watch limit reached"
    looking.made.took_in(Listing({}, ("a",)), ["'m/1' is not complete yet"], is_changed=False)
    assert looking.made.status.problems == ("a", "'m/1' is not complete yet", looking.made._watcher.problem)


def test_one_that_was_mended_and_comes_back_is_logged_again(looking: Any) -> None:
    for problems, logged in (("a", []), ("a", ["a"]), ("", []), ("a", []), ("a", ["a"])):
        assert looking(*problems) == logged


def test_a_new_problem_is_looked_at_again_soon(looking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_poller.time, "monotonic", lambda: 100.0)
    looking("a")
    assert looking.made._next_resync == 102.0
    looking("a")
    assert looking.made._next_resync == 1e12

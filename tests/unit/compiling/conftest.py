"""Fixtures for the tests of compiling."""

from __future__ import annotations

import pytest


@pytest.fixture
def steady_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof tries the same rows each time: how many there are does not depend on how busy this machine is."""
    monkeypatch.setattr("serving.compiling.prove._choose_row_count", lambda model, maker: 1024)

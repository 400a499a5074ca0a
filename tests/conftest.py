"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, constant, serving, write_version


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A ready server with one model, `m`, whose version 1 answers 1.0."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as running:
        yield running

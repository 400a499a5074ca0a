"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.e2e.harness import Server, constant, serving, write_version

# Tests fork; gRPC's own code would run in each child, start threads and end it where it may not.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Without this, a logged traceback shows every local variable of every frame: seconds for one of the framework's.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A ready server with one model, `m`, whose version 1 answers 1.0."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as running:
        yield running

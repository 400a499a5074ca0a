"""Fixtures of the servables' tests: hosts that are threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.plane.host_stub import Answer, Hosts, StubProcess, doubled


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Make stubs, and see that their threads end."""
    made: list[StubProcess] = []

    def make(answer: Answer = doubled, replicas: int = 1) -> StubProcess:
        made.append(StubProcess(answer, replicas))
        return made[-1]

    yield make
    for process in made:
        process.join()

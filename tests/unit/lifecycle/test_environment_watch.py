"""Environments are looked at while a version waits for one, and not as often while they keep changing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.version import VersionId
from serving.lifecycle.environment_watch import MOST_PAUSE_SECONDS, EnvironmentWatch


class Environments:
    """Environments of which only the fingerprint matters, and how often it was read."""

    def __init__(self) -> None:
        self.fingerprint = "1"
        self.reads = 0
        self.is_changing = False

    def read(self) -> str:
        self.reads += 1
        return f"{self.reads}" if self.is_changing else self.fingerprint


@pytest.fixture
def environments() -> Environments:
    return Environments()


@pytest.fixture
def watch(environments: Environments) -> EnvironmentWatch:
    refusal = SimpleNamespace(against="environments:0")
    verdicts: Any = SimpleNamespace(refusals={VersionId("m", "1", "sha256:00"): refusal})
    return EnvironmentWatch(environments.read, verdicts, 1.0)


def count_retries(watch: EnvironmentWatch, seconds: int, begin: float = 0.0) -> int:
    """Return how often versions are tried again in this time."""
    now, retries = begin, 0
    while now < begin + seconds:
        retries += bool(watch.find_models_to_retry(now))
        now = watch.next_due()
    return retries


def test_one_change_is_seen_with_the_next_look(watch: EnvironmentWatch, environments: Environments) -> None:
    assert count_retries(watch, 10) == 0
    environments.fingerprint = "2"
    assert watch.find_models_to_retry(10.0) == {"m"}
    assert count_retries(watch, 10, begin=20.0) == 0
    environments.fingerprint = "3"
    assert watch.find_models_to_retry(30.0) == {"m"}


def test_environments_that_keep_changing_do_not_keep_the_server_busy(
    watch: EnvironmentWatch, environments: Environments
) -> None:
    environments.is_changing = True
    assert count_retries(watch, 3600) <= 10 + 3600 / MOST_PAUSE_SECONDS
    environments.is_changing = False
    assert watch.find_models_to_retry(4000.0) == {"m"}
    reads = environments.reads
    assert count_retries(watch, 60, begin=4100.0) == 0
    assert environments.reads == reads + 60, "it looks every second again"

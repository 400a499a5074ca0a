"""Models with a changed state: they are refused, or answer everything without ending the process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def find_crashes(count: int, seed: int, which: str) -> list[str]:
    """Return what ended a process. Runs in a new process: a process that forks must not have computed before."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.hostile.states", str(count), str(seed), which]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    outcome = json.loads(done.stdout)
    print(outcome)
    assert sum(outcome["words"].values()) == count
    assert min(outcome["words"][word] for word in ("refused", "answered", "raised")) > count // 20
    crashes: list[str] = outcome["crashes"]
    return crashes


def test_a_changed_state_never_ends_the_process() -> None:
    assert find_crashes(200, 11, "usual") == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_changed_states_never_end_the_process(seed: int) -> None:
    assert find_crashes(5000, 100 + seed, "all") == []

"""The process that forks workers, and its spare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scene", ["spare", "spare_first", "stopped", "both", "ended"])
def test_workers_are_forked_whatever_is_killed(scene: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.supervisor.nursery_scenes", scene],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""What importing onnxruntime leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import sandbox
from serving.silence import SILENCE

# onnxruntime is silent in tests anyway, where one of these says so
QUIETING = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")


@pytest.mark.parametrize("module", ["serving.plane.graph", "serving.host.onnx_model"])
def test_onnxruntime_keeps_no_record_of_the_models_it_opens(module: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in QUIETING}
    command = [sys.executable, "-c", f"import {module}"]
    subprocess.run(command, env={**environment, "ORT_DISABLE_TELEMETRY": "0", "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc, and only Linux forks workers")
def test_onnxruntime_starts_no_thread_when_it_is_silent() -> None:
    """Workers are forked from a process that has imported it."""
    code = (
        "import os; from serving.silence import load_onnxruntime as f; f(); print(len(os.listdir('/proc/self/task')))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy, which it imports, starts threads otherwise
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_host_is_silent_whoever_imports_a_library_there() -> None:
    assert SILENCE.items() <= sandbox.scrub_environment({"ORT_DISABLE_TELEMETRY": "0"}).items()

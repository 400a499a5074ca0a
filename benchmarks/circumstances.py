"""Where and with what a benchmark ran. Nothing that names a person, a host or a path."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("serving", "scikit-learn", "numpy", "joblib", "onnxruntime", "skl2onnx", "orjson"),
    *("fastapi", "starlette", "uvicorn", "uvloop", "pydantic"),
)


def describe() -> dict[str, Any]:
    """Return date, machine, versions, and how busy the machine was with other things. Takes two seconds."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": _from_file(Path("/proc/cpuinfo"), "model name") or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
            **({"wrk": found} if (found := _wrk_version()) else {}),
        },
        "busy_before_percent": busy_percent(),
    }


def busy_percent(seconds: float = 2.0) -> float:
    """Return how much of all cores is used over the next `seconds`: by others, while nothing of ours runs."""
    busy_before, all_before = _ticks()
    time.sleep(seconds)
    busy, total = _ticks()
    return round(100 * (busy - busy_before) / max(1, total - all_before), 1)


def _ticks() -> tuple[int, int]:
    ticks = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _from_file(path: Path, key: str) -> str | None:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _wrk_version() -> str | None:
    if shutil.which("wrk") is None:
        return None
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return said[1] if len(said) > 1 else None

"""Other Pythons for tests: interpreters that this machine has, and a real second environment for hosts."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# what the second environment has: older than what the server runs on, with other formats of pickles
REQUIREMENTS = ("scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3")
ITS_PYTHONS = ("3.11", "3.12", "3.10", "3.9")  # NumPy 1.26 has no wheels for newer ones

_PYENV = Path.home() / ".pyenv" / "versions"


def find_python(minor: str) -> str | None:
    """Return an interpreter of this version (``3.9``), from PATH or pyenv; None when this machine has none."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == minor:
        return sys.executable
    places = [shutil.which(f"python{minor}"), *sorted(map(str, _PYENV.glob(f"{minor}.*/bin/python")))]
    return next((place for place in places if place is not None and _is_python(place, minor)), None)


def _is_python(place: str, minor: str) -> bool:
    """Say whether this is such a Python and can be started: pyenv has shims for Pythons that are not chosen."""
    program = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    run = subprocess.run([place, "-c", program], capture_output=True, text=True, check=False)
    return run.returncode == 0 and run.stdout.strip() == minor


def require_python(minor: str) -> str:
    """Return an interpreter of this version; skips the test when this machine has none."""
    found = find_python(minor)
    if found is None:
        pytest.skip(f"this machine has no Python {minor}, neither on PATH nor under pyenv")
    return found


def make_environment(directory: Path, python: str, *requirements: str) -> Path:
    """Make a virtual environment from wheels, and return its interpreter; raises CalledProcessError. Takes a minute."""
    subprocess.run([python, "-m", "venv", str(directory)], check=True, capture_output=True, text=True)
    inside = directory / "bin" / "python"
    install = [str(inside), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary=:all:"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*install, *requirements], check=True, capture_output=True, text=True, env=environment)
    return inside


def share_environment(directory: Path) -> Iterator[Path]:
    """Yield the interpreter of an environment in `directory` that all workers of a run share; the last one removes it.

    The first that comes makes it, the others wait. Skips where packages cannot be downloaded, and fails instead where
    CI or SERVING_CI is set.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made, refused = directory / "made", directory / "refused"
    with (directory / "lock").open("w") as lock:
        while not made.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                _make_once(directory / "environment", made, refused)
            fcntl.flock(lock, fcntl.LOCK_SH)  # not one step: a worker that ends may come between and remove it
        yield directory / "environment" / "bin" / "python"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another worker still uses it
        made.unlink()
        shutil.rmtree(directory / "environment")


def _make_once(environment: Path, made: Path, refused: Path) -> None:
    if not refused.exists():
        python = next(filter(None, map(find_python, ITS_PYTHONS)), None)
        try:
            if python is None:
                refused.write_text(f"this machine has no Python of {', '.join(ITS_PYTHONS)}")
            else:
                make_environment(environment, python, *REQUIREMENTS)
                made.touch()
                return
        except subprocess.CalledProcessError as error:
            refused.write_text(f"no second environment could be made: {error.stderr.strip()[-500:]}")
    if os.environ.get("CI") or os.environ.get("SERVING_CI"):
        pytest.fail(refused.read_text())
    pytest.skip(refused.read_text())

"""Other Pythons for tests: interpreters that this machine has, and real environments for hosts."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.host import enter


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of: requirements, and the versions of Python that there are wheels for."""

    requirements: tuple[str, ...]
    pythons: tuple[str, ...]


# older than what the server runs on, with other formats of pickles
REQUIREMENTS = ("scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3")
# packages whose models are served in an environment that has them, and their modules
FIELD = ("imbalanced-learn==0.12.4", "category-encoders==2.6.4", "feature-engine==1.8.2", "statsmodels==0.14.6")
FIELD_MODULES = frozenset({"imblearn", "category_encoders", "feature_engine", "statsmodels"})
SECOND = Recipe(REQUIREMENTS, ("3.11", "3.12", "3.10", "3.9"))
WITH_FIELD = Recipe((*REQUIREMENTS, *FIELD), SECOND.pythons)
# the oldest of everything that hosts run on, and nothing that they can do without
OLDEST = Recipe(
    ("scikit-learn==1.0.2", "numpy==1.22.4", "scipy==1.8.1", "joblib==1.1.1", "threadpoolctl==3.1.0"), ("3.9",)
)

# what a program begins with to have the code of hosts as they have it in another environment than the server's
ENTERED = f"""
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("enter", {enter.__file__!r})
enter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(enter)
enter.register_package(os.path.dirname(os.path.dirname({enter.__file__!r})))
enter.substitute_modules()
"""

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


def make_environment(directory: Path, name: str, python: str, *requirements: str) -> None:
    """Make an environment below `directory` by the command for it; raises CalledProcessError. Takes a minute."""
    wanted = [argument for each in requirements for argument in ("--with", each)]
    command = [sys.executable, "-m", "serving", "environment", "create", name, "--no-pandas", "--python", python]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SERVING_")}
    variables = {**kept, "SERVING_ENVIRONMENTS__PATH": str(directory)}
    subprocess.run([*command, *wanted], check=True, capture_output=True, text=True, env=variables, cwd=directory)


def share_environment(directory: Path, recipe: Recipe) -> Iterator[Path]:
    """Yield the interpreter of an environment in `directory` that all workers of a run share; the last one removes it.

    The first that comes makes it, the others wait. Skips where packages cannot be downloaded, and fails instead where
    CI or SERVING_CI is set.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made, refused = directory / "made", directory / "refused"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for who makes it, and for nobody who uses it
        while not made.exists():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another worker has come at the same time
                fcntl.flock(lock, fcntl.LOCK_UN)
                time.sleep(random.uniform(0.01, 0.1))
            else:
                if not made.exists():
                    _make_once(directory / "environment", recipe, made, refused)
            fcntl.flock(lock, fcntl.LOCK_SH)  # not one step: a worker that ends may come between and remove it
        yield directory / "environment" / "bin" / "python"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another worker still uses it
        made.unlink(missing_ok=True)  # the worker that ended before this one has removed it, if they ended together
        shutil.rmtree(directory / "environment", ignore_errors=True)


def _make_once(environment: Path, recipe: Recipe, made: Path, refused: Path) -> None:
    python = next(filter(None, map(find_python, recipe.pythons)), None)
    if python is None:
        pytest.skip(f"this machine has no Python of {', '.join(recipe.pythons)}")
    if not refused.exists():
        try:
            make_environment(environment.parent, environment.name, python, *recipe.requirements)
            made.touch()
            return
        except subprocess.CalledProcessError as error:
            refused.write_text(f"no second environment could be made: {error.stderr.strip()[-500:]}")
    if os.environ.get("CI") or os.environ.get("SERVING_CI"):
        pytest.fail(refused.read_text())
    pytest.skip(refused.read_text())

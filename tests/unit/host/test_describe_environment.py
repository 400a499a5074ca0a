"""The program that describes an environment runs on every Python, and imports nothing that is installed there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from serving.host import describe_environment
from tests.environments import require_python


def describe(python: str) -> dict[str, Any]:
    program = str(Path(describe_environment.__file__))
    return json.loads(subprocess.run([python, "-I", program], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("minor", ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_a_supported_python_describes_itself(minor: str) -> None:
    found = describe(require_python(minor))
    assert found["python_version"].startswith(f"{minor}.")
    assert {"sys", "json", "pickle", "_ctypes"} <= set(found["modules"])


@pytest.mark.parametrize("minor", ["3.7", "3.8"])
def test_an_older_python_says_that_it_is_too_old(minor: str) -> None:
    found = describe(require_python(minor))
    assert found["problem"] == f"it is Python {found['python_version']}; 3.9 is the oldest that hosts can run with"


def test_it_finds_what_is_installed_here() -> None:
    found = describe(sys.executable)
    assert found["libraries"]["scikit-learn"] == metadata.version("scikit-learn")
    assert {"sklearn", "numpy", "threadpoolctl"} <= set(found["modules"])
    assert found["problem"] is None


def test_it_imports_only_the_standard_library() -> None:
    program = str(Path(describe_environment.__file__))
    code = f"import runpy, sys; runpy.run_path({program!r}, run_name='__main__'); print(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True)
    modules = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert modules - sys.stdlib_module_names <= {"__main__", "__editable__", "_virtualenv", "_distutils_hack"}

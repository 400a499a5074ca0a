"""Describes an interpreter by running a small program with it once; imports none of its packages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import serving
from serving import sandbox
from serving.domain.environment import OWN, Environment
from serving.domain.pinned_versions import normalize_name
from serving.domain.text import one_line
from serving.environments.known_distributions import SAME_AS

DESCRIBE_SECONDS = 30.0

_PROGRAM = Path(serving.__file__).parent / "host" / "describe_environment.py"
_MAX_BYTES = 4 << 20


class _Description(BaseModel):
    """What the program prints."""

    model_config = ConfigDict(extra="forbid", strict=True)

    python_version: str
    libraries: dict[str, str]
    modules: list[str]
    problem: str | None


def describe_environment(name: str, python: Path, stamp: str = "") -> Environment:
    """Return the environment of an interpreter, with its problem if no host can run there.

    Never raises for what the interpreter is or does. Blocks until it has ended: 0.2 s as a rule, at most
    DESCRIBE_SECONDS. Any thread.
    """
    path = str(python.absolute())
    found = _run_program(path)
    if isinstance(found, str):
        return Environment(name, path, "", {}, frozenset(), one_line(found), stamp)
    return Environment(
        name=name,
        python=path,
        python_version=one_line(found.python_version),
        libraries=_add_aliases(found.libraries),
        modules=frozenset(found.modules),
        problem=None if found.problem is None else one_line(f"{path}: {found.problem}"),
        stamp=stamp,
    )


def describe_own() -> Environment:
    """Return the environment of this process, without its modules. Blocks while it reads a file for each package."""
    found: dict[str, str] = {}
    for each in metadata.distributions():
        name, version = each.metadata["Name"], each.metadata["Version"]
        if name and version:
            found.setdefault(normalize_name(name), version)
    return Environment(OWN, sys.executable, platform.python_version(), _add_aliases(found), frozenset())


def _add_aliases(libraries: Mapping[str, str]) -> dict[str, str]:
    aliases = {SAME_AS[name]: version for name, version in libraries.items() if name in SAME_AS}
    return {**aliases, **libraries}


def _run_program(python: str) -> _Description | str:
    """Return the description, or what went wrong."""
    try:
        done = subprocess.run(
            [python, "-I", "-B", str(_PROGRAM)],
            env=sandbox.scrub_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DESCRIBE_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return f"{python} does not exist"
    except subprocess.TimeoutExpired:
        return f"{python} did not describe itself within {DESCRIBE_SECONDS:.0f} s"
    except OSError as error:
        return f"{python} cannot be run: {error.strerror}"
    if done.returncode or len(done.stdout) > _MAX_BYTES:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"{python} cannot be run (status {done.returncode}): {''.join(last) or 'it said nothing'}"
    try:
        return _Description.model_validate_json(done.stdout)
    except ValidationError:
        return f"{python} is no Python: it printed something else than its description"

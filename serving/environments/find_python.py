"""Finds the Pythons of this machine, and chooses the one that an environment is made with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.domain.environment import SKLEARN, to_minor
from serving.domain.errors import EnvironmentRefused
from serving.environments.plan_requirements import read_release

LOOK_SECONDS = 20.0
# for each Python: the first version that has wheels for it, and the first that has none any more; as of 2026-11-29
_WHEELS: dict[str, dict[str, tuple[str, str | None]]] = {
    "3.9": {SKLEARN: ("1.0", "1.7"), "numpy": ("1.19.3", "2.1"), "scipy": ("1.5.4", "1.14"), "pandas": ("1.1.3", "3")},
    "3.10": {
        SKLEARN: ("1.0.2", "1.8"),
        "numpy": ("1.21.2", "2.3"),
        "scipy": ("1.7.2", "1.16"),
        "pandas": ("1.3.3", "3"),
    },
    "3.11": {SKLEARN: ("1.1.3", None), "numpy": ("1.23.2", "2.5"), "scipy": ("1.9.2", "1.18"), "pandas": ("1.5", None)},
    "3.12": {SKLEARN: ("1.3.1", None), "numpy": ("1.26", None), "scipy": ("1.11.2", None), "pandas": ("2.1.1", None)},
    "3.13": {SKLEARN: ("1.5.2", None), "numpy": ("2.1", None), "scipy": ("1.14.1", None), "pandas": ("2.2.3", None)},
    "3.14": {SKLEARN: ("1.7.2", None), "numpy": ("2.3.2", None), "scipy": ("1.16.1", None), "pandas": ("2.3.3", None)},
}
_PROGRAM = "import json, sys; print(json.dumps(['%d.%d.%d' % sys.version_info[:3], sys.executable]))"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can be started: its path, and its version like ``3.10.13``."""

    path: str
    version: str

    def __str__(self) -> str:
        return f"Python {self.version} ({self.path})"


def list_interpreters(uv: str | None) -> list[Interpreter]:
    """Return one interpreter for each minor version that hosts run with, newest first: PATH, then pyenv, then uv's.

    Blocks while each that is found is started once, to see that it can be.
    """
    found: dict[str, Interpreter] = {}
    for minor in _WHEELS:
        for path in _list_places(minor, uv):
            interpreter = look_up(path)
            if interpreter is not None and to_minor(interpreter.version) == minor:
                found[minor] = interpreter
                break
    return sorted(found.values(), key=lambda each: read_release(each.version), reverse=True)


def look_up(python: str) -> Interpreter | None:
    """Return the interpreter at a path or of a name on PATH; None when it cannot be started."""
    path = shutil.which(python)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROGRAM],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOK_SECONDS,
            check=True,
        )
        version, executable = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(executable, version)


def find_requested(python: str, found: Iterable[Interpreter]) -> Interpreter:
    """Return what the operator asked for: a version like ``3.10``, a path or a name; raises EnvironmentRefused."""
    if python in _WHEELS:
        for each in found:
            if to_minor(each.version) == python:
                return each
        raise EnvironmentRefused(f"there is no Python {python} here: {_say_found(found)}; install it, or name its path")
    interpreter = look_up(python)
    if interpreter is None:
        raise EnvironmentRefused(f"'{python}' is no Python that can be started; give a path, or a version such as 3.11")
    return interpreter


def choose_interpreter(
    found: Iterable[Interpreter], trained_with: str | None, pins: Mapping[str, str]
) -> tuple[Interpreter, str]:
    """Return the Python for a model, and why: its own minor version, else the newest that has wheels for its pins.

    `trained_with` is the Python it was trained with, None where that is not known; `pins` are the exact versions that
    will be installed, by distribution. Raises EnvironmentRefused when there is none, saying which would do.
    """
    own = None if trained_with is None else to_minor(trained_with)
    usable = [each for each in found if has_wheels(each.version, pins)]
    for each in usable:
        if to_minor(each.version) == own:
            return each, f"the model was trained with Python {trained_with}"
    what = ", ".join(f"{name} {pins[name]}" for name in _WHEELS["3.9"] if name in pins) or SKLEARN
    if usable:
        why = f"the newest here that has wheels of {what}"
        return usable[0], why if own is None else f"{why}; the model was trained with {trained_with}"
    minors = list_minors(pins)
    if not minors:
        raise EnvironmentRefused(
            f"no Python has wheels of {what} together; replace one of them: --with 'NAME>=VERSION'"
        )
    wanted = " or ".join(filter(None, (", ".join(minors[:-1]), minors[-1])))
    raise EnvironmentRefused(
        f"{what} needs Python {wanted}, which is not on PATH, under pyenv or of uv ({_say_found(found)}); "
        "install it, name it with --python, or let uv fetch it with --python-download"
    )


def list_minors(pins: Mapping[str, str]) -> list[str]:
    """Return the minor versions of Python that there are wheels of these versions for, oldest first."""
    return [minor for minor in _WHEELS if has_wheels(minor, pins)]


def has_wheels(python: str, pins: Mapping[str, str]) -> bool:
    """Say whether a Python is known, and there are wheels of these versions for it, as far as that is known."""
    known = _WHEELS.get(to_minor(python))
    if known is None:
        return False
    for name, (first, end) in known.items():
        release = read_release(pins[name]) if name in pins else None
        if release is not None and not (
            read_release(first) <= release and (end is None or release < read_release(end))
        ):
            return False
    return True


def _list_places(minor: str, uv: str | None) -> Iterator[str]:
    """Yield paths where a Python of this minor version may be; the one that the server runs on comes first."""
    yield str(Path(sys.base_prefix) / "bin" / f"python{minor}")
    if (on_path := shutil.which(f"python{minor}")) is not None:
        yield on_path
    pyenv = Path.home() / ".pyenv" / "versions"
    yield from map(str, sorted(pyenv.glob(f"{minor}.*/bin/python{minor}"), reverse=True))
    if uv is not None:
        yield from map(str, sorted(_find_uv_pythons(uv).glob(f"cpython-{minor}.*/bin/python{minor}"), reverse=True))


def _find_uv_pythons(uv: str) -> Path:
    try:
        done = subprocess.run([uv, "python", "dir"], capture_output=True, text=True, timeout=LOOK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return Path(os.devnull)
    return Path(done.stdout.strip())


def _say_found(found: Iterable[Interpreter]) -> str:
    versions = ", ".join(each.version for each in found)
    return f"found {versions}" if versions else "found none"

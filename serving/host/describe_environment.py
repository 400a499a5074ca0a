"""Describes the Python that runs it, as JSON on standard output: its packages, its modules, and what it lacks.

A program of its own: the server runs it as ``PYTHON -I describe_environment.py`` with the interpreter of another
environment. It uses the standard library of Python 3.9 only, runs on 3.7, and imports no installed package.
"""

from __future__ import annotations

import json
import pkgutil
import platform
import re
import sys

OLDEST_PYTHON = (3, 9)
OLDEST_SKLEARN = (1, 0)
OLDEST_NUMPY = (1, 22)


def main() -> None:
    """Write the description to standard output."""
    problem = _find_python_problem()
    libraries: dict[str, str] = {}
    modules: list[str] = []
    if problem is None:
        libraries, modules = list_distributions(), sorted(list_modules())
        problem = find_problem(libraries)
    version = platform.python_version()
    json.dump({"python_version": version, "libraries": libraries, "modules": modules, "problem": problem}, sys.stdout)


def list_distributions() -> dict[str, str]:
    """Return the installed distributions with their versions, by their normalised names (``scikit-learn``)."""
    from importlib.metadata import distributions  # noqa: PLC0415  (Python 3.7 has none)

    found: dict[str, str] = {}
    for each in distributions():
        name, version = each.metadata["Name"], each.metadata["Version"]
        if name and version:  # a directory that a removal has left behind has neither
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def list_modules() -> set[str]:
    """Return the top-level modules that can be imported, those of the standard library included."""
    from importlib.metadata import distributions  # noqa: PLC0415  (Python 3.7 has none)

    found = {*sys.builtin_module_names, *getattr(sys, "stdlib_module_names", ())}
    found.update(each.name for each in pkgutil.iter_modules())
    for each in distributions():  # namespace packages, and packages that are installed as links to their sources
        found.update((each.read_text("top_level.txt") or "").split())
    return {name for name in found if name.isidentifier()}


def find_problem(libraries: dict[str, str]) -> str | None:
    """Say in one line why no host can run with these packages; None when one can."""
    for name, oldest in (("scikit-learn", OLDEST_SKLEARN), ("numpy", OLDEST_NUMPY)):
        version = libraries.get(name)
        if version is None:
            return f"{name} is not installed there"
        if _read_release(version) < oldest:
            return f"it has {name} {version}; {'.'.join(map(str, oldest))} is the oldest that hosts can run with"
    return None


def _find_python_problem() -> str | None:
    if sys.implementation.name != "cpython":
        return f"it is {platform.python_implementation()}; hosts run with CPython only"
    if sys.version_info < OLDEST_PYTHON:
        return f"it is Python {platform.python_version()}; 3.9 is the oldest that hosts can run with"
    return None


def _read_release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


if __name__ == "__main__":
    main()

"""One name stands for one thing in the whole package: no two modules and no two public classes are called the same."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import serving

PACKAGE = Path(serving.__file__).parent
MODULES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
IN_THE_INTERFACE = {"History"}  # of ``GET /history``, beside what keeps it


def test_every_module_has_a_file_name_of_its_own() -> None:
    names = [path.name for path in MODULES]
    assert {name for name in names if names.count(name) > 1} == set()


def test_every_public_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name for name, where in places.items() if len(where) > 1} <= IN_THE_INTERFACE, places

"""The code of hosts in real other Pythons, of each version that this machine has: what they lack is added."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving.domain.signature import Feature, Signature
from serving.host import enter
from tests.environments import ENTERED, require_python

PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13"]


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return require_python(request.param)


def run(python: str, program: str, *, cwd: Path) -> Any:
    """Run a program in a bare Python: without any package but its own. Return what it prints as JSON."""
    command = [python, "-I", "-S", "-B", "-W", "error", "-c", ENTERED + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ADDITIONS = """
import datetime, enum, itertools, types, typing, warnings
from dataclasses import dataclass, field
from enum import StrEnum

class Colour(StrEnum):
    RED = "red"
    PALE_BLUE = enum.auto()

@dataclass(frozen=True, slots=True)
class Point:
    x: int
    more: list = field(default_factory=list)

class Child(Point):
    pass

class Cells:  # compares element by element, as an array does
    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("ambiguous")

def refuse(call):
    try:
        call()
    except ValueError as error:
        return type(error).__name__
    return None

with warnings.catch_warnings(action="ignore"):
    warnings.warn("unseen")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.warn("seen")
print(json.dumps([
    [str(Colour.RED), f"{Colour.RED:>5}", Colour.PALE_BLUE, Colour("red") is Colour.RED, json.dumps([Colour.RED])],
    [Point(1) == Point(1), Point(1).more, Child(2).x],
    [list(zip("ab", "cd", strict=True)), list(zip("ab", "c")), list(zip()), isinstance(zip([1]), zip)],
    len(list(zip([Cells()], [1], strict=True))),
    [refuse(lambda: list(zip("ab", "c", strict=True))), refuse(lambda: list(zip("a", "bc", strict=True)))],
    list(itertools.pairwise("abc")),
    [isinstance(None, types.NoneType), str(datetime.UTC), len(caught)],
    ["json" in sys.stdlib_module_names, "sys" in sys.stdlib_module_names, "numpy" in sys.stdlib_module_names],
]))
"""


def test_it_has_what_newer_pythons_brought(python: str, tmp_path: Path) -> None:
    assert run(python, ADDITIONS, cwd=tmp_path) == [
        ["red", "  red", "pale_blue", True, '["red"]'],
        [True, [], 2],
        [[["a", "c"], ["b", "d"]], [["a", "c"]], [], True],
        1,
        ["ValueError", "ValueError"],
        [["a", "b"], ["b", "c"]],
        [True, "UTC", 1],
        [True, True, False],
    ]


VALUES = """
from serving.domain.signature import Signature
from serving.domain.report import CandidateReport
import serving.domain.manifest, serving.domain.provenance, serving.sandbox, serving.host.substitutes
signature = Signature.model_validate_json({raw!r})
print(json.dumps([signature.model_dump(mode="json"), [type(label).__name__ for label in signature.classes[0]],
    [name for name in ("pydantic", "orjson", "numpy") if name in sys.modules]]))
"""


def test_values_go_there_and_come_back(python: str, tmp_path: Path) -> None:
    signature = Signature(
        features=(Feature(name="ключ"),), methods=("predict",), classes=((1, 1.5, True, "x", None),), outputs=3
    )
    dumped, labels, foreign = run(python, VALUES.format(raw=signature.model_dump_json()), cwd=tmp_path)
    assert Signature.model_validate(dumped) == signature
    assert labels == ["int", "float", "bool", "str", "NoneType"]
    assert foreign == []


def test_a_python_that_is_too_old_is_told_so() -> None:
    python = require_python("3.8")
    done = subprocess.run([python, "-I", "-B", enter.__file__, "0", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hosts need Python 3.9 or newer" in done.stderr
    assert "Traceback" not in done.stderr


NEIGHBOURS = """
import importlib
def find(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
names = ("fastapi", "pydantic", "tests", "benchmarks", "serving.wire.zygote_messages")
print(json.dumps([find(name) for name in names]))
"""


def test_nothing_beside_the_package_can_be_imported(python: str, tmp_path: Path) -> None:
    """In a checkout, tests and benchmarks lie beside it; where it is installed, all packages of the server do."""
    assert run(python, NEIGHBOURS, cwd=tmp_path) == [False, False, False, False, True]

"""The tools that make allow-lists: two lists become one, and an old scikit-learn makes the models that it can."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.cluster import KMeans

from benchmarks.function_homes import add_homes
from benchmarks.lenient_import import import_leniently
from benchmarks.list_union import unite_lists
from benchmarks.older_declarations import find_declared_texts, list_values

SOURCE = """
from math import pi, no_such_number

def make(factor):
    yield pi
    yield no_such_number * factor
    for each in (1, "one", 2):
        made = 10 / each
        yield made
    with open("no such file") as file:
        yield file
    try:
        raise KeyError
    except KeyError:
        yield "last"
"""


def make_list(*, called: dict[str, list[str]], classes: dict[str, Any], groups: dict[str, list[str]]) -> dict[str, Any]:
    schema = {
        "groups": {"scorers": [], "metric": [], **groups},
        "classes": classes,
        "labels": [],
        "made": [],
        "names": [],
    }
    return {"called": called, "created": ["sklearn.a.A"], "values": ["numpy.float64"], "schema": schema}


def test_statements_that_fail_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made_leniently").mkdir()
    (tmp_path / "made_leniently" / "__init__.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    made = import_leniently("made_leniently")
    found = list(made.make(2))
    assert found[0] == pytest.approx(3.14159, abs=1e-4)
    assert found[1:] == [10.0, 10.0, 5.0, "last"]
    said = capsys.readouterr().err
    for line, error in ((2, "ImportError"), (6, "NameError"), (8, "TypeError"), (10, "FileNotFoundError")):
        assert f"left out: made_leniently:{line}: {error}" in said


def test_two_lists_allow_what_either_allows() -> None:
    one = make_list(
        called={"sklearn.f": ["sklearn.a.A"]},
        classes={
            "sklearn.a.A": {"loss": ["'hinge'", "array"], "names": ["'x'", "array"], "inner": ["array"]},
            "sklearn.b.B": {"metric": ["'l1'", "array"]},
        },
        groups={},
    )
    other = make_list(
        called={"sklearn.f": ["sklearn.b.B"], "sklearn.g": []},
        classes={
            "sklearn.a.A": {"loss": ["'log'", "array"], "names": ["array", "text"], "inner": ["class:sklearn.b.B"]}
        },
        groups={},
    )
    united = unite_lists(one, other)
    assert united["called"] == {"sklearn.f": ["sklearn.a.A", "sklearn.b.B"], "sklearn.g": []}
    assert united["schema"]["classes"]["sklearn.a.A"] == {
        "inner": ["class:sklearn.b.B"],  # no array where a list has an object
        "loss": ["'hinge'", "'log'", "array"],
        "names": ["array", "text"],
    }


def test_a_ufunc_is_listed_under_each_of_its_homes() -> None:
    document = make_list(
        called={},
        classes={"sklearn.a.A": {"func": ["global:numpy.log1p"], "other": ["global:numpy.mean"]}},
        groups={"func": ["global:scipy.special._ufuncs.expit"]},
    )
    document["values"] = ["numpy.log1p", "numpy.mean"]
    found = add_homes(document)
    assert found["values"] == ["numpy._core._multiarray_umath.log1p", "numpy.log1p", "numpy.mean"]
    assert found["schema"]["classes"]["sklearn.a.A"]["other"] == ["global:numpy.mean"]
    assert "global:numpy._core._multiarray_umath.log1p" in found["schema"]["classes"]["sklearn.a.A"]["func"]
    assert "global:scipy.special._special_ufuncs.expit" in found["schema"]["groups"]["func"]


def test_options_before_they_were_declared_come_from_the_docstring_and_from_the_list_of_1_2() -> None:
    assert {"lloyd", "elkan", "auto", "full"} <= find_declared_texts(KMeans)["algorithm"]
    values = list_values(KMeans)
    assert ("init", "random") in values
    assert ("copy_x", False) in values

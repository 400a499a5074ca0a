"""The survey of a file finds what an unpickler would: names, versions, and what stands after arrays."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from serving.host.restricted import survey_file
from serving.host.restricted.allow_list import Global, find_current_name
from serving.host.restricted.opcodes import survey_opcodes
from serving.host.restricted.piecewise_file import LONGEST_KEPT_BYTES, PiecewiseFile
from serving.host.restricted.stack_machine import _FOLLOW
from tests.unit.host.candidates import ROWS, WORDS

MODELS = [
    RandomForestClassifier(3).fit(ROWS, WORDS),
    HistGradientBoostingRegressor(max_iter=3).fit(ROWS, ROWS[:, 0]),
    GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1.0, 2.0]}, cv=2).fit(ROWS, WORDS),
    make_column_transformer((OneHotEncoder(), [0]), (StandardScaler(), [1, 2])).fit(ROWS),
    CountVectorizer().fit([" ".join(f"word{number}" for number in range(2000))]),
    [OrderedDict(a=1), defaultdict(list, b=[2]), Fraction(1, 2), {3}, frozenset({4}), 2**80, b"5", "\ud800", 1.5],
    np.random.RandomState(1),
    np.array([Fraction(1, 2), None], dtype=object),
    np.zeros(2, [("a", "f8"), ("b", "O")]),
]


class NameCollector(pickle.Unpickler):
    """Python's own unpickler; notes what it looks up."""

    found: list[Global]

    def find_class(self, module: str, name: str) -> Any:
        self.found.append((module, name))
        return super().find_class(module, name)


class Slow(io.BytesIO):
    """A file that gives three bytes at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(min(size or 0, 3))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_the_names_are_those_that_pickle_looks_up(model: Any, protocol: int) -> None:
    raw = pickle.dumps(model, protocol)
    reader = NameCollector(io.BytesIO(raw))
    reader.found = []
    reader.load()
    survey = survey_opcodes(io.BytesIO(raw))
    assert survey.is_whole
    assert set(survey.names) == {find_current_name(*name, protocol) for name in reader.found}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_files_of_joblib_are_followed_past_their_arrays(tmp_path: Path, model: Any, protocol: int) -> None:
    joblib.dump([model, Fraction(1, 3)], tmp_path / "model", protocol=protocol)
    survey = survey_file(str(tmp_path / "model"))
    assert survey.is_whole
    assert ("fractions", "Fraction") in survey.names


def test_every_opcode_of_pickle_is_known() -> None:
    assert _FOLLOW.keys() | {ord(".")} == {ord(opcode.code) for opcode in pickletools.opcodes}


def test_the_outermost_class_is_known() -> None:
    assert survey_opcodes(io.BytesIO(pickle.dumps(MODELS[2]))).outermost == (
        "sklearn.model_selection._search",
        "GridSearchCV",
    )
    assert survey_opcodes(io.BytesIO(pickle.dumps([1]))).outermost is None


def test_reading_is_the_same_in_pieces_of_any_size() -> None:
    """Numbers, lines and long contents may lie across the ends of the pieces that a file gives."""

    for protocol in (0, 2, 4):
        raw = pickle.dumps([Fraction(1, 2), "a" * 5000, b"b" * 5000, MODELS[0]], protocol)
        assert survey_opcodes(Slow(raw)) == survey_opcodes(io.BytesIO(raw))


def test_the_version_of_catboost_is_found_in_the_middle_of_a_model() -> None:
    """It stands behind the parameters, and before the trees."""
    content = b"CBM1" + bytes(5000) + b"Git info:\n    Branch: tags/v1.2.7\n" + bytes(5000)
    for file in (Slow, io.BytesIO):
        assert survey_opcodes(file(pickle.dumps([content, 1], 4))).catboost_version == "1.2.7"
    assert survey_opcodes(io.BytesIO(pickle.dumps(content[4:], 4))).catboost_version is None


def test_a_mark_can_be_taken_off_the_stack() -> None:
    survey = survey_opcodes(io.BytesIO(b"\x80\x04(0N(K\x01K\x0200(N1cfractions\nFraction\n."))
    assert survey.is_whole
    assert survey.names == [("fractions", "Fraction")]


def test_of_a_long_content_both_ends_are_kept() -> None:
    raw = bytes(range(256)) * 100
    source = PiecewiseFile(io.BytesIO(raw + b"next"))
    kept = source.take_ends(len(raw))
    assert len(kept) == LONGEST_KEPT_BYTES
    assert raw.startswith(kept[:800])
    assert raw.endswith(kept[800:])
    assert source.take(4) == b"next"
    with pytest.raises(EOFError):
        source.take(1)

"""Objects of pandas in models are read as their values; forged ones are refused, and no object of pandas is made."""

from __future__ import annotations

import io
import itertools
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from serving.host.restricted import Distrusted, check_loaded, explain_names, load_restricted
from serving.host.restricted.allow_list import read_allow_list
from serving.host.restricted.opcodes import survey_opcodes
from serving.host.restricted.reading import BudgetedFile
from serving.host.restricted.unpickler import RestrictedUnpickler
from tests.hostile.opcodes import Fragment, array, built, call, dtype, instance, named, value, whole
from tests.hostile.pandas_lies import TEXTS, arrow, index, lies, offsets, texts, whole_ones
from tests.sound import Fitted, tables
from tests.unit.host.restricted.test_skops_file import answers

NUMBERS = pd.DataFrame({"age": [1.0, 2.0, 3.0], "income": [3.0, 1.0, 2.0]})
COLUMNS = "sklearn.compose._column_transformer:ColumnTransformer"


def read(raw: bytes) -> Any:
    source = BudgetedFile(io.BytesIO(raw), len(raw), is_compressed=False)
    with warnings.catch_warnings(action="ignore"):  # estimators made here do not say which version wrote them
        found = RestrictedUnpickler("", source, read_allow_list()).load()
    check_loaded(found)
    return found


def test_models_with_columns_of_pandas_give_the_same_answers(tmp_path: Path) -> None:
    assert_all_load(itertools.islice(tables(), 100), tmp_path / "model", least=100)


@pytest.mark.soak
def test_every_model_with_pandas_objects_gives_the_same_answers(tmp_path: Path) -> None:
    assert_all_load(tables(), tmp_path / "model", least=400)


def assert_all_load(models: Iterator[Fitted], path: Path, least: int) -> None:
    loaded, different = 0, []
    for number, fitted in enumerate(models):
        if number % 2:
            joblib.dump(fitted.estimator, path)
        else:
            path.write_bytes(pickle.dumps(fitted.estimator, 2 + number // 2 % 4))
        found = load_restricted(str(path))
        check_loaded(found)
        loaded += 1
        if answers(found, fitted) != answers(fitted.estimator, fitted):
            different.append(str(fitted))
    assert different == []
    assert loaded >= least


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("held", "found"),
    [
        (NUMBERS.columns, ["age", "income"]),
        (pd.Index(["age", None], dtype=object), ["age", None]),
        (pd.Index(["a", "bc", None, "é"], dtype="str")[1:], ["bc", np.nan, "é"]),
        (pd.Index(["a"], dtype=pd.StringDtype("python")), ["a"]),
        (pd.Index([1, 2], dtype="uint8"), [1, 2]),
        (pd.Index([True, False]), [True, False]),
        (pd.RangeIndex(1, 7, 3), [1, 4]),
        (pd.CategoricalIndex(["b", None, "a"]), ["b", np.nan, "a"]),
        (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), [("a", 1), ("b", 2)]),
        (pd.DatetimeIndex(["2026-01-02"]), [np.datetime64("2026-01-02")]),
        (pd.TimedeltaIndex([pd.Timedelta(1, "D")]), [np.timedelta64(1, "D")]),
        (pd.array([1, None], dtype="Int64"), [1, pd.NA]),
        (pd.array([1, 2], dtype="UInt8"), [1, 2]),
        (pd.array([0.5, None], dtype="Float32"), [0.5, pd.NA]),
        (pd.array([True, None], dtype="boolean"), [True, pd.NA]),
        (pd.Categorical([3, 1]), [3, 1]),
        (pd.Series([1.5, 2.5], index=["x", "y"], name="z"), [1.5, 2.5]),
        (pd.Series(["age", "income"]), ["age", "income"]),
        (NUMBERS.dtypes == np.float64, [True, True]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_column_is_read_as_an_array_of_its_values(held: Any, found: list[Any], protocol: int) -> None:
    twice = read(pickle.dumps([held, held], protocol))
    assert type(twice[0]) is np.ndarray
    assert twice[0] is twice[1]
    expected = np.empty(len(found), dtype=object)
    expected[:] = found
    assert len(twice[0]) == len(expected)
    for one, other in zip(list(twice[0]), found, strict=True):
        assert one is other or one == other or (pd.isna(one) and pd.isna(other))


@pytest.mark.parametrize("single", [pd.NA, pd.NaT, pd.Timestamp("2026-01-02 03:04:05.6"), pd.Timedelta(1, "s")])
def test_single_values_keep_their_type(single: Any) -> None:
    found = read(pickle.dumps(single))
    assert type(found) is type(single)
    assert found is single or found == single


def test_arrays_have_the_dtype_of_the_column() -> None:
    for held in (
        pd.Index([1], dtype="int8"),
        pd.DatetimeIndex(["2026-01-02"]).as_unit("s"),
        pd.Series([1.5], dtype="f4"),
    ):
        assert read(pickle.dumps(held)).dtype == held.dtype


def test_columns_and_categories_of_one_model_are_read() -> None:
    encoder = OneHotEncoder(categories=[pd.Index(["b", "a"])])
    rows = NUMBERS.assign(city=["a", "b", "a"])
    model = ColumnTransformer([("n", StandardScaler(), NUMBERS.columns), ("c", encoder, pd.Index(["city"]))]).fit(rows)
    found = read(pickle.dumps(model))
    assert found.transformers[0][2] is found.transformers_[0][2]
    assert np.array_equal(found.transform(rows), model.transform(rows))
    assert np.array_equal(found.transform(rows)[:, 2:], [[0, 1], [1, 0], [0, 1]])


@pytest.mark.parametrize("name", whole_ones())
def test_a_sound_column_is_read(name: str) -> None:
    assert type(read(whole(whole_ones()[name]))) is np.ndarray


@pytest.mark.parametrize("name", lies())
def test_a_lie_is_refused(name: str) -> None:
    columns = built(instance(named(COLUMNS)), {"transformers": [("a", "drop", Fragment(lies()[name]))]})
    for fragment in (lies()[name], columns):
        with pytest.raises(Distrusted, match="the file "):
            read(whole(fragment))


@pytest.mark.parametrize(
    "left",
    [
        instance(named("pandas:Series")),
        instance(named("pandas.arrays:ArrowStringArray")),
        named("pandas:Index"),
        named("pandas.core.indexes.base:_new_Index"),
        call(named("pandas:StringDtype"), "python"),
        call(named("pyarrow.lib:type_for_alias"), "string"),
        built(instance(named("pandas:CategoricalDtype")), {"categories": index(TEXTS), "ordered": False}),
    ],
)
def test_a_part_without_values_is_refused(left: Fragment) -> None:
    for place in (left, built(instance(named(COLUMNS)), {"transformers": [("a", "drop", left)], "note": left})):
        with pytest.raises(Distrusted, match=r"the file (holds|has)"):
            read(whole(place))


def test_a_column_is_checked_as_its_values() -> None:
    """An array of texts in the place of a method's name is checked as these texts."""
    stack = "sklearn.ensemble._stacking:StackingClassifier"
    with pytest.raises(Distrusted, match=r"'fit' in StackingClassifier\.stack_method_"):
        read(whole(built(instance(named(stack)), {"stack_method_": index(array(dtype("O"), (1,), ["fit"]))})))


def test_the_size_of_all_columns_is_limited() -> None:
    """A few bytes that a file repeats many times would become any amount of memory."""
    text = texts(arrow(offsets(0, 1 << 20), b"a" * (1 << 20)))
    with pytest.raises(Distrusted, match="larger columns of pandas than any model"):
        read(whole(value([text] * 40)))


def test_known_names_of_pandas_are_not_refused() -> None:
    raw = pickle.dumps([NUMBERS.columns, NUMBERS.dtypes, pd.NA, StandardScaler()], 4)
    survey = survey_opcodes(io.BytesIO(raw))
    assert survey.is_whole
    assert explain_names(survey) is None
    told = explain_names(survey_opcodes(io.BytesIO(pickle.dumps(NUMBERS, 4))))
    assert told is not None
    assert "pandas.DataFrame" in told

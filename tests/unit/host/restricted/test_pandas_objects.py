"""Classes that the operator trusts get real objects of pandas; all other classes get arrays, and no tables."""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import (
    assert_extension_array_equal,
    assert_frame_equal,
    assert_index_equal,
    assert_series_equal,
)
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

from serving.host.restricted import Distrusted, Unlisted, check_loaded, explain_names
from serving.host.restricted.allow_list import read_allow_list
from serving.host.restricted.opcodes import survey_opcodes
from serving.host.restricted.reading import BudgetedFile
from serving.host.restricted.unpickler import RestrictedUnpickler
from tests.hostile.opcodes import Fragment, again, array, built, call, dtype, instance, named, noted, value, whole
from tests.hostile.pandas_lies import NUMBERS, TEXTS, index, lies, lies_of_objects, series, table, whole_table

TABLE = pd.DataFrame({"n": [1, 2], "t": ["x", "y"], "f": [0.5, 2.0], "c": pd.Categorical(["b", "a"])})


class Holder:
    """A class of the user's own, which holds what it is given."""

    held: Any


def make_holder(held: Any) -> Holder:
    """Make one by a call."""
    holder = Holder()
    holder.held = held
    return holder


TRUSTED = (f"{__name__}.Holder", f"{__name__}.make_holder")
HOLDER = named(f"{__name__}:Holder")
COLUMNS = named("sklearn.compose._column_transformer:ColumnTransformer")


def read(raw: bytes, trusted: tuple[str, ...] = TRUSTED) -> Any:
    source = BudgetedFile(io.BytesIO(raw), len(raw), is_compressed=False)
    with warnings.catch_warnings(action="ignore"):  # estimators made here do not say which version wrote them
        found = RestrictedUnpickler("", source, read_allow_list().with_trusted(trusted)).load()
    check_loaded(found, trusted)
    return found


def assert_same(found: Any, held: Any) -> None:
    """Compare two objects of pandas in all that they are."""
    assert type(found) is type(held)
    if isinstance(held, pd.DataFrame):
        assert_frame_equal(found, held)
    elif isinstance(held, pd.Series):
        assert_series_equal(found, held)
    elif isinstance(held, pd.Index):
        assert_index_equal(found, held, exact=True)
    elif isinstance(held, pd.api.extensions.ExtensionArray):
        assert_extension_array_equal(found, held)
    else:
        assert found == held


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "held",
    [
        pd.Series([1, 2], index=["x", np.nan], name="n"),
        pd.Series(["a", None]),
        pd.Series(["a", 1], dtype=object, name=("x", 1)),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([0.5, None], dtype="Float32"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(["a", None], dtype=pd.StringDtype("python")),
        pd.Series(pd.Categorical(["b", None, "a"], ordered=True)),
        pd.Series(pd.to_datetime(["2026-01-02", None])),
        pd.Series([1.5, -2.0], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", "l"])),
        pd.RangeIndex(1, 7, 3, name="r"),
        pd.Index(["a", "b"], name="columns"),
        pd.Index(["a", None], dtype=object),
        pd.Index([1, 2], dtype="uint8"),
        pd.CategoricalIndex(["b", "a"]),
        pd.DatetimeIndex(["2026-01-02"]),
        pd.TimedeltaIndex([pd.Timedelta(1, "D")]),
        pd.Categorical(["a", "b"]),
        pd.array([1, None], dtype="Int8"),
        pd.StringDtype("python"),
        pd.Int64Dtype(),
        pd.CategoricalDtype(["a", "b"], ordered=True),
        TABLE,
        TABLE.T,
        TABLE[["f", "n"]].set_index("n"),
        pd.DataFrame(np.arange(6).reshape(2, 3), columns=["a", "a", "b"], index=["x", "x"]),
        pd.DataFrame({1: [1], -1: [0.5]}),
        pd.DataFrame({"m": pd.array([1, None], dtype="Int64"), "s": pd.array(["a", None], dtype="string")}),
        pd.DataFrame(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_trusted_class_gets_what_it_was_saved_with(held: Any, protocol: int) -> None:
    holder = make_holder({"mapping": [held, (held,)]})
    first, (second,) = read(pickle.dumps(holder, protocol)).held["mapping"]
    assert_same(first, held)
    assert_same(second, held)


def test_the_arguments_of_a_trusted_call_are_real() -> None:
    found = read(whole(call(named(f"{__name__}:make_holder"), series(NUMBERS, index(TEXTS), "n")))).held
    assert_series_equal(found, pd.Series([1, 2], index=["age", "income"], name="n"), check_index_type=False)


def test_a_class_that_is_not_trusted_keeps_arrays_of_what_both_hold() -> None:
    """They share a list and an index: neither gets what is meant for the other."""
    columns = pd.Index(["a", "b"])
    known = ColumnTransformer([("n", StandardScaler(), columns)]).fit(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0]}))
    for held in ([known, columns, known.transformers], [columns, known.transformers, known]):
        found = read(pickle.dumps(make_holder(held), 4)).held
        transformer = next(each for each in found if isinstance(each, ColumnTransformer))
        assert type(transformer.transformers[0][2]) is np.ndarray
        assert isinstance(next(each for each in found if type(each) is list)[0][2], pd.Index)


def test_what_is_held_twice_is_one_object() -> None:
    shared = [pd.Series([1])]
    found = read(pickle.dumps(make_holder({"a": shared, "b": shared, "c": shared[0]}), 4)).held
    assert found["a"] is found["b"]
    assert found["a"][0] is found["c"]


def test_objects_that_share_their_values_are_objects_of_their_own() -> None:
    rows = index(noted(NUMBERS, 5))
    found = read(whole(built(instance(HOLDER), {"held": [rows, series(again(5), index(again(5))), rows]}))).held
    assert_index_equal(found[0], pd.Index([1, 2]))
    assert_series_equal(found[1], pd.Series([1, 2], index=[1, 2]))
    shared = pd.array([1, 2], dtype="Int64")
    array_of_integers, column = read(pickle.dumps(make_holder([shared, pd.Series(shared)]), 4)).held
    assert_extension_array_equal(array_of_integers, shared)
    assert_series_equal(column, pd.Series(shared))


def test_a_container_that_holds_itself_is_read() -> None:
    held: list[Any] = [pd.Series([1])]
    held.append(held)
    found = read(pickle.dumps(make_holder([pd.Series([1]), held]), 4)).held
    assert isinstance(found[0], pd.Series)
    assert isinstance(found[1][0], pd.Series)


def test_nothing_is_added_to_what_a_trusted_class_was_given() -> None:
    """It has a copy, which would lack it."""
    for filled, adding in ((value([index(TEXTS)]), b"K\1a"), (value({"a": index(TEXTS)}), b"K\1K\2s")):
        holder = built(instance(HOLDER), {"held": noted(filled, 7)})
        with pytest.raises(Distrusted, match="adds to a container with columns of pandas"):
            read(whole(value([holder, Fragment(again(7) + adding)])))


def test_a_known_class_holds_no_object_of_pandas() -> None:
    """A trusted class can have made it: in the place of an estimator, its methods would be called."""
    for odd in (pd.Series([1.0]), TABLE, pd.Index(["a"]), pd.Categorical(["a"])):
        known = ColumnTransformer([("a", odd, ["a"])])
        with pytest.raises(Distrusted, match=rf"{type(odd).__name__} in ColumnTransformer\.transformers"):
            check_loaded(make_holder([odd, known]), TRUSTED)
        check_loaded(make_holder([odd]), TRUSTED)


def test_a_table_is_for_trusted_classes_only() -> None:
    for raw in (whole(whole_table()), pickle.dumps(TABLE, 4)):
        with pytest.raises(Unlisted, match=r"pandas\.DataFrame"):
            read(raw, ())
        with pytest.raises(Distrusted, match="a table of pandas, which no known model is"):
            read(raw)
    with pytest.raises(Distrusted, match=r"a table of pandas in ColumnTransformer\.transformers"):
        read(whole(built(instance(COLUMNS), {"transformers": [("a", whole_table(), ["a"])]})))


@pytest.mark.parametrize("name", [*lies(), *lies_of_objects()])
def test_a_lie_is_refused_for_a_trusted_class(name: str) -> None:
    lie = {**lies(), **lies_of_objects()}[name]
    with pytest.raises(Distrusted, match="the file "):
        read(whole(built(instance(HOLDER), {"held": [lie]})))


def test_the_table_that_the_lies_are_made_of_is_read() -> None:
    found = read(whole(built(instance(HOLDER), {"held": whole_table()}))).held
    assert_frame_equal(found, pd.DataFrame({"age": [1, 2], "income": [1, 2]}), check_column_type=False)


def test_the_size_of_all_tables_is_limited() -> None:
    """Columns may share the bytes of one array, and tables the same columns."""
    many = array(dtype("i8"), (1, 1 << 12), bytes(8 << 12))
    rows = call(
        named("pandas.core.indexes.base:_new_Index"),
        named("pandas:RangeIndex"),
        {"start": 0, "stop": 1 << 12, "step": 1},
    )
    wide = index(array(dtype("O"), (400,), [str(place) for place in range(400)]))
    places = [(noted(many, 5) if place == 0 else again(5), place, place + 1) for place in range(400)]
    one = table(places, wide, rows)
    assert read(whole(built(instance(HOLDER), {"held": one}))).held.shape == (1 << 12, 400)
    with pytest.raises(Distrusted, match="larger columns of pandas than any model"):
        read(whole(built(instance(HOLDER), {"held": [one] * 11})))


def test_tables_are_not_named_beside_the_class_that_holds_them() -> None:
    told = explain_names(survey_opcodes(io.BytesIO(pickle.dumps(make_holder(TABLE), 4))))
    assert told is not None
    assert told.endswith(f'security.pickle_trusted = ["{TRUSTED[0]}"]')
    assert explain_names(survey_opcodes(io.BytesIO(pickle.dumps(make_holder(TABLE), 4))), TRUSTED) is None

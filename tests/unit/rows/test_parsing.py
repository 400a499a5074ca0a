"""Rows as clients send them: what is taken, what is refused, and that every refusal names the row and the feature."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from tests.steps import count_calls

IRIS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def make_signature(*features: Feature, container: Container = Container.ARRAY) -> Signature:
    return Signature(features=features, methods=("predict",), container=container)


NUMBERS = make_signature(*(Feature(name=name) for name in IRIS))
SPARSE = make_signature(*(Feature(name=name, nullable=index > 0) for index, name in enumerate(IRIS)))
MIXED = make_signature(
    Feature(name="age", nullable=True),
    Feature(name="city", dtype=Dtype.STRING),
    Feature(name="is_member", dtype=Dtype.BOOL),
    Feature(name="note", dtype=Dtype.ANY, nullable=True),
)
LENIENT = make_signature(*(Feature(name=dtype.value, dtype=dtype, nullable=True) for dtype in Dtype))
TEXTS = make_signature(Feature(name="text", dtype=Dtype.STRING), container=Container.TEXTS)
ONE = make_signature(Feature(name="size"))

ROW = [5.1, 3.5, 1.4, 0.2]
PERSON = [31, "Rome", True, None]


def get_refusal(contract: Signature, rows: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        rows_to_batch(contract, rows, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_arrays_of_numbers_become_one_contiguous_matrix() -> None:
    batch = rows_to_batch(NUMBERS, [[1, 2.5, 3, 4], [5, 6, 7, 8]])
    assert (batch.rows, batch.columns) == (2, None)
    assert batch.matrix is not None
    assert batch.matrix.dtype == np.float64
    assert batch.matrix.flags.c_contiguous
    assert batch.matrix.tolist() == [[1, 2.5, 3, 4], [5, 6, 7, 8]]


def test_objects_are_put_into_the_order_of_the_features() -> None:
    rows = [dict(zip(reversed(IRIS), [4, 3, 2, 1], strict=True)), dict(zip(IRIS, ROW, strict=True))]
    batch = rows_to_batch(NUMBERS, rows)
    assert batch.matrix is not None
    assert batch.matrix.tolist() == [[1, 2, 3, 4], ROW]


def test_objects_with_one_feature_work_like_any_other() -> None:
    batch = rows_to_batch(ONE, [{"size": 2}, {"size": 3}])
    assert batch.matrix is not None
    assert batch.matrix.tolist() == [[2], [3]]


def test_large_integers_that_float64_holds_become_floats() -> None:
    batch = rows_to_batch(ONE, [[2**53], [2**70], [-(2**63)]])
    assert batch.matrix is not None
    assert batch.matrix.ravel().tolist() == [float(2**53), float(2**70), -float(2**63)]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ([2**53 + 1], np.int64),
        ([2**53 + 1, 1, -5], np.int64),
        ([-(2**53) - 1], np.int64),
        ([2**63 + 1, 0], np.uint64),
    ],
)
def test_integers_that_floats_would_round_stay_integers(cells: list[int], dtype: Any) -> None:
    batch = rows_to_batch(ONE, [[cell] for cell in cells])
    assert batch.columns is not None
    assert isinstance(batch.columns[0], np.ndarray)
    assert batch.columns[0].dtype == dtype
    assert batch.columns[0].tolist() == cells
    assert rows_to_batch(ONE, [{"size": cell} for cell in cells]).columns is not None


@pytest.mark.parametrize("other", [0.5, 2**64, -1, None])
def test_large_integers_beside_other_numbers_are_refused_with_the_feature(other: Any) -> None:
    signature = Signature(features=(Feature(name="x", nullable=True),), methods=("predict",))
    large = 2**64 - 1 if other == -1 else 2**53 + 1
    with pytest.raises(InvalidInput, match=rf"row 1, feature 'x': the number {large} would be rounded"):
        rows_to_batch(signature, [[other], [large]])


def test_one_feature_of_integers_leaves_the_others_as_they_are() -> None:
    two = Signature(features=(Feature(name="id"), Feature(name="y")), methods=("predict",))
    batch = rows_to_batch(two, [[2**53 + 1, 0.5], [3, 4]])
    assert batch.columns is not None
    assert [np.asarray(column).dtype.str for column in batch.columns] == ["<i8", "<f8"]


def test_null_is_nan_among_numbers() -> None:
    batch = rows_to_batch(SPARSE, [[1, None, 3, 4], [5, 6, None, None]])
    assert batch.matrix is not None
    assert np.isnan(batch.matrix).tolist() == [[False, True, False, False], [False, False, True, True]]
    assert batch.matrix[1, 1] == 6


def test_features_of_several_kinds_become_one_column_each() -> None:
    batch = rows_to_batch(MIXED, [PERSON, [None, "Oslo", False, 5], [7, "Ürümqi", True, "x"]])
    assert batch.matrix is None
    assert batch.columns is not None
    age, city, is_member, note = batch.columns
    assert isinstance(age, np.ndarray)
    assert age.dtype == np.float64
    assert age[0] == 31
    assert math.isnan(age[1])
    assert city == ["Rome", "Oslo", "Ürümqi"]
    assert isinstance(is_member, np.ndarray)
    assert (is_member.dtype, is_member.tolist()) == (np.bool_, [True, False, True])
    assert note == [None, 5, "x"]


def test_bools_with_nulls_are_a_list() -> None:
    contract = make_signature(Feature(name="flag", dtype=Dtype.BOOL, nullable=True))
    assert rows_to_batch(contract, [[True], [None]]).columns == ([True, None],)


@pytest.mark.parametrize("flag", [True, 1, 1.0])
def test_in_a_table_bools_and_numbers_stand_for_each_other(flag: Any) -> None:
    two = (Feature(name="size", nullable=True), Feature(name="new", dtype=Dtype.BOOL, nullable=True))
    table = make_signature(*two, container=Container.DATAFRAME)
    columns = rows_to_batch(table, [[flag, flag], [0, False], [None, None]]).columns
    assert columns is not None
    assert repr(np.asarray(columns[0]).tolist()) == "[1.0, 0.0, nan]"
    assert columns[1] == [True, False, None]
    numbers = make_signature(Feature(name="a"), Feature(name="b"), container=Container.DATAFRAME)
    assert rows_to_batch(numbers, [{"a": flag, "b": 2.5}]).matrix is not None
    assert "'new': expected true or false, got the number 2" in get_refusal(table, [[1, 2]])
    assert "'size': expected a number, got the string" in get_refusal(table, [["true", 1]])


@pytest.mark.parametrize("rows", [["a", "b"], [["a"], ["b"]], [{"text": "a"}, {"text": "b"}]])
def test_texts_come_as_strings_arrays_or_objects(rows: list[Any]) -> None:
    assert rows_to_batch(TEXTS, rows).columns == (["a", "b"],)


def test_strings_are_rows_only_for_texts() -> None:
    assert get_refusal(ONE, ["5"]).startswith('row 0 is the string "5": a row is an array of 1 value or an object')


# --- what is refused, and how it is said ------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Signature, Any, str]] = {
    "empty": (NUMBERS, [], "no rows: send at least one"),
    "no array": (NUMBERS, {"a": 1}, "expected an array of rows, got an object"),
    "quoted number": (
        NUMBERS,
        [ROW, ROW, ROW, [1, 2, "5.1", 4]],
        "row 3, feature 'petal_length': expected a number, got the string \"5.1\"; send it without quotes",
    ),
    "word": (NUMBERS, [[1, 2, "many", 4]], "row 0, feature 'petal_length': expected a number, got the string \"many\""),
    "quoted nan": (NUMBERS, [[1, 2, "nan", 4]], 'expected a number, got the string "nan"'),
    "bool for number": (NUMBERS, [ROW, [1, True, 3, 4]], "row 1, feature 'sepal_width': expected a number, got true"),
    "only bools": (ONE, [[True], [False]], "row 0, feature 'size': expected a number, got true"),
    "ragged": (
        NUMBERS,
        [ROW, ROW, [1, 2, 3]],
        "row 2 has 3 values, the model takes 4: 'sepal_length', 'sepal_width', 'petal_length' and 1 more",
    ),
    "too long": (ONE, [[1, 2]], "row 0 has 2 values, the model takes 1: 'size'"),
    "one value": (NUMBERS, [[1]], "row 0 has 1 value, the model takes 4"),
    "one row alone": (
        NUMBERS,
        ROW,
        "an object; one row alone is [[...]], an array in an array; one pair of brackets is missing",
    ),
    "one short row alone": (NUMBERS, [1, 2, 3], "of 4 values or an object; one pair of brackets is missing"),
    "a row in a row": (NUMBERS, [[ROW]], "'petal_length' and 1 more; one pair of brackets is too many"),
    "rows in a row": (NUMBERS, [[{"sepal_length": 1}]], "one pair of brackets is too many"),
    "mixed kinds": (NUMBERS, [ROW, dict(zip(IRIS, ROW, strict=True))], "row 1 is an object, row 0 is an array"),
    "a number among rows": (NUMBERS, [ROW, 7], "row 1 is the number 7: a row is an array of 4 values or an object"),
    "a text for a row": (NUMBERS, [ROW, "a"], 'row 1 is the string "a": a row is an array of 4 values or an object'),
    "null for a row": (NUMBERS, [ROW, None], "row 1 is null"),
    "nested": (NUMBERS, [[[1, 2, 3, 4]] * 4], "feature 'sepal_length': expected a number, got an array; one pair of"),
    "object in a cell": (NUMBERS, [[1, 2, 3, {}]], "feature 'petal_width': expected a number, got an object"),
    "null": (SPARSE, [[None, 1, 2, 3]], "row 0, feature 'sepal_length': does not take null, send a number"),
    "null for string": (MIXED, [[1, None, True, 1]], "row 0, feature 'city': does not take null, send a string"),
    "number for string": (MIXED, [[1, 5, True, 1]], "feature 'city': expected a string, got the number 5"),
    "number for bool": (MIXED, [[1, "a", 1, 1]], "feature 'is_member': expected true or false, got the number 1"),
    "quoted bool": (MIXED, [[1, "a", "true", 1]], 'expected true or false, got the string "true"; send it without'),
    "array for any": (MIXED, [[1, "a", True, [1]]], "feature 'note': expected a number, a string, true or false, got"),
    "missing": (
        NUMBERS,
        [{"sepal_length": 1, "sepal_width": 2}],
        "row 0: missing 'petal_length', 'petal_width'",
    ),
    "misspelt": (
        NUMBERS,
        [{"sepal_length": 1, "sepal_width": 2, "petal_lenght": 3, "petal_width": 4}],
        "row 0: missing 'petal_length'; unknown 'petal_lenght' (did you mean 'petal_length'?)",
    ),
    "too many names": (
        ONE,
        [{"size": 1}, {"size": 1, **dict.fromkeys(IRIS, 0)}],
        "row 1: unknown 'sepal_length', 'sepal_width', 'petal_length' and 1 more",
    ),
    "text of two": (TEXTS, [["a", "b"]], "row 0 has 2 values, the model takes 1: 'text'"),
    "number for text": (TEXTS, ["a", 5], "row 1 is the number 5: a row is a string"),
    "NaN": (NUMBERS, [[1, 2, 3, math.nan]], "row 0, feature 'petal_width': NaN is not a finite number"),
    "NaN for null": (
        SPARSE,
        [[1, 2, 3, math.nan]],
        "row 0, feature 'petal_width': NaN is not a finite number; send null for a missing value",
    ),
    "NaN beside null": (SPARSE, [[1, None, 3, 4], [1, 2, math.nan, 4]], "row 1, feature 'petal_length': NaN is not"),
    "infinity": (NUMBERS, [[1, math.inf, 3, 4]], "feature 'sepal_width': Infinity is not a finite number"),
    "minus infinity": (MIXED, [[-math.inf, "a", True, 1]], "feature 'age': -Infinity is not a finite number"),
    "NaN in any": (MIXED, [[1, "a", True, math.nan]], "feature 'note': NaN is not a finite number; send null"),
    "beyond float64": (NUMBERS, [[10**400, 2, 3, 4]], "an integer of 1329 bits is beyond the range of a 64-bit float"),
    "beyond float64 in a column": (
        MIXED,
        [[10**400, "a", True, 1]],
        "feature 'age': an integer of 1329 bits is beyond",
    ),
    "beyond 64 bits": (MIXED, [[1, "a", True, 2**64]], "feature 'note': the number 18446744073709551616 does not fit"),
    "half a surrogate pair": (MIXED, [[1, "a\ud800", True, 1]], "feature 'city': the string \"a\\ud800\" holds half"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_the_row_and_the_feature_and_says_what_to_do(name: str) -> None:
    contract, rows, words = REFUSALS[name]
    message = get_refusal(contract, rows)
    assert words in message
    message.encode()


@pytest.mark.parametrize(
    "rows",
    [
        [[1, True, 3, 4]],
        [[2.5, 3.5, 4.5, True], ROW],
        [ROW, [1, True, 3, 4]],
        [[1e-9, True, 3, 4], ROW],
        [[2**64, True, 3, 4], ROW],
        [dict(zip(IRIS, [1, 2, True, 4], strict=True))],
        [dict(zip(IRIS, [1, 2, True, 4], strict=True))] * 2,
    ],
)
def test_a_bool_among_numbers_is_refused(rows: list[Any]) -> None:
    assert "got true" in get_refusal(NUMBERS, rows)


def test_hints_are_not_given_where_they_would_mislead() -> None:
    assert "send null" not in get_refusal(NUMBERS, [[1, 2, 3, math.nan]])
    assert "without quotes" not in get_refusal(NUMBERS, [[1, 2, 3, "inf"]])
    assert "without quotes" not in get_refusal(MIXED, [[1, "a", "yes", 1]])
    assert "did you mean" not in get_refusal(ONE, [{"quite_different": 1}])


def test_a_model_without_features_has_no_rows() -> None:
    assert "takes no features" in get_refusal(Signature(features=(), methods=("predict",)), [[]])


# --- hostile input ----------------------------------------------------------------------------------------------------


def test_one_long_string_among_many_numbers_costs_no_memory() -> None:
    """numpy would give every cell the width of the longest string: 40 GB here."""
    rows: list[Any] = [[1.0] * 4 for _ in range(5_000)]
    rows[-1] = [1.0, 2.0, "x" * 500_000, 3.0]
    tracemalloc.start()
    try:
        assert get_refusal(NUMBERS, rows).startswith("row 4999, feature 'petal_length'")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 64 << 20


def test_long_names_and_many_features_are_refused_in_a_few_words() -> None:
    wide = make_signature(*(Feature(name=f"feature_{index}") for index in range(20_000)))
    message = get_refusal(wide, [{"x" * 1_000_000: 1, "feature_x": 2}])
    assert len(message) < 1000
    assert "and 19997 more" in message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["number", "size", "a"]), inner),
    max_leaves=20,
)
CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "1", "\udfff", "é"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([NUMBERS, SPARSE, MIXED, LENIENT, TEXTS, ONE]), JSON_VALUES)
@example(NUMBERS, [[]])
@example(NUMBERS, [{}])
@example(TEXTS, [[]])
def test_any_json_value_is_read_or_refused_and_nothing_else(contract: Signature, rows: Any) -> None:
    try:
        batch = rows_to_batch(contract, rows)
    except InvalidInput as error:
        str(error).encode()
    else:
        assert batch.rows == len(rows)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([NUMBERS, SPARSE, MIXED, LENIENT]), st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=3)
)
@example(LENIENT, [[1, "a", True, 2**64]])
@example(LENIENT, [[True, "a", True, 1]])
@example(SPARSE, [[1, 2, None, True]])
@example(NUMBERS, [[2**53 + 1, 0.5, 1, 1]])
@example(NUMBERS, [[2**53 + 1, 0.5, 1, 1], [0.5, 1, 1, 1]])
@example(NUMBERS, [[2**63 + 1, 0.5, 1, 1], [-1, 1, 1, 1]])
@example(NUMBERS, [[2**100 + 1, 1, 1, 1]])
@example(LENIENT, [[2**53 + 1, None, None, None], [None, None, None, None]])
def test_the_fast_way_takes_exactly_what_the_rules_allow(contract: Signature, rows: list[list[Any]]) -> None:
    is_right = all(
        is_allowed(feature, cell) for row in rows for feature, cell in zip(contract.features, row, strict=True)
    ) and all(
        feature.dtype is not Dtype.NUMBER or is_kept(column)
        for feature, column in zip(contract.features, zip(*rows, strict=True), strict=False)
    )
    try:
        batch = rows_to_batch(contract, rows)
    except InvalidInput:
        assert not rows or not is_right
    else:
        assert is_right
        assert list_cells(batch) == [[convert_as_sent(cell) for cell in row] for row in rows]
        orjson.dumps([column for column in batch.columns or () if isinstance(column, list)])


def is_allowed(feature: Feature, cell: Any) -> bool:
    """The rules of the module's docstring, cell by cell and without any optimisation."""
    if cell is None:
        return feature.nullable
    is_number = type(cell) in (int, float) and abs(cell) <= 1.7976931348623157e308
    if feature.dtype is Dtype.NUMBER:
        return is_number
    if feature.dtype is Dtype.BOOL:
        return type(cell) is bool
    is_text = type(cell) is str and cell != "\udfff"
    if feature.dtype is Dtype.STRING:
        return is_text
    fits = type(cell) is not int or -(2**63) <= cell < 2**64
    return type(cell) is bool or is_text or (is_number and fits)


def is_kept(numbers: tuple[Any, ...]) -> bool:
    """Whether float64 holds all numbers of a column, or all are integers of one 64-bit kind."""
    if all(type(cell) is not int or int(float(cell)) == cell for cell in numbers if is_allowed(ONE.features[0], cell)):
        return True
    kinds = range(-(2**63), 2**63), range(2**64)
    return all(type(cell) is int for cell in numbers) and any(all(cell in kind for cell in numbers) for kind in kinds)


def list_cells(batch: Batch) -> list[list[Any]]:
    columns = batch.matrix.T if batch.matrix is not None else batch.columns or ()
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    return [[convert_as_sent(cell) for cell in row] for row in zip(*lists, strict=True)]


def convert_as_sent(cell: Any) -> Any:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return float(cell) if type(cell) in (int, float) else cell


def test_rows_parsed_by_json_and_by_orjson_are_read_alike() -> None:
    body = json.dumps([[1, 2.5, -3e10, 0]])
    first, second = rows_to_batch(NUMBERS, json.loads(body)), rows_to_batch(NUMBERS, orjson.loads(body))
    assert first.matrix is not None
    assert second.matrix is not None
    assert first.matrix.tolist() == second.matrix.tolist()


def test_reading_rows_runs_no_python_code_for_each_cell() -> None:
    rows = np.random.default_rng(0).normal(size=(10_000, 30)).tolist()
    contract = make_signature(*(Feature(name=f"x{index}") for index in range(30)))
    batch, calls = count_calls(lambda: rows_to_batch(contract, rows))
    assert batch.matrix is not None
    assert calls < 2 * len(rows)

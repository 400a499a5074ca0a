"""CSV: cells are typed by the signature, and every line that does not fit is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.formats import csv
from serving.domain.errors import InvalidInput, Malformed, NotAcceptable
from serving.domain.signature import Dtype, Feature, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Batch, Prediction, Tensor
from serving.rows.tables import table_to_batch
from tests.fakes import MIXED, NUMBERS, TEXTS

ANYTHING = Signature(features=(Feature(name="x", dtype=Dtype.ANY, nullable=True),), methods=("predict",))


def batch_of(text: str | bytes, signature: Signature = NUMBERS) -> Batch:
    raw = text.encode() if isinstance(text, str) else text
    return table_to_batch(signature, csv.read(raw, signature))


def written(*tensors: Tensor, method: Any = "predict") -> str:
    return csv.write(Answer("iris", "3", method, len(tensors[0]), Prediction(tensors), False), NUMBERS).decode()


@pytest.mark.parametrize(
    "text",
    [
        "5.1,3.5,1.4,0.2\r\n6,2.9,4.3,1.3\r\n",
        "5.1,3.5,1.4,0.2\n6,2.9,4.3,1.3",
        "x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n6,2.9,4.3,1.3\n",
        "x3,x0,x1,x2\n0.2,5.1,3.5,1.4\n1.3,6,2.9,4.3\n",
        '\ufeffx0,"x1",x2,x3\n51e-1,"3.5", 1.4 ,+.2\n\n6.,2.9,4.3,1.3\n\n',
    ],
)
def test_rows_are_read_with_a_header_or_without(text: str) -> None:
    matrix = batch_of(text).matrix
    assert matrix is not None
    assert matrix.tolist() == [[5.1, 3.5, 1.4, 0.2], [6, 2.9, 4.3, 1.3]]


def test_cells_are_what_their_feature_says() -> None:
    text = 'age,town,is_new\n41.5,"Ulm, Do""nau",TRUE\n,,\nnan,12,false\n'
    columns = batch_of(text, MIXED).columns
    assert columns is not None
    assert np.array_equal(np.asarray(columns[0]), [41.5, np.nan, np.nan], equal_nan=True)
    assert columns[1] == ['Ulm, Do"nau', "", "12"]
    assert columns[2] == [True, None, False]


def test_a_feature_that_takes_anything_has_what_fits_first() -> None:
    assert csv.read(b'1\n2.5\ntrue\nabc\n""\n-9223372036854775808\n', ANYTHING).columns == (
        [1, 2.5, True, "abc", None, -(1 << 63)],
    )


def test_texts_are_lines_and_may_hold_line_ends() -> None:
    assert csv.read(b'text\n"two\nlines"\nno\n', TEXTS).columns == (["two\nlines", "no"],)
    assert csv.read(b"good\nbad\n", TEXTS).columns == (["good", "bad"],)


def test_many_rows_are_read_in_pieces() -> None:
    matrix = batch_of("\n".join(f"{row},1,2,3" for row in range(2500))).matrix
    assert matrix is not None
    assert matrix[:, 0].tolist() == list(range(2500))


@pytest.mark.parametrize("small", [3, 2500])
def test_large_and_small_integers_of_a_column_are_integers(small: int) -> None:
    """The small ones come as floats, in pieces of their own where they are many."""
    wanted = [*range(small), 2**53 + 1, -1]
    columns = batch_of(
        "x\n" + "\n".join(map(str, wanted)), Signature(features=(Feature(name="x"),), methods=("predict",))
    )
    assert columns.columns is not None
    column = np.asarray(columns.columns[0])
    assert (column.dtype, column.tolist()) == (np.int64, wanted)


def test_a_fraction_beside_a_large_integer_is_refused() -> None:
    with pytest.raises(InvalidInput, match="9007199254740993 would be rounded"):
        batch_of("0.5\n9007199254740993", Signature(features=(Feature(name="x"),), methods=("predict",)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3,abc\n", "row 0, feature 'x3': expected a number"),
        ("1,2,3,4\n1,2,,4\n", "row 1, feature 'x2': does not take null"),
        ("1,2,3,4\n1,2,3,nan\n", "row 1, feature 'x3'"),
        ("1,2,3,inf\n", "row 0, feature 'x3'"),
        ("1,2,3,1_0\n", "row 0, feature 'x3': expected a number"),
        ("1,2,3,\u0661\n", "row 0, feature 'x3': expected a number"),
        ("1,2,3\n", "row 0 has 3 values, the model takes 4"),
        ("1,2,3,4\n1,2\n", "row 1, which begins with the string .*, has 2 cells, row 0 has 4"),
        ("x0,x1,x2,x3\n1,2\n", "row 0, which .*the header has 4"),
        ("x0,x1,x2,xx\n1,2,3,4\n", "missing 'x3'; unknown 'xx'"),
        ("x0,x1,x2,x3,x3\n1,2,3,4,5\n", "the column .* is there twice"),
        ("x0,x1,x2,x3\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        batch_of(text)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'"1,2', b'"1"2,3,4,5', b"x" * 200_000])
def test_what_is_no_csv_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        batch_of(raw)


@given(raw=st.binary(max_size=60) | st.text('0123456789.,"\r\nxe-_', max_size=60).map(str.encode))
def test_anything_is_read_or_refused_and_nothing_else(raw: bytes) -> None:
    for signature in (NUMBERS, MIXED, ANYTHING):
        try:
            batch_of(raw, signature)
        except (Malformed, InvalidInput):
            continue


def test_an_answer_has_the_names_of_what_it_holds() -> None:
    assert written(np.array([0, 2])) == "predict\r\n0\r\n2\r\n"
    assert written(np.array([[0.1, 0.2, 0.7]]), method="predict_proba") == "0,1,2\r\n0.1,0.2,0.7\r\n"
    assert written(np.ones((1, 2)), method="transform") == "transform_0,transform_1\r\n1.0,1.0\r\n"
    assert written(np.ones((1, 2)), np.zeros(1), method="predict_proba").startswith(
        "0.predict_proba_0,0.predict_proba_1,1."
    )
    assert written(['say "no"', "a,b"]) == 'predict\r\n"say ""no"""\r\n"a,b"\r\n'
    assert written([["a", 1], ["b", 2]]) == "predict_0,predict_1\r\na,1\r\nb,2\r\n"
    assert written(np.array([True, False])) == "predict\r\ntrue\r\nfalse\r\n"


def test_numbers_read_back_the_same() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    assert [float(line) for line in written(values).split()[1:]] == values.tolist()


def test_arrays_in_arrays_have_no_columns() -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        written(np.zeros((1, 2, 3)))

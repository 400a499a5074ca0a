"""Who a client is, by a column of its first row, in all the shapes that rows come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from serving.rows.client_keys import find_key
from serving.rows.tables import Table
from tests.fakes import MIXED

NAMES = ("age", "town", "is_new")


class Piece(NamedTuple):
    """A few of many rows."""

    rows: list[Any]


class Pieces:
    """Many rows, of which only the first piece may be read."""

    def __init__(self, *rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return 2 * len(self.rows)

    def __iter__(self) -> Iterator[Piece]:
        yield Piece([*self.rows])
        pytest.fail("the second piece was read")


ROWS: dict[str, Any] = {
    "objects": [{"town": "Ulm", "age": 30}, {"town": "Bern"}],
    "lists": [[30, "Ulm", True], [31, "Bern", False]],
    "pieces": Pieces([30, "Ulm", True], [31, "Bern", False]),
    "pieces of objects": Pieces({"town": "Ulm", "age": 30}),
    "columns": Table(2, columns=(np.array([30.0, 31.0]), ["Ulm", "Bern"], [True, False])),
    "columns of objects": Table(
        2, columns=(np.array([30, 31]), np.array(["Ulm", "Bern"], dtype=object), [True, False])
    ),
    "named columns": Table(2, columns=(["Ulm", "Bern"], [30, 31]), names=("town", "age")),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_client_is_the_same_in_every_format(rows: Any) -> None:
    assert find_key(rows, MIXED, "town") == b"Ulm"
    assert find_key(rows, MIXED, "age") == b"30.0"
    assert find_key(rows, MIXED, "unknown") is None


def test_a_column_that_the_model_does_not_take_is_found_in_objects_and_named_columns() -> None:
    assert find_key([{"user": "7f"}], MIXED, "user") == b"7f"
    assert find_key(Table(1, columns=(["7f"],), names=("user",)), MIXED, "user") == b"7f"


@pytest.mark.parametrize(
    "rows",
    [
        *([], [[]], [[30]], [None], ["Ulm"], [{"town": None}], [{}], Pieces(), Table(0, columns=([], [], []))),
        *(Table(1, np.ones((1, 1))), Table(1, columns=([30], [None], [True]))),
    ],
)
def test_what_has_no_value_there_has_no_key(rows: Any) -> None:
    assert find_key(rows, MIXED, "town") is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        *((7, b"7.0"), (7.0, b"7.0"), (np.int64(7), b"7.0"), (np.float32(7), b"7.0"), ("7", b"7"), ("", b"")),
        *((True, b"1.0"), (float("nan"), b"nan"), ("Z\u00fcrich", b"Z\xc3\xbcrich"), ("\ud800", b"\\ud800")),
        (10**400, b"1" + b"0" * 400),
        *((["a"], b"['a']"), ({"a": 1}, b"{'a': 1}")),
    ],
)
def test_any_value_is_a_key(value: Any, key: bytes) -> None:
    assert find_key([{"town": value}], MIXED, "town") == key


def test_a_matrix_has_keys_too() -> None:
    assert find_key(Table(2, np.array([[4.0, 5.0, 6.0], [0.0, 0.0, 0.0]])), MIXED, "town") == b"5.0"

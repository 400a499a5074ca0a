"""What waits to be written is owned: no view of a buffer, no object that an application may change, no huge request."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.plane.prediction import Answer
from serving.recording.answered_request import MOST_CELLS, MOST_ROWS, AnsweredRequest, copy_request
from serving.rows.batch import Batch, Prediction
from tests.fakes import MIXED, NUMBERS

OBJECTS = Signature(
    features=(Feature(name="object", dtype=Dtype.ANY),), methods=("predict",), container=Container.OBJECTS
)


def make_answer(batch: Batch, *tensors: Any, also: Any = ()) -> Answer:
    return Answer("iris", "3", "predict", batch.rows, Prediction(tensors), False, also, batch)


def copy(answer: Answer, signature: Signature = NUMBERS, body_bytes: int | None = 100) -> AnsweredRequest:
    found = copy_request(answer, signature, 1.0, "id", 0.5, body_bytes)
    assert found is not None
    return found


def test_views_are_copied_so_that_a_buffer_may_be_used_again() -> None:
    buffer = bytearray(np.arange(8.0).tobytes())
    rows = np.frombuffer(buffer).reshape(2, 4)
    answers = np.arange(100.0)[:2]
    found = copy(make_answer(Batch(2, matrix=rows), answers))
    buffer[:] = bytes(len(buffer))
    answers[:] = -1
    assert found.batch.matrix is not None
    assert found.batch.matrix.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.outputs[0][1][0].tolist() == [0, 1]  # type: ignore[union-attr]


def test_an_array_that_nothing_else_holds_is_kept_as_it_is() -> None:
    rows, answers = np.ones((1, 4)), np.ones(1)
    found = copy(make_answer(Batch(1, matrix=rows), answers))
    assert found.batch.matrix is rows
    assert found.outputs[0][1][0] is answers


def test_of_many_rows_the_first_ones_are_kept() -> None:
    found = copy(make_answer(Batch(5000, matrix=np.arange(20000.0).reshape(5000, 4)), np.arange(5000)))
    assert (found.rows, found.batch.rows) == (5000, MOST_ROWS)
    assert found.batch.matrix is not None
    assert found.batch.matrix.base is None
    assert len(found.outputs[0][1][0]) == MOST_ROWS


def test_of_wide_rows_fewer_are_kept_but_always_one() -> None:
    wide = Signature(features=tuple(Feature(name=f"x{n}") for n in range(MOST_CELLS * 2)), methods=("predict",))
    found = copy(make_answer(Batch(3, matrix=np.zeros((3, MOST_CELLS * 2))), np.arange(3)), wide)
    assert found.batch.rows == 1
    half = Signature(features=tuple(Feature(name=f"x{n}") for n in range(100)), methods=("predict",))
    found = copy(make_answer(Batch(900, matrix=np.zeros((900, 100))), np.zeros((900, 150))), half)
    assert found.batch.rows == MOST_CELLS // 250


def test_objects_of_an_application_are_copied_and_those_of_a_request_are_not() -> None:
    row = {"age": [1, 2]}
    given = Batch(1, columns=([row],))
    answer = {"label": ["a"]}
    own = copy(make_answer(given, [answer]), OBJECTS, body_bytes=None)
    row["age"].append(3)
    answer["label"].append("b")
    assert own.batch.columns == ([{"age": [1, 2]}],)
    assert own.outputs[0][1] == ([{"label": ["a"]}],)
    assert copy(make_answer(given, [answer]), OBJECTS).batch.columns[0][0] is row  # type: ignore[index]


def test_texts_count_by_the_size_of_the_request_or_are_measured() -> None:
    columns = (np.ones(1), ["x" * 10_000], np.ones(1, np.bool_))
    answer = make_answer(Batch(1, columns=columns), ["y" * 5000])
    assert copy(answer, MIXED, body_bytes=10_100).nbytes > 15_000
    assert copy(answer, MIXED, body_bytes=None).nbytes > 15_000
    assert copy(answer, MIXED, body_bytes=0).nbytes < 10_000, "the body bounds them, so nothing is measured"


def test_without_rows_there_is_nothing_to_record() -> None:
    answer = make_answer(Batch(1, matrix=np.ones((1, 4))), np.ones(1))._replace(batch=None)
    assert copy_request(answer, NUMBERS, 1.0, None, 0.5, 10) is None

"""Signatures as tensors, tensors as rows, answers as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.api.oip.specs import Spec, inputs_of, outputs_of, table_of, tensors_of
from serving.api.oip.tensors import ReceivedTensor, from_values
from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import ModelKind, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction
from serving.rows.tables import table_to_batch
from tests.fakes import MIXED, NUMBERS, TEXTS


def tensor(name: str, shape: tuple[int, ...], values: list[Any], datatype: str = "FP64") -> ReceivedTensor:
    return from_values(name, datatype, shape, values)


def answered(*tensors: Any, signature: Signature = NUMBERS) -> ReceivedTensor:
    answer = Answer("m", "1", "predict", len(tensors[0]), Prediction(tensors), False)
    (found,) = tensors_of(answer, signature)
    return found


def test_inputs_are_one_matrix_of_numbers_or_one_column_for_each_feature() -> None:
    assert inputs_of(NUMBERS) == (Spec("input", "FP64", (-1, 4)),)
    assert inputs_of(MIXED) == (
        Spec("age", "FP64", (-1, 1)),
        Spec("town", "BYTES", (-1, 1)),
        Spec("is_new", "BOOL", (-1, 1)),
    )


def test_outputs_are_methods() -> None:
    assert outputs_of(NUMBERS) == (Spec("predict", "INT64", (-1,)), Spec("predict_proba", "FP64", (-1, 3)))
    changed = NUMBERS.model_copy(update={"classes": (("a", "b"), ("c", "d")), "outputs": 2})
    assert outputs_of(changed) == (Spec("predict", "BYTES", (-1, 2)), Spec("predict_proba", "FP64", (-1, 2, 2)))
    uneven = NUMBERS.model_copy(update={"classes": ((True, False), (True,)), "outputs": 2})
    assert outputs_of(uneven) == (Spec("predict", "BOOL", (-1, 2)), Spec("predict_proba", "FP64", (-1, 3)))
    outliers = Signature(
        features=(), methods=("predict", "decision_function", "score_samples"), kind=ModelKind.OUTLIER_DETECTOR
    )
    assert [spec.datatype for spec in outputs_of(outliers)] == ["INT64", "FP64", "FP64"]
    assert [spec.shape for spec in outputs_of(outliers)] == [(-1,), (-1,), (-1,)]
    assert outputs_of(Signature(features=(), methods=("transform",))) == (Spec("transform", "FP64", (-1, -1)),)


def test_one_tensor_of_any_name_is_a_matrix() -> None:
    table = table_of([tensor("whatever", (2, 4), list(range(8)))], NUMBERS)
    batch = table_to_batch(NUMBERS, table)
    assert batch.matrix is not None
    assert batch.matrix.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_one_tensor_for_each_feature_may_come_in_any_order() -> None:
    columns = [
        tensor("town", (2, 1), ["Köln", "Ulm"], "BYTES"),
        tensor("is_new", (2,), [True, False], "BOOL"),
        tensor("age", (2,), [3, None], "FP32"),
    ]
    batch = table_to_batch(MIXED, table_of(columns, MIXED))
    assert batch.columns is not None
    ages, towns, flags = batch.columns
    assert np.array_equal(ages, [3, np.nan], equal_nan=True)
    assert (towns, list(flags)) == (["Köln", "Ulm"], [True, False])


def test_texts_are_a_column() -> None:
    for shape in ((2,), (2, 1)):
        batch = table_to_batch(TEXTS, table_of([tensor("text", shape, ["a", "b"], "BYTES")], TEXTS))
        assert batch.columns == (["a", "b"],)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "'inputs' is empty"),
        ([tensor("a", (4,), [1, 2, 3, 4])], "expected [1, 4]"),
        ([tensor("a", (3,), [1, 2, 3])], "expected [rows, 4]"),
        ([tensor("a", (2, 0), [])], "expected [rows, 4]"),
        ([tensor("a", (1, 3), [1, 2, 3])], "3 values"),
        ([tensor("a", (0, 4), [])], "no rows"),
        ([tensor("x0", (1,), [1])], "x1"),
        ([tensor("x0", (1,), [1]), tensor("x1", (2,), [1, 2])], "'x1' has 2 rows, 'x0' has 1"),
        ([tensor("x0", (1, 2), [1, 2]), tensor("x1", (1, 2), [1, 2])], "one column for each feature"),
        ([tensor("x0", (1,), [1])] * 4, "there twice"),
        ([tensor("x0", (1,), [1])] * 5, "5 inputs, the model takes 4"),
        ([tensor("a", (1, 4), [True] * 4, "BOOL")], "feature 'x0'"),
        ([tensor("a", (1, 4), ["a"] * 4, "BYTES")], "feature 'x0'"),
        ([tensor("a", (1, 4), [1, 2, 3, 1e39], "FP32")], "feature 'x3': is an infinity"),
    ],
)
def test_what_are_no_rows_is_refused(tensors: list[ReceivedTensor], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        table_to_batch(NUMBERS, table_of(tensors, NUMBERS))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("given", "datatype", "shape", "values"),
    [
        (np.array([1, 2], np.int32), "INT64", (2,), [1, 2]),
        (np.array([1, 2], np.uint8), "UINT64", (2,), [1, 2]),
        (np.array([[0.5, 1]], np.float32), "FP64", (1, 2), [0.5, 1]),
        (np.arange(6).reshape(3, 2).T, "INT64", (2, 3), [0, 2, 4, 1, 3, 5]),
        (np.array([True]), "BOOL", (1,), [True]),
        (["a", "b"], "BYTES", (2,), ["a", "b"]),
        ([["a", "b"], ["c", "d"]], "BYTES", (2, 2), ["a", "b", "c", "d"]),
        ([["a", 1], [None, True]], "BYTES", (2, 2), ["a", "1", "", "True"]),
        ([7, 8], "INT64", (2,), [7, 8]),
    ],
)
def test_every_answer_is_a_tensor(given: Any, datatype: str, shape: tuple[int, ...], values: list[Any]) -> None:
    found = answered(given, signature=NUMBERS.model_copy(update={"classes": None}))
    assert (found.datatype, found.shape, list(found.values)) == (datatype, shape, values)


def test_labels_have_the_datatype_of_all_classes_whatever_came_this_time() -> None:
    mixed = NUMBERS.model_copy(update={"classes": ((1, "a"),)})
    assert answered([1], signature=mixed).datatype == outputs_of(mixed)[0].datatype == "BYTES"


def test_several_outputs_are_one_tensor() -> None:
    same = answered(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    assert (same.shape, list(same.values)) == ((1, 2, 2), [1, 2, 3, 4])
    uneven = answered(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    assert (uneven.shape, list(uneven.values)) == ((1, 3), [1, 2, 3])


@pytest.mark.parametrize("given", [[["a"], ["b", "c"]], [[["a"]]], [2**70, 1]])
def test_an_answer_no_tensor_holds_is_the_models_failure(given: Any) -> None:
    with pytest.raises(ModelFailed):
        answered(given, signature=NUMBERS.model_copy(update={"classes": None}))

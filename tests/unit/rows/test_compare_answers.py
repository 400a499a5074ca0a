"""Answers of two versions to the same rows are compared output by output: labels as labels, numbers as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.domain.answer_pair import MOST_DIFFERENCE, MOST_OUTPUTS, AnswerPair, OutputPair
from serving.domain.signature import Feature, Method, ModelKind, Signature
from serving.rows.batch import Prediction
from serving.rows.compare_answers import compare_answers


def compare(new: Any, old: Any, kind: ModelKind = ModelKind.REGRESSOR, method: Method = "predict") -> AnswerPair:
    """Compare two answers of one method; a tuple has several tensors."""
    signature = Signature(features=(Feature(name="x"),), methods=(method,), kind=kind)
    return compare_answers([(method, _prediction(new))], [(method, _prediction(old))], signature)


def _prediction(tensors: Any) -> Prediction:
    return Prediction(tensors if isinstance(tensors, tuple) else (tensors,))


def test_labels_are_equal_or_not_whatever_their_type() -> None:
    kind = ModelKind.CLASSIFIER
    for new, old, differing in (
        (np.array([0, 1, 2]), np.array([0, 2, 2]), 1),
        (np.array([1.0, 2.0]), np.array([1, 2]), 0),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0),
        (["a", "b", None], ["a", "c", None], 1),
        (np.array([1, 2]), ["1", "2"], 2),
        (np.array([True, False]), np.array([True, True]), 1),
        ([["a", "x"], ["b", "x"]], [["a", "x"], ["b", "y"]], 1),
    ):
        assert compare(new, old, kind).outputs == (OutputPair("predict", 0, len(old), differing),)


def test_numbers_have_a_mean_and_a_worst_difference() -> None:
    pair = compare(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 1.0]))
    assert pair == AnswerPair(False, False, (OutputPair("predict", 0, 3, 0, 2.5, 2.0),))
    pair = compare(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[0.7, 0.3], [0.0, 1.0]]), method="predict_proba")
    (only,) = pair.outputs
    assert (only.place, only.rows) == (0, 2)
    assert np.allclose([only.total, only.worst], [0.2, 0.2])


def test_each_column_of_predict_and_each_array_is_an_output_of_its_own() -> None:
    pair = compare(np.array([[1.0, 10.0], [2.0, 20.0]]), np.array([[1.0, 11.0], [2.0, 20.0]]))
    assert pair.outputs == (OutputPair("predict", 1, 2, 0, 0.0, 0.0), OutputPair("predict", 2, 2, 0, 1.0, 1.0))
    arrays = (np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))
    pair = compare(arrays, (arrays[0], arrays[0]), method="predict_proba")
    assert [(one.place, one.worst) for one in pair.outputs] == [(1, 0.0), (2, 0.5)]
    assert len(compare(np.zeros((1, 50)), np.zeros((1, 50))).outputs) == MOST_OUTPUTS


def test_the_side_whose_number_is_not_finite_has_answered_badly() -> None:
    finite, lost = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    assert compare(lost, finite) == AnswerPair(True, False, (OutputPair("predict", 0, 2, 1, 0.0, 0.0),))
    assert compare(finite, -lost) == AnswerPair(False, True, (OutputPair("predict", 0, 2, 1, 2.0, 2.0),))
    assert compare(lost, lost) == AnswerPair(False, False, (OutputPair("predict", 0, 2, 0, 0.0, 0.0),))


def test_differences_stay_finite_and_empty_rows_are_equal() -> None:
    (only,) = compare(np.array([1e308, 1e308]), np.array([-1e308, -1e308])).outputs
    assert (only.total, only.worst) == (MOST_DIFFERENCE, MOST_DIFFERENCE)
    (only,) = compare(np.zeros((2, 0)), np.zeros((2, 0)), method="transform").outputs
    assert (only.total, only.worst) == (0.0, 0.0)


def test_answers_of_another_shape_or_method_differ_in_every_row() -> None:
    for new, old in ((np.zeros((2, 3)), np.zeros((2, 2))), ((np.zeros((2, 1)),) * 2, np.zeros((2, 1)))):
        (only,) = compare(new, old, method="predict_proba").outputs
        assert (only.rows, only.differing, only.total) == (2, 2, None)
    signature = Signature(features=(Feature(name="x"),), methods=("predict",))
    answer = _prediction(np.zeros(2))
    pair = compare_answers([("transform", answer)], [("predict", answer)], signature)
    assert pair.outputs == (OutputPair("predict", 0, 2, 2),)

"""Finds which methods the outputs of an ONNX graph answer, from their values for a few rows.

Exporters name scores `probabilities`, or give no names, so a name alone is not enough: the numbers must have the
properties of the method's answers. An output called `probabilities` or `scores` after a label may contain shares that
add up to one, distances (the label has the smallest), or scores (the label has the largest). An output that fits no
method is left out, and the evidence of the gate `load` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from serving.domain.signature import Label, Method, ModelKind

LABEL_TYPES = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
_LABEL_NAMES = ("label", "output_label")
_PROBABILITY_NAMES = ("probabilities", "output_probability", "predict_proba")
_CLASSES_NAME = "class_labels"  # skl2onnx's option output_class_labels
_SCORES_NAME = "scores"  # of skl2onnx's clusterers and outlier detectors
_OUTLIER, _INLIER = -1, 1
_SHARE_TOLERANCE = 1e-3
_MIN_SHARE_OF_MATCHES = 0.75


class AnswerForm(Enum):
    """How an answer is made from its outputs."""

    VALUES = "one output, a single column flat"
    WHOLE = "one output, a single column kept"
    TRANSPOSED = "one output of shape (1, rows)"
    SCORES = "a column for each class, or an array of these for each output"
    FIRST_COLUMN = "the first of two columns"
    SECOND_COLUMN = "the second of two columns"


ONE_COLUMN = {AnswerForm.FIRST_COLUMN: 0, AnswerForm.SECOND_COLUMN: 1}


@dataclass(frozen=True, slots=True)
class MethodOutput:
    """The outputs that answer one method: their places in the graph, and how the answer is made from them."""

    places: tuple[int, ...]
    form: AnswerForm

    def read(self, values: Sequence[Any]) -> Any:
        """Return the answer from the values of its own outputs, in the order of `places`."""
        first = values[0]
        if self.form is AnswerForm.SCORES:
            return _join_scores(values)
        if self.form is AnswerForm.TRANSPOSED:
            return first[0]
        if self.form in ONE_COLUMN:
            return _join_scores(values)[:, ONE_COLUMN[self.form]]
        is_column = isinstance(first, np.ndarray) and first.ndim == 2 and first.shape[1] == 1
        return first[:, 0] if is_column and self.form is AnswerForm.VALUES else first


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """One output as the graph declares it."""

    name: str
    type: str
    shape: Sequence[Any]

    @property
    def is_label(self) -> bool:
        """True if its type can hold labels."""
        return self.type in LABEL_TYPES


@dataclass(frozen=True, slots=True)
class FoundOutputs:
    """The methods that were found, the default one first, and the names of the outputs that answer no method."""

    answers: Mapping[Method, MethodOutput]
    width: int
    kind: ModelKind
    classes: tuple[tuple[Label, ...], ...] | None = None
    left_out: tuple[str, ...] = ()


def use_predict_only(outputs: Sequence[GraphOutput]) -> FoundOutputs:
    """Return the result for a graph that accepts no made-up rows: the label, or else the first output, is `predict`."""
    place = _find_prediction(outputs)
    left_out = tuple(each.name for index, each in enumerate(outputs) if index != place)
    return FoundOutputs({"predict": MethodOutput((place,), AnswerForm.VALUES)}, 1, ModelKind.OTHER, None, left_out)


def find_methods(
    outputs: Sequence[GraphOutput], values: Sequence[Any], rows: int, two_classes: Sequence[Label] = ()
) -> FoundOutputs:
    """Return which methods the outputs answer, from the `values` the graph gave for `rows` different rows. Pure.

    `two_classes` are the labels of a classifier of two classes, in order, where the graph lists them.
    """
    place = _find_prediction(outputs)
    is_transposed = isinstance(values[place], np.ndarray) and values[place].shape == (1, rows) and rows > 1
    prediction = MethodOutput((place,), AnswerForm.TRANSPOSED if is_transposed else AnswerForm.VALUES)
    first = np.asarray(prediction.read([values[place]]))
    width = int(np.prod(first.shape[1:], dtype=int))
    labels = first if outputs[place].is_label and first.shape == (rows,) else None
    answers: dict[Method, MethodOutput] = {"predict": prediction}
    classes = _find_constant_classes(outputs, values)
    for group in _group_outputs(outputs, values, rows):
        if group == (place,) and outputs[place].is_label:
            continue
        own = [values[index] for index in group]
        found = _find_method(outputs[group[0]], own, labels, two_classes, has_label=outputs[place].is_label)
        if found is not None and found[0] not in answers:
            answers[found[0]] = MethodOutput(group, found[1])
    used = {index for answer in answers.values() for index in answer.places}
    known = used | {index for index, each in enumerate(outputs) if classes is not None and each.name == _CLASSES_NAME}
    left_out = tuple(each.name for index, each in enumerate(outputs) if index not in known)
    if outputs[place].is_label and "predict_proba" in answers:
        return FoundOutputs(
            answers, width, ModelKind.CLASSIFIER, _find_classes(answers["predict_proba"], values, classes), left_out
        )
    is_regressor = len(outputs) == 1 and width == 1 and not outputs[place].is_label and first.dtype.kind == "f"
    return FoundOutputs(answers, width, ModelKind.REGRESSOR if is_regressor else ModelKind.OTHER, None, left_out)


def _find_prediction(outputs: Sequence[GraphOutput]) -> int:
    """Return the place of the prediction: the only output that is a label by type and name, or else the first."""
    named = [index for index, each in enumerate(outputs) if each.is_label and each.name in _LABEL_NAMES]
    return named[0] if len(named) == 1 and not outputs[0].is_label else 0


def _group_outputs(outputs: Sequence[GraphOutput], values: Sequence[Any], rows: int) -> list[tuple[int, ...]]:
    """Return the places of outputs in groups: single outputs, and successive flat outputs, one for each class."""
    groups: list[tuple[int, ...]] = []
    for index, (output, value) in enumerate(zip(outputs, values, strict=True)):
        is_flat = isinstance(value, np.ndarray) and value.shape == (rows,) and value.dtype.kind == "f" and index > 0
        before = groups[-1] if groups else ()
        is_after_flat = bool(before) and before[0] > 0 and np.shape(values[before[-1]]) == (rows,)
        if is_flat and is_after_flat and not outputs[before[-1]].is_label and output.name != "score_samples":
            groups[-1] = (*before, index)
        else:
            groups.append((index,))
    return groups


def _find_method(
    output: GraphOutput, values: Sequence[Any], labels: Any, two_classes: Sequence[Label], *, has_label: bool
) -> tuple[Method, AnswerForm] | None:
    """Return the method that a group of outputs answers, and how; None if unknown. `output` is the first of them."""
    name = output.name
    if output.is_label:
        return None
    scores = _join_scores(values)
    if (has_label or name in _PROBABILITY_NAMES) and _are_probabilities(scores):
        return "predict_proba", AnswerForm.SCORES
    if len(values) > 1 or not isinstance(scores, np.ndarray) or scores.ndim > 2 or scores.dtype.kind != "f":
        return None
    if name == "score_samples" and scores.size == len(scores):
        return "score_samples", AnswerForm.VALUES
    if labels is None or len(labels) != len(scores):
        return None
    is_finite = np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    return _find_score_method(name, scores[is_finite], labels[is_finite], two_classes) if is_finite.any() else None


# --- the meaning of scores, found from the labels of the same rows ----------------------------------------------------


def _find_score_method(
    name: str, scores: NDArray[Any], labels: NDArray[Any], two_classes: Sequence[Label]
) -> tuple[Method, AnswerForm] | None:
    is_named = name in (*_PROBABILITY_NAMES, _SCORES_NAME)
    if scores.size == len(scores):
        two = two_classes or ((_OUTLIER, _INLIER) if is_named else ())
        return ("decision_function", AnswerForm.VALUES) if _labels_follow_signs(scores.ravel(), labels, two) else None
    if name == _SCORES_NAME and labels.dtype.kind == "i" and bool((scores >= 0).all()):
        return ("transform", AnswerForm.WHOLE) if np.array_equal(scores.argmin(axis=1), labels) else None
    if scores.shape[1] == 2:
        form = _find_pair_form(scores, labels, two_classes)
        return ("decision_function", form) if form is not None else None
    return (
        ("decision_function", AnswerForm.SCORES) if _labels_follow_largest(scores, labels, is_named=is_named) else None
    )


def _find_pair_form(scores: NDArray[Any], labels: NDArray[Any], two_classes: Sequence[Label]) -> AnswerForm | None:
    """Return which of two columns, one the negative of the other, contains the scores of the second class."""
    if not np.array_equal(scores[:, 0], -scores[:, 1]):
        return None
    forms = (
        form for form, column in ONE_COLUMN.items() if _labels_follow_signs(scores[:, column], labels, two_classes)
    )
    return next(forms, None)


def _labels_follow_signs(scores: NDArray[Any], labels: NDArray[Any], two_classes: Sequence[Label]) -> bool:
    """Say whether negative scores have one label, and positive scores have one greater label.

    If all scores have the same sign, only the list of both labels decides.
    """
    below, above = labels[scores < 0], labels[scores > 0]
    if len(below) and len(above):
        return bool((below == below[0]).all() and (above == above[0]).all() and below[0] < above[0])
    side = below if len(below) else above
    return len(two_classes) == 2 and len(side) > 0 and bool((side == two_classes[int(len(above) > 0)]).all())


def _labels_follow_largest(scores: NDArray[Any], labels: NDArray[Any], *, is_named: bool) -> bool:
    """Say whether each label is that of the largest score, with the classes in order.

    If the output has an exporter's own name, 75 percent of the rows are enough: SVC counts votes. Scores of norm one
    were scaled by the exporter, and the estimator gives others.
    """
    if np.allclose(np.abs(scores).sum(axis=1), 1, atol=_SHARE_TOLERANCE):
        return False
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
    pairs, counts = np.unique(np.column_stack([scores.argmax(axis=1), codes]), axis=0, return_counts=True)
    agreeing = 0
    kept: list[tuple[int, int]] = []
    for place in np.argsort(-counts, kind="stable"):  # the most frequent pairs decide which column has which label
        column, code = pairs[place].tolist()
        if all((column < other) == (code < one) and column != other and code != one for other, one in kept):
            kept.append((column, code))
            agreeing += int(counts[place])
    return agreeing >= _MIN_SHARE_OF_MATCHES * len(labels) if is_named else agreeing == len(labels) and len(kept) > 1


def _are_probabilities(scores: Any) -> bool:
    parts = scores if isinstance(scores, list) else [scores]
    return bool(parts) and all(map(_are_shares, parts))


def _are_shares(part: Any) -> bool:
    """Say whether each row is not negative and adds up to one; rows with NaN, as for unknown input, are ignored."""
    if not isinstance(part, np.ndarray) or part.ndim != 2 or part.dtype.kind != "f":
        return False
    whole = part[~np.isnan(part).any(axis=1)]
    is_one = np.allclose(whole.sum(axis=1), 1, atol=_SHARE_TOLERANCE)
    return bool(len(whole) and (whole >= 0).all() and is_one)


# --- classes and forms ------------------------------------------------------------------------------------------------


def _join_scores(outputs: Sequence[Any]) -> Any:
    """Return an array (rows, classes), or a list of these, from a tensor, from maps, or a tensor for each class."""
    first = outputs[0]
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return np.array([list(row.values()) for row in first], dtype=np.float32)
    if isinstance(first, np.ndarray) and first.ndim == 3:
        return list(first)
    if len(outputs) > 1:
        return np.column_stack(cast(list[NDArray[Any]], outputs))
    return first


def _find_constant_classes(outputs: Sequence[GraphOutput], values: Sequence[Any]) -> tuple[Label, ...] | None:
    for output, value in zip(outputs, values, strict=True):
        is_constant = len(output.shape) == 1 and isinstance(output.shape[0], int)
        if output.name == _CLASSES_NAME and output.is_label and is_constant:
            return tuple(value.tolist())
    return None


def _find_classes(
    answer: MethodOutput, values: Sequence[Any], constant: tuple[Label, ...] | None
) -> tuple[tuple[Label, ...], ...] | None:
    """Return the labels of the columns: the keys of maps, or the labels in a constant output."""
    first = values[answer.places[0]]
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return (tuple(first[0]),)
    scores = _join_scores([values[place] for place in answer.places])
    is_for_each = constant is not None and isinstance(scores, np.ndarray) and scores.shape[1] == len(constant)
    return (constant,) if constant is not None and is_for_each else None

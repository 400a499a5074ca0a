"""Classifiers made of binary classifiers: one for each pair of classes, one for each bit of a code, chains."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.converter_registry import draw_answer, draw_numeric_answer, register_converter
from serving.compiling.converters.kernels import draw_nearest, draw_ovr_scores
from serving.compiling.converters.labels import (
    draw_label_by_largest,
    draw_label_by_truth,
    flatten_column,
    reshape_to_column,
    take_labels,
)
from serving.compiling.drawing import Drawing, NotCompilable


def draw_confidence(part: Any, rows: Rows) -> str:
    """Return (rows, 1): the score of a binary classifier, else its second probability, or the value of a regressor."""
    drawing = rows.drawing
    if type(part).__name__ == "_ConstantPredictor":  # for a bit that all classes have in common
        matrix = rows.select_columns([0]).draw_matrix()
        is_any = drawing.draw_node("Or", drawing.draw_node("Equal", matrix, matrix), drawing.draw_node("IsNaN", matrix))
        one = drawing.draw_node("Cast", is_any, to=TensorProto.DOUBLE)
        return drawing.draw_node("Mul", one, drawing.add_constant(float(part.y_[0])))
    if not hasattr(part, "classes_"):
        return reshape_to_column(drawing, draw_numeric_answer(part, rows, "predict"))
    if len(part.classes_) != 2:
        raise NotCompilable(f"{type(part).__name__} of one class inside another has no compiled form")
    if hasattr(part, "decision_function"):
        return reshape_to_column(drawing, draw_answer(part, rows, "decision_function"))
    return _take_second(drawing, draw_answer(part, rows, "predict_proba"))


def _take_second(drawing: Drawing, shares: str) -> str:
    return drawing.draw_node("Gather", shares, drawing.add_constant(np.array([1], dtype=np.int64)), axis=1)


@register_converter("OneVsOneClassifier")
def draw_one_vs_one(part: Any, rows: Rows, method: str) -> Any:
    """Draw the votes of all pairs; of equal votes, the confidence of the pairs decides."""
    if part.pairwise_indices_ is not None or method not in ("predict", "decision_function"):
        return NotImplemented
    drawing = rows.drawing
    labels = [reshape_to_column(drawing, draw_numeric_answer(each, rows, "predict")) for each in part.estimators_]
    confidences = [draw_confidence(each, rows) for each in part.estimators_]
    is_second, between = (
        (drawing.draw_node("Concat", *columns, axis=1) if len(columns) > 1 else columns[0])
        for columns in (labels, confidences)
    )
    places = list(combinations(range(len(part.classes_)), 2))
    is_second = drawing.draw_node("Cast", is_second, to=TensorProto.BOOL)
    scores = draw_ovr_scores(drawing, is_second, drawing.draw_node("Neg", between), places)
    if len(part.classes_) > 2:
        return draw_label_by_largest(drawing, part.classes_, scores) if method == "predict" else scores
    score = flatten_column(drawing, _take_second(drawing, scores))
    if method == "decision_function":
        return score
    limit = 0.0 if hasattr(part.estimators_[0], "decision_function") else 0.5
    return draw_label_by_truth(drawing, part.classes_, drawing.draw_node("Greater", score, drawing.add_constant(limit)))


@register_converter("OutputCodeClassifier")
def draw_output_code(part: Any, rows: Rows, method: str) -> Any:
    """Draw the class whose code is nearest to the answers of the classifiers."""
    if method != "predict":
        return NotImplemented
    confidences = [draw_confidence(each, rows) for each in part.estimators_]
    joined = confidences[0] if len(confidences) == 1 else rows.drawing.draw_node("Concat", *confidences, axis=1)
    return take_labels(
        rows.drawing, part.classes_, draw_nearest(rows.with_matrix(joined, len(confidences)), part.code_book_)
    )


@register_converter("ClassifierChain")
def draw_classifier_chain(part: Any, rows: Rows, method: str) -> Any:
    """Draw each classifier on the rows and the answers before it; the registry draws ``predict_log_proba``."""
    if method not in ("predict", "predict_proba", "decision_function"):
        return NotImplemented
    extended, columns = rows, []
    for member in part.estimators_:
        columns.append(_draw_member_answer(member, extended, method))
        extended = extended.append_columns(
            [rows.with_matrix(_draw_member_answer(member, extended, part.chain_method_), 1)]
        )
    order = [columns[place] for place in np.argsort(part.order_).tolist()]
    return order[0] if len(order) == 1 else rows.drawing.draw_node("Concat", *order, axis=1)


def _draw_member_answer(member: Any, rows: Rows, method: str) -> str:
    if len(member.classes_) != 2:
        raise NotCompilable("ClassifierChain of other than two classes each has no compiled form")
    if method == "predict_proba":
        return _take_second(rows.drawing, draw_answer(member, rows, method))
    return reshape_to_column(rows.drawing, draw_numeric_answer(member, rows, method))

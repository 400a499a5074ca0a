"""Estimators that combine the answers of several others: bagging, calibration, one for each output or class."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.composition import draw_total
from serving.compiling.converters.converter_registry import draw_answer, draw_numeric_answer, register_converter
from serving.compiling.converters.forests import make_table
from serving.compiling.converters.isotonic import draw_interpolation
from serving.compiling.converters.labels import (
    draw_both_probabilities,
    draw_label_by_largest,
    draw_label_by_truth,
    draw_logistic,
    flatten_column,
    reshape_to_column,
)
from serving.compiling.drawing import Drawing, NotCompilable
from serving.compiling.tree_table import draw_sum

_CLASSIFIER_TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")
_REGRESSOR_TREES = ("DecisionTreeRegressor", "ExtraTreeRegressor")


def _have_types(members: Any, names: tuple[str, ...]) -> bool:
    return all(type(member).__name__ in names for member in members)


def _choose_columns(part: Any, place: int, rows: Rows) -> Rows:
    return rows.select_columns(np.asarray(part.estimators_features_[place]).tolist())


@register_converter("BaggingRegressor")
def draw_bagging_regressor(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the predictions; trees become one node."""
    if method != "predict":
        return NotImplemented
    drawing = rows.drawing
    members = part.estimators_
    if _have_types(members, _REGRESSOR_TREES) and members[0].n_outputs_ == 1:
        trees = [member.tree_ for member in members]
        table = make_table(trees, [tree.value[:, 0, 0] for tree in trees], part.estimators_features_)
        found = flatten_column(drawing, draw_sum(drawing, table, rows.draw_matrix()))
    else:
        found = draw_total(
            drawing,
            [
                draw_numeric_answer(member, _choose_columns(part, at, rows), "predict")
                for at, member in enumerate(members)
            ],
        )
    return drawing.draw_node("Div", found, drawing.add_constant(float(len(members))))


@register_converter("BaggingClassifier")
def draw_bagging_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the probabilities, and the label where it is largest."""
    drawing = rows.drawing
    if method not in ("predict", "predict_proba", "decision_function"):
        return NotImplemented
    if method == "decision_function":
        found = draw_total(
            drawing,
            [draw_answer(each, _choose_columns(part, at, rows), method) for at, each in enumerate(part.estimators_)],
        )
        return drawing.draw_node("Div", found, drawing.add_constant(float(len(part.estimators_))))
    shares = drawing.draw_node("Div", _draw_shares(part, rows), drawing.add_constant(float(len(part.estimators_))))
    return shares if method == "predict_proba" else draw_label_by_largest(drawing, part.classes_, shares)


def _draw_shares(part: Any, rows: Rows) -> str:
    members = part.estimators_
    if _have_types(members, _CLASSIFIER_TREES):
        values = []
        for member in members:
            value = np.zeros((member.tree_.node_count, part.n_classes_))
            value[:, np.asarray(member.classes_, dtype=np.int64)] = member.tree_.value[:, 0, :]
            values.append(value)
        table = make_table([member.tree_ for member in members], values, part.estimators_features_)
        return draw_sum(rows.drawing, table, rows.draw_matrix())
    if any(not hasattr(member, "predict_proba") or len(member.classes_) != part.n_classes_ for member in members):
        raise NotCompilable("BaggingClassifier of members without probabilities of all classes has no compiled form")
    shares = [
        draw_answer(member, _choose_columns(part, at, rows), "predict_proba") for at, member in enumerate(members)
    ]
    return draw_total(rows.drawing, shares)


# --- calibration ------------------------------------------------------------------------------------------------------


@register_converter("CalibratedClassifierCV")
def draw_calibrated_classifier(part: Any, rows: Rows, method: str) -> Any:
    """Draw the mean of the calibrated probabilities."""
    drawing = rows.drawing
    if method not in ("predict", "predict_proba"):
        return NotImplemented
    found = draw_total(drawing, [_draw_calibrated_member(each, rows) for each in part.calibrated_classifiers_])
    shares = drawing.draw_node("Div", found, drawing.add_constant(float(len(part.calibrated_classifiers_))))
    return shares if method == "predict_proba" else draw_label_by_largest(drawing, part.classes_, shares)


def _draw_calibrated_member(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    classes = len(part.classes)
    if part.method not in ("sigmoid", "isotonic") or not np.array_equal(part.classes, part.estimator.classes_):
        raise NotCompilable(f"CalibratedClassifierCV with method {part.method} has no compiled form")
    method = "decision_function" if hasattr(part.estimator, "decision_function") else "predict_proba"
    scores = draw_answer(part.estimator, rows, method)
    if classes == 2:
        one = np.array([1], dtype=np.int64)
        column = (
            reshape_to_column(drawing, scores)
            if method == "decision_function"
            else drawing.draw_node("Gather", scores, drawing.add_constant(one), axis=1)
        )
        return draw_both_probabilities(drawing, _draw_calibration(part.calibrators[0], drawing, column))
    made = []
    for place, calibrator in enumerate(part.calibrators):
        column = drawing.draw_node("Gather", scores, drawing.add_constant(np.array([place])), axis=1)
        made.append(_draw_calibration(calibrator, drawing, column))
    shares = drawing.draw_node("Concat", *made, axis=1)
    whole = drawing.draw_node("ReduceSum", shares, drawing.add_constant(np.array([1], dtype=np.int64)))
    is_none = drawing.draw_node("Equal", whole, drawing.add_constant(0.0))
    return drawing.draw_node(
        "Where", is_none, drawing.add_constant(1 / classes), drawing.draw_node("Div", shares, whole)
    )


def _draw_calibration(calibrator: Any, drawing: Drawing, column: str) -> str:
    if type(calibrator).__name__ == "IsotonicRegression":
        return draw_interpolation(calibrator, drawing, column)
    scaled = drawing.draw_node("Mul", column, drawing.add_constant(float(calibrator.a_)))
    moved = drawing.draw_node("Neg", drawing.draw_node("Add", scaled, drawing.add_constant(float(calibrator.b_))))
    return draw_logistic(drawing, moved)


# --- one estimator for each output or class ---------------------------------------------------------------------------


@register_converter("MultiOutputClassifier", "MultiOutputRegressor")
def draw_multi_output(part: Any, rows: Rows, method: str) -> Any:
    """Draw an estimator for each output."""
    drawing = rows.drawing
    if method == "predict_proba":
        return [draw_answer(each, rows, method) for each in part.estimators_]
    if method != "predict":
        return NotImplemented
    columns = [reshape_to_column(drawing, draw_answer(each, rows, method)) for each in part.estimators_]
    return drawing.draw_node("Concat", *columns, axis=1)


@register_converter("OneVsRestClassifier")
def draw_one_versus_rest(part: Any, rows: Rows, method: str) -> Any:
    """Draw an estimator for each class. Of equal scores the first class wins, because scikit-learn goes backwards."""
    drawing = rows.drawing
    members = part.estimators_
    if part.multilabel_ or any(type(each).__name__ == "_ConstantPredictor" for each in members):
        raise NotCompilable("OneVsRestClassifier of several labels or of constant classes has no compiled form")
    if method == "decision_function":
        scores = [draw_answer(each, rows, method) for each in members]
        return scores[0] if len(scores) == 1 else _join_columns(drawing, scores)
    if method == "predict_proba":
        second = _take_second_columns(part, rows)
        if len(members) == 1:
            return draw_both_probabilities(drawing, second)
        whole = drawing.draw_node("ReduceSum", second, drawing.add_constant(np.array([1], dtype=np.int64)))
        is_none = drawing.draw_node("Equal", whole, drawing.add_constant(0.0))
        return drawing.draw_node("Div", second, drawing.draw_node("Where", is_none, drawing.add_constant(1.0), whole))
    if method != "predict":
        return NotImplemented
    return _draw_one_versus_rest_label(part, rows)


def _draw_one_versus_rest_label(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    members = part.estimators_
    is_decision = hasattr(members[0], "decision_function")
    if len(members) == 1:
        if is_decision:
            score = draw_answer(members[0], rows, "decision_function")
            return draw_label_by_truth(
                drawing, part.classes_, drawing.draw_node("Greater", score, drawing.add_constant(0.0))
            )
        above = drawing.draw_node(
            "Greater", flatten_column(drawing, _take_second_columns(part, rows)), drawing.add_constant(0.5)
        )
        return draw_label_by_truth(drawing, part.classes_, above)
    if is_decision:
        scores = _join_columns(drawing, [draw_answer(each, rows, "decision_function") for each in members])
    else:
        scores = _take_second_columns(part, rows)
    return draw_label_by_largest(drawing, part.classes_, scores)


def _join_columns(drawing: Drawing, columns: list[str]) -> str:
    return drawing.draw_node("Concat", *(reshape_to_column(drawing, column) for column in columns), axis=1)


def _take_second_columns(part: Any, rows: Rows) -> str:
    drawing = rows.drawing
    one = drawing.add_constant(np.array([1], dtype=np.int64))
    found = [
        drawing.draw_node("Gather", draw_answer(each, rows, "predict_proba"), one, axis=1) for each in part.estimators_
    ]
    return found[0] if len(found) == 1 else drawing.draw_node("Concat", *found, axis=1)

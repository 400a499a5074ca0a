"""Correct graphs are proved, and wrong ones are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.decomposition import NMF
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from serving.compiling.convert import convert_estimator
from serving.compiling.drawing import NotCompilable
from serving.compiling.find_guard import find_guard
from serving.compiling.proof_rows import RowMaker
from serving.compiling.prove import prove_graphs
from serving.compiling.thresholds import find_thresholds
from serving.domain.compiled_form import Graph
from serving.host.estimator_model import EstimatorModel
from serving.host.signature_of_estimator import examine_estimator
from serving.rows.batch import Batch

pytestmark = pytest.mark.usefixtures("steady_rows")

TOLERANCE = 1e-5
RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(size=(120, 3))
LABELS = (ROWS[:, 0] - ROWS[:, 2] > 0).astype(int)


def fit_model(estimator: Any, rows: Any = ROWS, answers: Any = LABELS) -> EstimatorModel:
    return examine_estimator(estimator.fit(rows, answers), X=rows)


def alter_graph(graph: Graph, change: Any) -> Graph:
    """Return `graph` after `change` was called with its ONNX model."""
    loaded = onnx.load_from_string(bytes(graph.content))
    change(loaded)
    return Graph(loaded.SerializeToString(), graph.outputs)


def make_linear_graph(weights: list[float], offset: float) -> Graph:
    """Return a graph that answers ``predict`` with ``X @ weights + offset``."""
    nodes = [
        helper.make_node("MatMul", ["X", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None])],
        [numpy_helper.from_array(np.array(weights), "w"), numpy_helper.from_array(np.array(offset), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Graph(model.SerializeToString(), {"predict": ("y",)})


def test_a_correct_graph_is_proved_on_all_kinds_of_rows() -> None:
    model = fit_model(DecisionTreeClassifier(random_state=0))
    golden = Batch(5, matrix=ROWS[:5].copy())
    proof = prove_graphs(model, [convert_estimator(model)], TOLERANCE, [golden])
    tried = {one.kind: one.rows for one in proof.rows}
    assert tried["examples"] == 5
    assert {"near examples", "random", "far", "thresholds", "extremes"} <= tried.keys()
    assert proof.engine == "onnx"
    assert proof.largest_difference is not None
    assert proof.largest_difference < 1e-12
    assert proof.guard.largest is not None  # trees take float32
    assert 1e30 <= proof.guard.largest < 1e39


def test_a_linear_model_has_no_limit_of_numbers() -> None:
    proof = prove_graphs(model := fit_model(LinearRegression()), [convert_estimator(model)], TOLERANCE, [])
    assert proof.guard.is_open


def test_a_number_beyond_the_tolerance_is_not_proved() -> None:
    model = fit_model(LinearRegression(), answers=ROWS @ [1.0, 2.0, 3.0])
    good = make_linear_graph(model.estimator.coef_.tolist(), float(model.estimator.intercept_))
    assert prove_graphs(model, [good], TOLERANCE, []).engine == "onnx"
    slightly_off = make_linear_graph((model.estimator.coef_ * 1.0001).tolist(), float(model.estimator.intercept_))
    with pytest.raises(NotCompilable, match=r"beyond engine.compile_tolerance"):
        prove_graphs(model, [slightly_off], TOLERANCE, [])
    assert prove_graphs(model, [slightly_off], 1e-2, []).largest_difference > 0  # type: ignore[operator]


def test_small_numbers_are_compared_by_their_own_scale() -> None:
    model = fit_model(LinearRegression(), answers=ROWS @ [1e-9, 2e-9, 3e-9])
    off = make_linear_graph((model.estimator.coef_ * 1.01).tolist(), float(model.estimator.intercept_))
    with pytest.raises(NotCompilable, match=r"beyond engine.compile_tolerance"):
        prove_graphs(model, [off], TOLERANCE, [])


def test_one_threshold_off_by_one_ulp_is_found() -> None:
    """Only rows exactly at the splits show the difference: one ulp of float32, which trees compare."""
    model = fit_model(DecisionTreeClassifier(max_depth=2, random_state=0))

    def nudge(loaded: Any) -> None:
        for node in loaded.graph.node:
            for attribute in node.attribute:
                if attribute.name in ("nodes_splits", "nodes_values_as_tensor"):
                    splits = numpy_helper.to_array(attribute.t).copy()
                    lower = np.nextafter(splits.astype(np.float32), np.float32(-np.inf))
                    changed = np.where(splits != 0, lower, splits)
                    attribute.t.CopyFrom(numpy_helper.from_array(changed.astype(splits.dtype)))

    graph = convert_estimator(model)
    assert prove_graphs(model, [graph], TOLERANCE, []).engine == "onnx"
    nudged = alter_graph(graph, nudge)
    assert nudged.content != graph.content
    with pytest.raises(NotCompilable, match="thresholds"):
        prove_graphs(model, [nudged], TOLERANCE, [])


def test_answers_of_another_shape_or_dtype_are_not_proved() -> None:
    model = fit_model(LinearRegression(), answers=ROWS[:, :1])  # answers (n, 1)
    flat = make_linear_graph(model.estimator.coef_[0].tolist(), float(model.estimator.intercept_[0]))
    with pytest.raises(NotCompilable, match=r"predict gives float64\(\d+,\), the estimator float64\(\d+, 1\)"):
        prove_graphs(model, [flat], TOLERANCE, [])


def test_a_graph_that_is_not_faster_is_not_used() -> None:
    model = fit_model(KNeighborsClassifier(), np.tile(ROWS, (20, 1)), np.tile(LABELS, 20))
    with pytest.raises(NotCompilable, match=r"not faster: 256 rows in .* us compiled"):
        prove_graphs(model, [convert_estimator(model)], TOLERANCE, [])


def test_the_guard_refuses_unknown_categories_that_the_estimator_refuses() -> None:
    table = pd.DataFrame({"kind": np.resize(["a", "b", "c"], 120), "x": ROWS[:, 0]})
    branches = make_column_transformer((OneHotEncoder(), ["kind"]), remainder=StandardScaler())
    model = fit_model(make_pipeline(branches, LogisticRegression()), table)
    assert find_guard(model).known == {0: ("a", "b", "c")}
    proof = prove_graphs(model, [convert_estimator(model)], TOLERANCE, [])
    assert proof.guard.known == {0: ("a", "b", "c")}


def test_unknown_categories_that_the_estimator_takes_are_tried() -> None:
    table = pd.DataFrame({"kind": np.resize(["a", "b", "c"], 120), "x": ROWS[:, 0]})
    branches = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    model = fit_model(make_pipeline(branches, LogisticRegression()), table)
    assert find_guard(model).known == {}
    assert {"categories"} <= {one.kind for one in prove_graphs(model, [convert_estimator(model)], TOLERANCE, []).rows}


def test_the_guard_refuses_negative_numbers_that_the_estimator_refuses() -> None:
    assert find_guard(fit_model(NMF(2, random_state=0, max_iter=500), np.abs(ROWS), None)).smallest == 0.0
    assert find_guard(fit_model(LogisticRegression())).smallest is None


def test_missing_values_are_tried_where_the_model_takes_them() -> None:
    rows = ROWS.copy()
    rows[::7, 1] = np.nan
    model = fit_model(DecisionTreeRegressor(random_state=0), rows)
    assert "missing" in {one.kind for one in prove_graphs(model, [convert_estimator(model)], TOLERANCE, []).rows}


def test_rows_at_thresholds_are_exactly_there_and_one_ulp_to_each_side() -> None:
    model = fit_model(DecisionTreeClassifier(max_depth=1, random_state=0))
    (feature, (split,)) = next(iter(find_thresholds(model.estimator, 3).items()))
    maker = RowMaker(model, find_guard(model), {feature: np.array([split])}, [])
    cells = {
        cell
        for kind, batch in maker.make_batches(2048)
        if kind == "thresholds" and batch.matrix is not None
        for cell in batch.matrix[:, feature]
    }
    assert {split, np.nextafter(split, np.inf), np.nextafter(split, -np.inf)} <= cells
    single = np.float32(split)
    assert {float(np.nextafter(single, np.float32(side))) for side in (np.inf, -np.inf)} <= cells

"""ONNX files as graphs of the server: they answer as OnnxModel does, or stay in their host."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, OneClassSVM

from serving.compiling.compile_model import compile_in_worker, compile_model
from serving.compiling.drawing import NotCompilable
from serving.compiling.find_guard import find_guard
from serving.compiling.forked_worker import ForkedWorker
from serving.compiling.onnx_files import add_known_texts, convert_file
from serving.compiling.proof_rows import RowMaker
from serving.compiling.prove import prove_graphs
from serving.domain.compiled_form import Compilation, Graph
from serving.domain.errors import InvalidInput
from serving.domain.signature import ModelKind, Signature
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.onnx_model import OnnxModel, load_onnx
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from serving.wire.evaluation import CompileRequest

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(size=(90, 4)).astype(np.float32)
LABELS = np.arange(90) % 3
WORDS = np.array(["a", "b", "c"])[LABELS]
FLOATS = [("X", FloatTensorType([None, 4]))]
TABLE = pd.DataFrame({"kind": np.resize(["red", "green", "blue"], 90), "size": np.linspace(0, 1, 90)})
TABLE_TYPES = [("kind", StringTensorType([None, 1])), ("size", FloatTensorType([None, 1]))]


def write_model(directory: Path, graph: Any, declared: Signature | None = None) -> OnnxModel:
    (directory / "blob").write_bytes(graph.SerializeToString())
    return load_onnx(str(directory / "blob"), declared)


def convert_and_load(directory: Path, estimator: Any, types: Any = FLOATS, **options: Any) -> OnnxModel:
    with warnings.catch_warnings(action="ignore"):  # skl2onnx is behind scikit-learn in attributes it reads
        return write_model(directory, convert_sklearn(estimator, initial_types=types, options=options or None))


def make_table_model(directory: Path, unknown: str) -> OnnxModel:
    branches = make_column_transformer((OneHotEncoder(handle_unknown=unknown), ["kind"]), remainder=StandardScaler())
    estimator = make_pipeline(branches, LogisticRegression()).fit(TABLE, (TABLE["size"] > 0.5).map(str))
    return convert_and_load(directory, estimator, TABLE_TYPES)


def assert_proved(model: OnnxModel) -> dict[str, int]:
    """Check that every method answers exactly alike, together and alone, on all kinds of rows; returns their number."""
    subject = add_known_texts(model)
    first, *others = model.signature.methods
    for graphs in ([convert_file(subject)], [convert_file(subject, each) for each in ((first,), others) if each]):
        proof = prove_graphs(subject, bound_graphs(graphs, model.signature).graphs, 1e-5, [])
        assert proof.engine == "onnx"
        assert proof.largest_difference == 0.0
    return {one.kind: one.rows for one in proof.rows}


def make_simple_model(
    directory: Path, *nodes: Any, takes: int = TensorProto.FLOAT, width: int = 2, **options: Any
) -> OnnxModel:
    """Return a model of one input X and one output Y, made of `nodes`."""
    inputs = [helper.make_tensor_value_info("X", takes, [None, width])]
    outputs = [helper.make_tensor_value_info("Y", takes, [None, width])]
    graph = helper.make_graph(list(nodes), "simple", inputs, outputs, **options)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return write_model(directory, helper.make_model(graph, opset_imports=opsets, ir_version=8))


# --- files that are proved --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
@pytest.mark.parametrize("labels", [LABELS, WORDS], ids=["numbers", "words"])
def test_classifiers_of_all_forms_are_proved(tmp_path: Path, zipmap: Any, labels: Any) -> None:
    model = convert_and_load(tmp_path, LogisticRegression().fit(ROWS, labels), zipmap=zipmap)
    assert model.signature.methods == ("predict", "predict_proba")
    assert {"random", "far", "extremes"} <= assert_proved(model).keys()


def test_maps_are_read_in_the_order_of_their_keys(tmp_path: Path) -> None:
    model = convert_and_load(tmp_path, LogisticRegression().fit(ROWS, WORDS))
    file = onnx.load(tmp_path / "blob")
    (zip_map,) = [node for node in file.graph.node if node.op_type == "ZipMap"]
    zip_map.attribute[0].strings[:] = [b"c", b"a", b"b"]
    model = write_model(tmp_path, file)
    assert model.signature.classes == (("a", "b", "c"),)
    assert_proved(model)


@pytest.mark.parametrize(
    ("estimator", "labels", "methods"),
    [
        (SVC(), WORDS == "a", ("predict", "decision_function")),
        (SVC(), WORDS, ("predict", "decision_function")),
        (KMeans(3, n_init=1), None, ("predict", "transform")),
        (IsolationForest(n_estimators=3), None, ("predict", "decision_function", "score_samples")),
        (OneClassSVM(), None, ("predict", "decision_function")),
    ],
    ids=["two classes", "three classes", "clusters", "outliers", "one class"],
)
def test_further_outputs_are_proved(tmp_path: Path, estimator: Any, labels: Any, methods: Any) -> None:
    options = {"score_samples": True} if "score_samples" in methods else {}
    with warnings.catch_warnings(action="ignore"):
        graph = convert_sklearn(
            estimator.fit(ROWS, labels),
            initial_types=FLOATS,
            options={id(estimator): options} if options else None,
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
    model = write_model(tmp_path, graph)
    assert model.signature.methods == methods
    assert_proved(model)


@pytest.mark.parametrize("version", [None, 1, 8])
def test_trees_of_exporters_without_a_plain_opset_are_proved(tmp_path: Path, version: int | None) -> None:
    """CatBoost and onnxmltools write such files: no opset defines Identity and Cast, because the file has none."""
    with warnings.catch_warnings(action="ignore"):
        graph = convert_sklearn(RandomForestClassifier(3).fit(ROWS, LABELS), initial_types=FLOATS)
    kept = [each for each in graph.opset_import if each.domain] + [helper.make_opsetid("", version or 1)]
    assert {node.op_type for node in graph.graph.node} == {"TreeEnsembleClassifier", "Cast", "ZipMap"}
    (cast,) = [node for node in graph.graph.node if node.op_type == "Cast"]
    graph.graph.node.remove(cast)
    (trees,) = [node for node in graph.graph.node if node.op_type == "TreeEnsembleClassifier"]
    trees.output[0] = cast.output[0]
    del graph.opset_import[:]
    graph.opset_import.extend(kept if version else kept[:-1])
    assert_proved(write_model(tmp_path, graph))


def test_regressors_in_float64_and_with_flat_inputs_are_proved(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(ROWS, ROWS[:, 0] * 3)
    assert_proved(convert_and_load(tmp_path, fitted, [("X", DoubleTensorType([None, 4]))]))
    flat = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("a", "b")]
    node = helper.make_node("Sub", ["a", "b"], ["difference"])
    out = helper.make_tensor_value_info("difference", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([node], "flat", flat, [out])
    assert_proved(
        write_model(tmp_path, helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]))
    )


def test_several_outputs_and_several_inputs_are_proved(tmp_path: Path) -> None:
    several = MultiOutputClassifier(RandomForestClassifier(3, random_state=0)).fit(ROWS, np.c_[LABELS, LABELS % 2])
    assert_proved(convert_and_load(tmp_path, several, zipmap=False))
    two = [("A", FloatTensorType([None, 3])), ("flag", BooleanTensorType([None, 1]))]
    inputs = [
        helper.make_tensor_value_info(name, elem, [None, width])
        for (name, _), elem, width in zip(two, (TensorProto.FLOAT, TensorProto.BOOL), (3, 1), strict=True)
    ]
    nodes = [
        helper.make_node("Cast", ["flag"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["A", "number"], ["Y"]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 3])])
    assert_proved(
        write_model(tmp_path, helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]))
    )


def test_the_rows_of_the_proof_hold_texts_of_the_file(tmp_path: Path) -> None:
    subject = add_known_texts(make_table_model(tmp_path, "ignore"))
    assert_proved(subject)
    cells = {
        cell
        for _, batch in RowMaker(subject, find_guard(subject), {}, []).make_batches(256)
        for cell in batch.columns[0]
    }
    assert {"red", "green", "blue", "no such value"} <= cells


def test_transformers_are_proved(tmp_path: Path) -> None:
    graph = convert_sklearn(StandardScaler().fit(ROWS), initial_types=FLOATS)
    own = write_model(tmp_path, graph).signature
    model = write_model(
        tmp_path, graph, own.model_copy(update={"methods": ("transform",), "kind": ModelKind.TRANSFORMER})
    )
    assert model.signature.methods == ("transform",)
    assert_proved(model)


def test_numbers_beyond_float32_are_refused_by_both(tmp_path: Path) -> None:
    model = convert_and_load(tmp_path, LogisticRegression().fit(ROWS, LABELS))
    largest = prove_graphs(model, [convert_file(model)], 1e-5, []).guard.largest
    assert largest == float(np.finfo(np.float32).max)
    with pytest.raises(InvalidInput, match="numbers within float32"):
        model.answer("predict", rows_to_batch(model.signature, [[1e39, 0, 0, 0]]))


def test_the_default_method_has_a_graph_of_its_own(tmp_path: Path) -> None:
    model = convert_and_load(
        tmp_path, make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS), zipmap=False
    )
    label = onnx.load_from_string(bytes(convert_file(model, ("predict",)).content))
    both = onnx.load_from_string(bytes(convert_file(model).content))
    assert len(label.graph.node) < len(both.graph.node)


def compile_in_fork(model: OnnxModel, examples: list[Batch]) -> tuple[Compilation, tuple[Graph, ...]]:
    request = CompileRequest()
    return compile_in_worker(ForkedWorker(lambda: compile_model(model, request, examples)), model, request)


def test_a_file_is_compiled_where_onnxruntime_has_threads_already(tmp_path: Path) -> None:
    model = convert_and_load(tmp_path, RandomForestClassifier(5, random_state=0).fit(ROWS, LABELS))
    compilation, graphs = compile_in_fork(model, [rows_to_batch(model.signature, ROWS[:9].tolist())])
    assert (compilation.engine, compilation.largest_difference) == ("onnx", 0.0)
    assert compilation.rows[0].rows == 9
    assert [tuple(graph.outputs) for graph in graphs] == [("predict",), ("predict_proba",)]
    batch = rows_to_batch(model.signature, ROWS.tolist())
    for graph in graphs:
        for method in graph.outputs:
            assert GraphSession(graph).answer(method, batch).list_rows() == model.answer(method, batch).list_rows()


# --- files that stay --------------------------------------------------------------------------------------------------


def test_a_model_that_fails_on_unknown_text_stays_in_its_host(tmp_path: Path) -> None:
    compilation, graphs = compile_in_fork(make_table_model(tmp_path, "error"), [])
    assert (compilation.engine, graphs) == (None, ())
    assert "Unknown Category" in compilation.reason


@pytest.mark.parametrize("kind", [Int64TensorType, BooleanTensorType])
def test_integer_inputs_stay_in_their_host(tmp_path: Path, kind: Any) -> None:
    is_bool = kind is BooleanTensorType
    takes = TensorProto.BOOL if is_bool else TensorProto.INT64
    model = make_simple_model(tmp_path, helper.make_node("Identity", ["X"], ["Y"]), takes=takes)
    if is_bool:
        assert assert_proved(model)
        nullable = tuple(each.model_copy(update={"nullable": True}) for each in model.signature.features)
        model.signature = model.signature.model_copy(update={"features": nullable})
    with pytest.raises(NotCompilable, match="takes null" if is_bool else "takes int64"):
        convert_file(model)


def test_loops_and_unknown_operators_are_refused(tmp_path: Path) -> None:
    gelu = make_simple_model(tmp_path, helper.make_node("Gelu", ["X"], ["Y"], domain="com.microsoft"))
    assert assert_proved(gelu)
    constant = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    body = helper.make_graph(
        [helper.make_node("Neg", ["X"], ["n"])], "b", [], [helper.make_tensor_value_info("n", TensorProto.FLOAT, None)]
    )
    branch = helper.make_node("If", ["yes"], ["Y"], then_branch=body, else_branch=body)
    with pytest.raises(NotCompilable, match="the operator If branches or loops"):
        convert_file(make_simple_model(tmp_path, constant, branch))
    weights = numpy_helper.from_array(np.ones(2, np.float32), "W")
    bias = make_simple_model(
        tmp_path, helper.make_node("BiasGelu", ["X", "W"], ["Y"], domain="com.microsoft"), initializer=[weights]
    )
    compilation, graphs = compile_in_fork(bias, [])
    assert (compilation.engine, graphs) == (None, ())
    assert compilation.reason == "the operator BiasGelu of the domain 'com.microsoft' has no bounds that are known"


def test_only_sizes_that_depend_on_values_are_refused(tmp_path: Path) -> None:
    shape = helper.make_node("Shape", ["X"], ["shape"])
    zeros = helper.make_node("ConstantOfShape", ["shape"], ["zeros"])
    added = helper.make_node("Add", ["X", "zeros"], ["Y"])
    assert compile_in_fork(make_simple_model(tmp_path, shape, zeros, added), [])[0].engine == "onnx"
    nodes = [
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Equal", ["n", "m777"], ["is_it"]),
        helper.make_node("Cast", ["is_it"], ["one_or_none"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one_or_none", "many"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["blob"]),
        helper.make_node("ReduceMax", ["blob"], ["zero_again"], keepdims=0),
        helper.make_node("Add", ["X", "zero_again"], ["Y"]),
    ]
    numbers = {"zero": [0], "one": [1], "m777": [777], "many": [1 << 31]}
    values = [numpy_helper.from_array(np.array(value, dtype=np.int64), name) for name, value in numbers.items()]
    compilation, graphs = compile_in_fork(make_simple_model(tmp_path, shape, *nodes, initializer=values), [])
    assert (compilation.engine, graphs) == (None, ())
    assert compilation.reason == "ConstantOfShape: a size depends on values, which no analysis can bound"


def test_constants_in_other_files_are_refused(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((2, 2), dtype=np.float32), "W")
    model = make_simple_model(tmp_path, helper.make_node("MatMul", ["X", "W"], ["Y"]), initializer=[weights])
    assert assert_proved(model)
    file = onnx.load(tmp_path / "blob")
    onnx.save_model(file, tmp_path / "worker", save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(NotCompilable, match="in other files"):
        convert_file(load_onnx(str(tmp_path / "worker")))

"""Draw parts with skl2onnx: it converts each one alone, in float64, and its nodes are copied under new names."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from serving.compiling.converters.blocks import Rows
from serving.compiling.drawing import OPSETS, Drawing, NotCompilable
from serving.host.model import describe_exception

# measured: these answer alike in float64. Other converters of skl2onnx round to float32, or fail.
MEASURED = frozenset(
    {
        "KNeighborsClassifier",
        "KNeighborsRegressor",
        "KNeighborsTransformer",
        "KernelCenterer",
        "KernelPCA",
        "NeighborhoodComponentsAnalysis",
        "QuantileTransformer",
    }
)
_OF_DISTANCES = frozenset({"Identity", "Sub", "Abs", "Pow", "ReduceSum", "ReduceSumSquare"})
_OUTPUT = {"predict": 0, "predict_proba": 1, "decision_function": 1, "score_samples": 1}


def convert_method(part: Any, rows: Rows, method: str) -> str:
    """Draw `method` of `part`; raises NotCompilable when skl2onnx cannot."""
    name = type(part).__name__
    options: dict[str, Any] = {}
    is_classifier = hasattr(part, "classes_")
    if is_classifier:
        options = {"zipmap": False, "raw_scores": True} if method == "decision_function" else {"zipmap": False}
    if method == "score_samples":
        options = {"score_samples": True}
    if method not in _OUTPUT or (method == "predict_proba" and not is_classifier):
        raise NotCompilable(f"{method} of {name} has no compiled form")
    graph = _convert_alone(part, rows.width, options)
    place = _OUTPUT[method]
    if method == "score_samples":
        place = len(graph.output) - 1
    if place >= len(graph.output):
        raise NotCompilable(f"{method} of {name} has no compiled form")
    return _copy_output(rows.drawing, graph, rows.draw_matrix(), graph.output[place].name)


def convert_transform(part: Any, rows: Rows) -> Rows:
    """Draw ``transform`` of `part`; raises NotCompilable when skl2onnx cannot."""
    graph = _convert_alone(part, rows.width, {})
    place = 0
    name = _copy_output(rows.drawing, graph, rows.draw_matrix(), graph.output[place].name)
    as_numbers = rows.drawing.draw_node("Cast", name, to=TensorProto.DOUBLE)
    dims = graph.output[place].type.tensor_type.shape.dim
    return rows.with_matrix(as_numbers, _measure_width(part, dims))


def _measure_width(part: Any, dims: Any) -> int:
    if len(dims) == 2 and dims[1].dim_value:
        return int(dims[1].dim_value)
    try:
        return len(part.get_feature_names_out())
    except Exception:  # noqa: BLE001  (not every transformer knows)
        raise NotCompilable(f"{type(part).__name__} does not say how many columns it makes") from None


def _convert_alone(part: Any, width: int, options: dict[str, Any]) -> Any:
    if type(part).__name__ not in MEASURED:
        raise NotCompilable(f"{type(part).__name__} has no compiled form")
    from skl2onnx import convert_sklearn  # noqa: PLC0415  (takes a while to load)
    from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415

    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    opsets = {"": OPSETS[""], "ai.onnx.ml": 3}
    try:
        with warnings.catch_warnings(action="ignore"):
            made = convert_sklearn(
                part,
                initial_types=[("X", DoubleTensorType([None, width]))],
                target_opset=opsets,
                options={id(part): options} if options else None,
            )
    except Exception as error:  # noqa: BLE001  (skl2onnx raises whatever it meets)
        if "Unable to find" in str(error) or "No proper shape" in str(error) or "option" in str(error).lower():
            raise NotCompilable(f"{type(part).__name__} has no compiled form") from None
        raise NotCompilable(f"{type(part).__name__} cannot be converted ({describe_exception(error)})") from None
    return made.graph


def _copy_output(drawing: Drawing, graph: Any, matrix: str, output: str) -> str:
    """Copy the nodes of `graph` that `output` needs into the drawing; return the new name of `output`."""
    prefix = f"s{len(drawing.nodes)}_"
    needed = {output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    names = {each.name: matrix for each in graph.input}

    def get_new_name(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    for constant in graph.initializer:
        if constant.name in needed:
            constant.name = get_new_name(constant.name)
            drawing.constants.append(constant)
    for node in reversed(kept):
        if node.op_type == "Scan":
            _draw_distances(drawing, node, *map(get_new_name, (*node.input, node.output[1])))
            continue
        inputs, outputs = [get_new_name(name) for name in node.input], [get_new_name(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        node.name = ""
        drawing.nodes.append(node)
    return get_new_name(output)


def _draw_distances(drawing: Drawing, scan: Any, rows: str, stored: str, output: str) -> None:
    """Draw a Scan over the rows that a model stores without its loop: a compiled graph may have none.

    It computes all stored rows at once. `output` gets the distance of each one to each row: (stored, rows).
    """
    (body,) = (each.g for each in scan.attribute if each.name == "body")
    axis = drawing.add_constant(np.array([1], dtype=np.int64))
    last = drawing.add_constant(np.array([2], dtype=np.int64))
    state, row = (each.name for each in body.input)
    names = {state: drawing.draw_node("Unsqueeze", rows, axis), row: stored}
    for constant in body.initializer:
        names[constant.name] = drawing.add_constant(numpy_helper.to_array(constant))
    for node in body.node:
        inputs = [names[name] for name in node.input]
        if node.op_type.startswith("Reduce"):
            inputs[1] = last  # the axis of the columns: the stored rows have got an axis too
        if node.op_type not in _OF_DISTANCES:
            raise NotCompilable(f"distances by {node.op_type} have no compiled form")
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        names[node.output[0]] = drawing.draw_node(node.op_type, *inputs, **attributes)
    made = names[body.output[1].name]
    drawing.nodes.append(helper.make_node("Transpose", [made], [output], perm=[1, 0]))

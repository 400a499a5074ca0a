"""Turn an ``.onnx`` file into a graph for the server: the nodes of the file, between the inputs and outputs of a graph.

The nodes in front do what `OnnxModel` does to each request, the nodes behind do what it does to the answers: no ZipMap,
labels and single values flat. A model stays in its host if it refuses values that the guard cannot see (numbers that
are no integers), or if it has no bounds (`serving.host.graph_check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.compose import add_prefix
from onnx.external_data_helper import uses_external_data

from serving.compiling.convert import SAMPLE_ROWS, finish_graph
from serving.compiling.converters.blocks import Rows
from serving.compiling.converters.labels import reshape_to_column
from serving.compiling.drawing import OPSETS, Drawing, NotCompilable
from serving.compiling.graph_ends import declare_inputs
from serving.domain.compiled_form import Graph
from serving.domain.errors import ServingError
from serving.domain.signature import Dtype, Method
from serving.host.input_columns import MAX_VALUES
from serving.host.model import describe_exception
from serving.host.onnx_model import GraphInput, OnnxModel
from serving.host.onnx_outputs import ONE_COLUMN, AnswerForm, MethodOutput

PREFIX = "file/"
_PLAIN_DOMAINS = ("", "ai.onnx")
LEAST_IR_VERSION = 4  # before it, constants had to be inputs


def add_known_texts(model: OnnxModel) -> OnnxModel:
    """Return `model` with the texts of its file as known values: a proof with other words would prove little."""
    texts = _find_texts(_read_file(model.path))
    other = copy(model)
    other.columns = [
        replace(column, values=texts) if column.dtype is Dtype.STRING else column for column in model.columns
    ]
    return other


def convert_file(model: OnnxModel, methods: Sequence[Method] | None = None) -> Graph:
    """Return one graph answering `methods`, by default all it offers. Blocks. See `serving.domain.compiled_form`.

    Raises NotCompilable when the file needs other files, has unknown operators or operators that branch or loop, or
    takes other types than float32, float64, bools and text.
    """
    chosen = tuple(model.signature.methods if methods is None else methods)
    file = _read_file(model.path)
    opsets = {each.domain: each.version for each in file.opset_import}
    if {node.op_type for node in file.graph.node if node.domain in _PLAIN_DOMAINS} <= {"Identity"}:
        opsets[""] = OPSETS[
            ""
        ]  # exporters of trees give no opset, or an old one, and the nodes around the file need one
    drawing = Drawing(opsets=opsets, ir_version=max(file.ir_version, LEAST_IR_VERSION))
    for name, source in _feed_inputs(model, declare_inputs(model.signature, drawing)).items():
        drawing.nodes.append(helper.make_node("Identity", [source], [PREFIX + name]))
    _place_nodes(drawing, file.graph, {place for method in chosen for place in model.find_answer(method).places})
    batch = model.make_rows(SAMPLE_ROWS)
    try:
        wanted = {method: model.answer(method, batch).tensors for method in chosen}
        raw = model.run(batch)
    except ServingError as error:
        raise NotCompilable(f"the model does not answer made-up rows ({error})") from None
    try:
        drawn = {method: _draw_answers(drawing, file.graph, model.find_answer(method), raw) for method in chosen}
        return finish_graph(drawing, drawn, wanted, batch)
    except ServingError:
        raise
    except Exception as error:  # noqa: BLE001  (two libraries, and whatever the file holds)
        raise NotCompilable(f"the file cannot be joined to inputs and outputs ({describe_exception(error)})") from None


# --- the file ---------------------------------------------------------------------------------------------------------


def _read_file(path: str) -> Any:
    try:
        file = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # noqa: BLE001  (protobuf has its own tree of errors)
        raise NotCompilable(f"the file cannot be read a second time ({describe_exception(error)})") from None
    for node in file.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise NotCompilable(f"the operator {node.op_type} branches or loops, which may take any time")
    if file.functions or file.graph.sparse_initializer:
        raise NotCompilable("the file holds functions or sparse constants of its own")
    if any(map(uses_external_data, _find_tensors(file.graph))):
        raise NotCompilable("the file keeps its constants in other files")
    return add_prefix(file, PREFIX, rename_functions=False, inplace=True)


def _find_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _find_texts(file: Any) -> list[Any]:
    """Return the texts by which nodes look up categories: requests mostly hold these."""
    found: dict[str, None] = {}
    for node in file.graph.node:
        for attribute in node.attribute if node.op_type not in ("ZipMap", "Constant") else ():
            found.update(dict.fromkeys(text.decode("utf-8", "replace") for text in attribute.strings))
    return list(found)[: MAX_VALUES - 1]


def _place_nodes(drawing: Drawing, graph: Any, places: Set[int]) -> None:
    """Copy the nodes that the outputs at `places` need; onnxruntime would compute all others too."""
    needed = {graph.output[place].name for place in places}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            if node.op_type not in ("ZipMap", "SequenceConstruct"):
                kept.append(node)
    drawing.nodes.extend(reversed(kept))
    drawing.constants.extend(each for each in graph.initializer if each.name in needed)


# --- between the file and the conventions -----------------------------------------------------------------------------


def _feed_inputs(model: OnnxModel, rows: Rows) -> dict[str, str]:
    """Return for each input of the file the tensor to feed it."""
    fed, start = {}, 0
    for each in model.inputs:
        features = model.signature.features[start : start + each.width]
        if any(feature.dtype is not each.signature_dtype for feature in features):
            raise NotCompilable(f"the signature does not say what the input '{each.name}' takes")
        if each.signature_dtype is not Dtype.NUMBER and any(feature.nullable for feature in features):
            raise NotCompilable(f"the input '{each.name}' takes null, for which its type has no value")
        fed[each.name] = _cast_input(rows.drawing, each, rows.select_columns(range(start, start + each.width)))
        start += each.width
    return fed


def _cast_input(drawing: Drawing, each: GraphInput, own: Rows) -> str:
    if each.signature_dtype is Dtype.NUMBER:
        if each.dtype not in (
            np.float32,
            np.float64,
        ):  # inputs of other dtypes refuse or round numbers; a graph does not
            raise NotCompilable(f"the input '{each.name}' takes {np.dtype(each.dtype)}, and JSON knows only numbers")
        name = own.draw_matrix()
        name = drawing.draw_node("Cast", name, to=TensorProto.FLOAT) if each.dtype is np.float32 else name
    else:
        names = [block.name for block in own.blocks]
        name = names[0] if len(names) == 1 else drawing.draw_node("Concat", *names, axis=1)
    return (
        drawing.draw_node("Reshape", name, drawing.add_constant(np.array([-1], dtype=np.int64)))
        if each.is_flat
        else name
    )


def _draw_answers(drawing: Drawing, graph: Any, answer: MethodOutput, raw: Sequence[Any]) -> tuple[str, ...]:
    """Draw what `MethodOutput.read` does with the outputs, which look like `raw`."""
    names = [graph.output[place].name for place in answer.places]
    first = raw[answer.places[0]]
    if isinstance(first, list):
        names = list(_unpack_sequence(drawing, graph, names[0]))
    if answer.form in ONE_COLUMN:
        place = drawing.add_constant(np.array(ONE_COLUMN[answer.form], dtype=np.int64))
        return (drawing.draw_node("Gather", names[0], place, axis=1),)
    if answer.form is not AnswerForm.SCORES or isinstance(first, list):
        return tuple(names)
    if first.ndim == 3:
        places = [drawing.add_constant(np.array(place, dtype=np.int64)) for place in range(len(first))]
        return tuple(drawing.draw_node("Gather", names[0], place, axis=0) for place in places)
    if first.ndim == 1:
        columns = [drawing.draw_node("Cast", name, to=TensorProto.DOUBLE) for name in names]
        return (drawing.draw_node("Concat", *(reshape_to_column(drawing, column) for column in columns), axis=1),)
    return tuple(names)


def _unpack_sequence(drawing: Drawing, graph: Any, output: str) -> tuple[str, ...]:
    """Return the tensors of a sequence, or the one behind its maps, with columns in the order of the sorted keys."""
    node = next((node for node in graph.node if output in node.output), None)
    if node is not None and node.op_type == "SequenceConstruct":
        return tuple(node.input)
    if node is None or node.op_type != "ZipMap":
        raise NotCompilable("an output is a sequence, made by neither ZipMap nor SequenceConstruct")
    keys: list[Any] = [key for attribute in node.attribute for key in (*attribute.strings, *attribute.ints)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if order == list(range(len(keys))):
        return (str(node.input[0]),)
    return (drawing.draw_node("Gather", node.input[0], drawing.add_constant(np.array(order, dtype=np.int64)), axis=1),)

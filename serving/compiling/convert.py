"""Convert an estimator to one ONNX graph that gives the same answers.

The converters of `serving.compiling.converters` draw its parts; skl2onnx draws the others. A part without a converter
is refused: this module must never return a graph with other answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from serving.compiling import converters
from serving.compiling.converters.converter_registry import draw_answers
from serving.compiling.drawing import Drawing, NotCompilable, make_value_info
from serving.compiling.graph_ends import declare_inputs, fit_output
from serving.compiling.tree_table import refuse_nodes
from serving.domain.compiled_form import Graph
from serving.domain.errors import ServingError
from serving.domain.signature import Method
from serving.host.estimator_model import EstimatorModel
from serving.host.model import describe_exception
from serving.host.nested_estimators import is_from_sklearn
from serving.plane.graph import list_number_inputs, make_feed, open_session
from serving.rows.batch import Batch, Tensor

__all__ = ["MAX_NODES", "NotCompilable", "convert_estimator", "count_tree_nodes", "finish_graph"]

MAX_NODES = 2_000_000
SAMPLE_ROWS = 3


def convert_estimator(
    model: EstimatorModel, methods: Sequence[Method] | None = None, max_nodes: int = MAX_NODES
) -> Graph:
    """Return one graph answering `methods`, by default all that `model` offers; see `serving.domain.compiled_form`.

    Blocks, for seconds with a million tree nodes. Raises NotCompilable when a part has no compiled form or the trees
    have more than `max_nodes` nodes. To rows that the estimator refuses, the graph gives some answer.
    """
    nodes = count_tree_nodes(model.estimator)
    if nodes > max_nodes:
        raise refuse_nodes(nodes, max_nodes)
    chosen = tuple(model.signature.methods if methods is None else methods)
    batch = model.make_rows(SAMPLE_ROWS)
    try:
        wanted = {method: model.answer(method, batch).tensors for method in chosen}
    except ServingError as error:
        raise NotCompilable(f"the model does not answer made-up rows ({error})") from None
    assert converters.__all__  # importing the package registered them
    drawing = Drawing(max_tree_nodes=max_nodes)
    rows = declare_inputs(model.signature, drawing)
    try:
        with warnings.catch_warnings(action="ignore"):
            drawn = {method: draw_answers(model.estimator, rows, method) for method in chosen}
            return finish_graph(drawing, drawn, wanted, batch)
    except ServingError:
        raise
    except Exception as error:  # noqa: BLE001  (parts of another version may lack anything)
        raise NotCompilable(f"the model cannot be converted ({describe_exception(error)})") from None


def count_tree_nodes(estimator: Any) -> int:
    """Return the number of tree nodes in `estimator`, however deep they are nested; 0 when it has no trees."""
    total, waiting, seen = 0, [estimator], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, np.ndarray):
            waiting.extend(part.ravel().tolist() if part.dtype.kind == "O" else ())
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif type(part).__name__ == "Tree" and hasattr(part, "node_count"):
            total += int(part.node_count)
        elif type(part).__name__ == "TreePredictor":
            total += len(part.nodes)
        elif is_from_sklearn(part) and hasattr(part, "__dict__"):
            waiting.extend(vars(part).values())
    return total


def finish_graph(
    drawing: Drawing,
    drawn: dict[Method, tuple[str, ...]],
    wanted: dict[Method, tuple[Tensor, ...]],
    batch: Batch,
) -> Graph:
    """Run the graph once, and convert its outputs to the dtypes and shapes that the estimator gives."""
    for method, names in drawn.items():
        if len(names) != len(wanted[method]):
            raise NotCompilable(f"{method} gives {len(wanted[method])} arrays, and the graph {len(names)}")
    pairs = [
        (method, name, tensor) for method, names in drawn.items()
        for name, tensor in zip(names, wanted[method], strict=True)
    ]  # fmt: skip
    got = _run_once(drawing, [name for _, name, _ in pairs], batch)
    outputs: dict[Method, list[str]] = {method: [] for method in drawn}
    infos = []
    for place, ((method, name, tensor), array) in enumerate(zip(pairs, got, strict=True)):
        final = f"y{place}"
        drawing.nodes.append(helper.make_node("Identity", [fit_output(drawing, name, array, tensor)], [final]))
        like = np.asarray(tensor)
        infos.append(make_value_info(final, like.dtype, (None, *like.shape[1:])))
        outputs[method].append(final)
    return Graph(drawing.serialize(infos), {method: tuple(names) for method, names in outputs.items()})


def _run_once(drawing: Drawing, names: list[str], batch: Batch) -> list[NDArray[Any]]:
    infos = [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names)]
    session = open_session(drawing.serialize(infos), is_optimized=False)
    values = session.run(None, make_feed(batch, list_number_inputs(session)))
    found = dict(zip([info.name for info in infos], values, strict=True))
    return [np.asarray(found[name]) for name in names]

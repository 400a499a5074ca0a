"""Compares the analysis of every tensor with the tensor that onnxruntime makes.

The bounds follow from rules. If a rule is wrong about its kernel, later tensors may take any memory for numbers of rows
that are never run. But a wrong shape, or a wrong size in a list, shows with few rows, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from serving.domain.compiled_form import Graph
from serving.domain.errors import GraphRefused
from serving.host.graph_check.operation import AbstractTensor
from serving.plane.graph import list_number_inputs, make_feed, open_session
from serving.rows.batch import Batch

FEW_ROWS = (1, 3)


def compare_shapes(graph: Graph, known: Mapping[str, AbstractTensor], batches: Sequence[Batch]) -> None:
    """Run a graph in normal form with all tensors as outputs; raises GraphRefused if one differs from its description.

    Blocks. Call it only in a process that may die: a hostile graph may end it.
    """
    model: Any = onnx.ModelProto()
    model.ParseFromString(bytes(graph.content))
    kinds = {name: node.op_type for node in model.graph.node for name in node.output if name}
    del model.graph.output[:]
    model.graph.output.extend(map(helper.make_empty_tensor_value_info, kinds))
    for batch, values in _run_batches(model.SerializeToString(), [*kinds], batches):
        for name, value in zip(kinds, values, strict=True):
            if not _is_as_described(known[name], value, batch.rows):
                raise GraphRefused(f"{kinds[name]:.60}: with {batch.rows} rows its output differs from the analysis")


def _run_batches(content: bytes, names: list[str], batches: Sequence[Batch]) -> list[tuple[Batch, list[Any]]]:
    try:
        session = open_session(content, is_optimized=False)
        numbers = list_number_inputs(session)
        return [(batch, session.run(names, make_feed(batch, numbers))) for batch in batches]
    except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
        raise GraphRefused(f"its tensors cannot be computed one by one: {type(error).__name__}") from None


def _is_as_described(tensor: AbstractTensor, value: Any, rows: int) -> bool:
    if tuple(size.compute_for(rows) for size in tensor.shape) != np.shape(value):
        return False
    if tensor.sizes is None:
        return True
    found: list[Any] = np.ravel(value).tolist()
    return [size.compute_for(rows) for size in tensor.sizes] == found

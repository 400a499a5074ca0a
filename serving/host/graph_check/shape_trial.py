"""What the analysis says of every tensor, held against what onnxruntime makes of it.

A bound is computed by rules, and a rule that is wrong about its kernel hides a size: what is built on that may take any
memory for numbers of rows that are never tried. Where a rule is wrong about a shape, or about a size in a list, that
shows for few rows as for many.
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
    """Run a graph in normal form with all its tensors as outputs; raises GraphRefused where one is not as it is known.

    Blocks. For a process that may die of it.
    """
    model: Any = onnx.ModelProto()
    model.ParseFromString(bytes(graph.content))
    kinds = {name: node.op_type for node in model.graph.node for name in node.output if name}
    del model.graph.output[:]
    model.graph.output.extend(map(helper.make_empty_tensor_value_info, kinds))
    for batch, values in _runs(model.SerializeToString(), [*kinds], batches):
        for name, value in zip(kinds, values, strict=True):
            if not _is_as_known(known[name], value, batch.rows):
                raise GraphRefused(
                    f"{kinds[name]:.60}: it makes something else of {batch.rows} rows than is known of it"
                )


def _runs(content: bytes, names: list[str], batches: Sequence[Batch]) -> list[tuple[Batch, list[Any]]]:
    try:
        session = open_session(content, is_optimized=False)
        numbers = list_number_inputs(session)
        return [(batch, session.run(names, make_feed(batch, numbers))) for batch in batches]
    except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
        raise GraphRefused(f"its tensors cannot be looked at one by one: {type(error).__name__}") from None


def _is_as_known(tensor: AbstractTensor, value: Any, rows: int) -> bool:
    if tuple(size.for_rows(rows) for size in tensor.shape) != np.shape(value):
        return False
    if tensor.sizes is None:
        return True
    found: list[Any] = np.ravel(value).tolist()
    return [size.for_rows(rows) for size in tensor.sizes] == found

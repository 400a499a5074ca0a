"""Computes how much memory a graph takes for any number of rows, without running it.

Every tensor from input to output must have a shape whose axes are linear in the number of rows, or the graph is
refused. The bound is the memory of all tensors together, even if a runtime frees or shares some of them, plus the
scratch memory of the most demanding kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from serving.domain.errors import GraphRefused
from serving.host.graph_check import (
    elementwise_operators,
    ml_operators,
    reducing_operators,
    shape_operators,
    tree_operators,
)
from serving.host.graph_check.constants import read_tensor
from serving.host.graph_check.operation import CELL_BYTES, RULES, AbstractTensor, Operation, make_constant_tensor
from serving.host.graph_check.sizes import ZERO, Size, multiply_sizes

__all__ = [
    "MemoryAnalysis",
    "analyse_memory",
    "elementwise_operators",
    "ml_operators",
    "reducing_operators",
    "shape_operators",
    "tree_operators",
]  # importing these modules registers their rules

_MOST_BYTES_OF_A_NUMBER = 48  # a double as text, with the memory around it


@dataclass(frozen=True, slots=True)
class MemoryAnalysis:
    """What one run takes: bytes of memory, cells that may hold a text of the request, and tree nodes that a row visits.

    `longest_text` is the longest text that the graph holds or makes of a number, in bytes; `memory` includes it for
    each text cell. `outputs` are the output tensors by name; `tensors` are all tensors by name.
    """

    memory: Size
    texts: Size
    longest_text: int
    steps: int
    outputs: dict[str, AbstractTensor]
    tensors: dict[str, AbstractTensor]


def analyse_memory(model: Any, inputs: Mapping[str, AbstractTensor]) -> MemoryAnalysis:
    """Return what a run of a model in normal form takes; raises GraphRefused if it has no bound."""
    graph = model.graph
    versions = {each.domain: each.version for each in model.opset_import}
    known = {each.name: make_constant_tensor(read_tensor(each), each.data_type) for each in graph.initializer}
    if len(known) != len(graph.initializer):
        raise GraphRefused("two constants have one name")
    for name, tensor in inputs.items():
        _add_tensor(known, name, tensor)
    walk = _MemoryWalk(known)
    for node in graph.node:
        walk.take(node, versions[node.domain])
    outputs = {}
    for each in graph.output:
        if each.name not in known or each.name in outputs:
            raise GraphRefused(f"the output {each.name:.60} is not computed, or named twice")
        outputs[each.name] = known[each.name]
    longest = _find_longest_text(graph)
    memory = walk.memory + walk.scratch + walk.texts.scale(longest)
    return MemoryAnalysis(memory, walk.texts, longest, walk.steps, outputs, known)


class _MemoryWalk:
    """Walks through the nodes in their order, and adds up what they take."""

    def __init__(self, known: dict[str, AbstractTensor]) -> None:
        self.memory, self.scratch, self.texts, self.steps = ZERO, ZERO, ZERO, 0
        self._known = known
        for tensor in known.values():
            if tensor.constant is None:  # constants take no memory of a run
                self._count(tensor)

    def take(self, node: Any, version: int) -> None:
        operation = Operation(
            kind=node.op_type,
            version=version,
            inputs=[self._input(node, name) for name in node.input],
            attributes={each.name: each for each in node.attribute},
            outputs=len(node.output),
        )
        try:
            made = RULES[node.domain, node.op_type](operation)
        except GraphRefused:
            raise
        except Exception as error:  # noqa: BLE001  (a rule may raise anything for inputs that it does not expect)
            raise GraphRefused(f"{node.op_type:.60}: its inputs make no sense ({type(error).__name__})") from None
        if len(made) != len(node.output):
            operation.refuse(f"it has {len(node.output)} outputs")
        for name, tensor in zip(node.output, made, strict=True):
            if name:
                _check_shape(operation, tensor)
                _add_tensor(self._known, name, tensor)
                self._count(tensor)
        self.scratch = Size(
            max(self.scratch.per_row, operation.scratch.per_row), max(self.scratch.fixed, operation.scratch.fixed, 0)
        )
        self.steps += operation.steps

    def _input(self, node: Any, name: str) -> AbstractTensor | None:
        if not name:
            return None
        if name not in self._known:
            raise GraphRefused(f"{node.op_type:.60}: its input {name:.60} is computed by nothing before it")
        return self._known[name]

    def _count(self, tensor: AbstractTensor) -> None:
        cells = multiply_sizes(tensor.shape)
        if cells is None:
            raise GraphRefused("a tensor grows faster than the number of rows")
        self.memory += cells.scale(CELL_BYTES[tensor.dtype])
        if tensor.dtype == TensorProto.STRING:
            self.texts += cells


def _check_shape(operation: Operation, tensor: AbstractTensor) -> None:
    """Refuse a shape that may have no cells, except a list of sizes, and one that does not grow linearly."""
    operation.require_lengths(tensor.shape)
    cells = operation.count_cells(tensor.shape)
    is_list = tensor.dtype == TensorProto.INT64 and tensor.rank == 1 and cells.is_constant
    operation.require(is_list or cells.compute_for(1) >= 1, "a tensor could be without cells")


def _add_tensor(known: dict[str, AbstractTensor], name: str, tensor: AbstractTensor) -> None:
    if not name or name in known:
        raise GraphRefused(f"two tensors have the name {name:.60}")
    known[name] = tensor


def _find_longest_text(graph: Any) -> int:
    found = [0]
    tensors: list[Any] = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.STRING:
                found.append(_MOST_BYTES_OF_A_NUMBER)
            found.append(len(attribute.s))
            found.extend(map(len, attribute.strings))
            tensors.append(attribute.t)
    for tensor in tensors:
        found.extend(map(len, tensor.string_data))
    return max(found)

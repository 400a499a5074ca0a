"""How much memory a graph takes for any number of rows, found out without running it.

Every tensor between input and output has a shape whose axes are linear in the number of rows, or the graph is refused.
The bound is the sum of all of them, whatever a runtime frees or shares on the way, plus what the most demanding kernel
takes for itself.
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
from serving.host.graph_check.constants import array_of
from serving.host.graph_check.operation import CELL_BYTES, RULES, AbstractTensor, Operation, of_constant
from serving.host.graph_check.sizes import ZERO, Size, product

__all__ = [
    "Taken",
    "analyse",
    "elementwise_operators",
    "ml_operators",
    "reducing_operators",
    "shape_operators",
    "tree_operators",
]  # importing registers

_MOST_BYTES_OF_A_NUMBER = 48  # of a double as text, and what is around it in memory


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run takes: bytes, cells that may hold a text of the request, and nodes of trees that a row visits.

    `longest_text` is the longest text the graph itself holds or makes of a number, in bytes; it is counted into
    `memory` for each text. `outputs` are the tensors that come out, by their names; `tensors` are all there are.
    """

    memory: Size
    texts: Size
    longest_text: int
    steps: int
    outputs: dict[str, AbstractTensor]
    tensors: dict[str, AbstractTensor]


def analyse(model: Any, inputs: Mapping[str, AbstractTensor]) -> Taken:
    """Return what a run of a model in normal form takes; raises GraphRefused for what cannot be bounded."""
    graph = model.graph
    versions = {each.domain: each.version for each in model.opset_import}
    known = {each.name: of_constant(array_of(each), each.data_type) for each in graph.initializer}
    if len(known) != len(graph.initializer):
        raise GraphRefused("two constants have one name")
    for name, tensor in inputs.items():
        _add(known, name, tensor)
    walk = _Walk(known)
    for node in graph.node:
        walk.take(node, versions[node.domain])
    outputs = {}
    for each in graph.output:
        if each.name not in known or each.name in outputs:
            raise GraphRefused(f"the output {each.name:.60} is not computed, or named twice")
        outputs[each.name] = known[each.name]
    longest = _longest_text(graph)
    memory = walk.memory + walk.scratch + walk.texts.scaled(longest)
    return Taken(memory, walk.texts, longest, walk.steps, outputs, known)


class _Walk:
    """Goes through the nodes in their order, and adds up."""

    def __init__(self, known: dict[str, AbstractTensor]) -> None:
        self.memory, self.scratch, self.texts, self.steps = ZERO, ZERO, ZERO, 0
        self._known = known
        for tensor in known.values():
            if tensor.constant is None:  # constants were there before
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
        except Exception as error:  # noqa: BLE001  (whatever a rule did not expect of its inputs is no graph it knows)
            raise GraphRefused(f"{node.op_type:.60}: its inputs make no sense ({type(error).__name__})") from None
        if len(made) != len(node.output):
            operation.refuse(f"it has {len(node.output)} outputs")
        for name, tensor in zip(node.output, made, strict=True):
            if name:
                _check_shape(operation, tensor)
                _add(self._known, name, tensor)
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
        cells = product(tensor.shape)
        if cells is None:
            raise GraphRefused("a tensor grows faster than the number of rows")
        self.memory += cells.scaled(CELL_BYTES[tensor.dtype])
        if tensor.dtype == TensorProto.STRING:
            self.texts += cells


def _check_shape(operation: Operation, tensor: AbstractTensor) -> None:
    """Refuse what could be without cells, but for lists of sizes, and what does not grow linearly."""
    operation.lengths(tensor.shape)
    cells = operation.cells(tensor.shape)
    is_list = tensor.dtype == TensorProto.INT64 and tensor.rank == 1 and cells.is_constant
    operation.require(is_list or cells.for_rows(1) >= 1, "a tensor could be without cells")


def _add(known: dict[str, AbstractTensor], name: str, tensor: AbstractTensor) -> None:
    if not name or name in known:
        raise GraphRefused(f"two tensors have the name {name:.60}")
    known[name] = tensor


def _longest_text(graph: Any) -> int:
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

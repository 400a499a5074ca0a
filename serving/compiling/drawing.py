"""Build an ONNX graph: nodes and constants get names, and the same node is not drawn twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.domain.errors import ServingError

OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10
MAX_REMEMBERED_BYTES = 4096


class NotCompilable(ServingError):
    """A model has no graph that answers as it does; the message says in one sentence why."""


@dataclass(slots=True)
class Drawing:
    """Nodes and constants of one graph, in the order of computation. What is drawn is referred to by its name."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)
    max_tree_nodes: int = sys.maxsize
    opsets: Mapping[str, int] = field(default_factory=lambda: OPSETS)
    ir_version: int = IR_VERSION

    def draw_node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Draw a node with one output; returns its name."""
        return self.draw_node_with_outputs(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def draw_node_with_outputs(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Draw a node with several outputs; returns their names. The same node of the same inputs is drawn once."""
        is_small = all(isinstance(value, (int, float, str)) for value in attributes.values())
        key = (kind, domain, inputs, outputs, tuple(sorted(attributes.items()))) if is_small else None
        if key in self.known:
            return tuple(self.known[key])
        names = tuple(f"n{len(self.nodes)}_{place}" for place in range(outputs))
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), domain=domain, **attributes))
        if key is not None:
            self.known[key] = names
        return names

    def compute_once(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return the result of the first `compute` under `key`: trees are large, and methods share them."""
        if key not in self.known:
            self.known[key] = compute()
        return self.known[key]

    def add_constant(self, values: Any) -> str:
        """Add an array, which keeps its dtype, or a scalar; returns its name. Objects become strings."""
        array = np.asarray(values)
        key = None
        if array.nbytes <= MAX_REMEMBERED_BYTES:
            content = tuple(array.ravel().tolist()) if array.dtype.kind in "OU" else array.tobytes()
            key = ("constant", array.dtype.str, array.shape, content)
        if key in self.known:
            return str(self.known[key][0])
        name = f"k{len(self.constants)}"
        self.constants.append(make_tensor(array, name))
        if key is not None:
            self.known[key] = (name,)
        return name

    def serialize(self, outputs: list[Any]) -> bytes:
        """Return the bytes of a model with `outputs` (value infos)."""
        graph = helper.make_graph(self.nodes, "compiled", self.inputs, outputs)
        graph.initializer.extend(self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)
        content: bytes = made.SerializeToString()
        return content


def make_tensor(values: NDArray[Any], name: str = "") -> Any:
    """Return an array as a TensorProto; object and text arrays become strings."""
    if values.dtype.kind in "OU":
        texts: Any = [str(value).encode() for value in values.ravel().tolist()]
        return helper.make_tensor(name, TensorProto.STRING, values.shape, texts)
    return numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def make_value_info(name: str, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> Any:
    """Describe an input or output; objects are strings."""
    kind = TensorProto.STRING if dtype.kind in "OU" else onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_value_info(name, kind, shape)

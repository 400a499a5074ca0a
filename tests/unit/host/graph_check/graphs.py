"""Graphs made by hand, as a host might send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from serving.domain.compiled_form import Graph
from serving.domain.signature import Dtype, Feature, ModelKind, Signature

OPSETS = {"": 21, "ai.onnx.ml": 5}
Node = tuple[Any, ...]


def signature(width: int = 1, *, texts: bool = False, outputs: int = 1, **fields: Any) -> Signature:
    """Return a signature of some columns that offers ``predict``."""
    kind = Dtype.STRING if texts else Dtype.NUMBER
    features = tuple(Feature(name=f"x{place}", dtype=kind) for place in range(width))
    given = {"features": features, "methods": ("predict",), "kind": ModelKind.OTHER, "outputs": outputs, **fields}
    return Signature(**given)


def node(kind: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> Any:
    """Return a node; `inputs` and `outputs` are names in one text, ``-`` for one that is left out."""
    names = [["" if name == "-" else name for name in each.split()] for each in (inputs, outputs)]
    return helper.make_node(kind, *names, domain=domain, **attributes)


def constant(name: str, values: Any, dtype: Any = None) -> Any:
    """Return a constant; Python's integers are int64, its floats float64, its texts strings."""
    array = np.asarray(values, dtype)
    if array.dtype.kind == "U":
        return helper.make_tensor(name, TensorProto.STRING, array.shape, [text.encode() for text in array.ravel()])
    return numpy_helper.from_array(array, name)


def model(
    nodes: Sequence[Any],
    constants: Sequence[Any] = (),
    *,
    width: int = 1,
    texts: bool = False,
    outputs: Sequence[str] = ("y",),
    opsets: dict[str, int] = OPSETS,
) -> Any:
    """Return a model with the inputs of `signature` and these outputs without shapes."""
    if texts:
        inputs = [helper.make_tensor_value_info(f"c{place}", TensorProto.STRING, [None, 1]) for place in range(width)]
    else:
        inputs = [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, width])]
    given = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(list(nodes), "made", inputs, given, list(constants))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def graph_of(made: Any, **outputs: tuple[str, ...]) -> Graph:
    """Return a model as a host sends it; by default ``predict`` gives ``y``."""
    return Graph(made.SerializeToString(), outputs or {"predict": ("y",)})  # type: ignore[arg-type]

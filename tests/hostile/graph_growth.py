"""Graphs grown at random out of operators that have rules, with attributes that make sense in most places."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from serving.domain.compiled_form import Graph
from serving.domain.signature import Feature, Signature
from tests.hostile.graph_corpus import Sound

WIDTH = 4
SIGNATURE = Signature(
    features=tuple(Feature(name=f"x{place}") for place in range(WIDTH)), methods=("predict",), outputs=WIDTH
)
ML = "ai.onnx.ml"
_LIKE_ONE = (
    "Abs",
    "Neg",
    "Exp",
    "Sqrt",
    "Sigmoid",
    "Tanh",
    "Relu",
    "Floor",
    "Sign",
    "Softmax",
    "Identity",
    "Erf",
    "IsNaN",
)
_LIKE_TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Equal", "Greater", "LessOrEqual", "Mean", "Sum")
_REDUCING = ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ArgMax", "ArgMin")
_NUMBERS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


class _Grower:
    """A graph that grows; `names` are the tensors there are."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.nodes, self.constants = dice, [], []  # type: ignore[var-annotated]
        self.names = ["X"]

    def add(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        made = [f"t{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, domain=domain, **attributes))
        return made

    def constant(self, values: Any, dtype: Any = None) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def any(self) -> str:
        return self.dice.choice([*self.names[-4:], "X"])

    def number(self) -> str:
        return self.constant(self.dice.choice((0.0, 1.0, -2.5, 1e300, [1.0, 2.0, 3.0, 4.0], [[1.0]], [[1.0], [2.0]])))

    def grow(self) -> None:
        dice = self.dice
        kind = dice.choice(list(_STEPS))
        self.names += _STEPS[kind](self, dice)


def _axis(dice: random.Random) -> int:
    return dice.choice((0, 1, 1, 1, -1, -1, 2))


def _shape(grower: _Grower, dice: random.Random) -> str:
    """Return the name of a list of sizes: constant, or made of the shape of something."""
    if dice.random() < 0.5:
        return grower.constant(
            dice.choice(([-1], [-1, 4], [-1, 1], [0, -1], [0, 2, -1], [1, -1], [4], [2, 2])), np.int64
        )
    (shape,) = grower.add("Shape", grower.any())
    (first,) = grower.add("Gather", shape, grower.constant([dice.choice((0, 0, -1))], np.int64), axis=0)
    if dice.random() < 0.3:
        (first,) = grower.add(
            dice.choice(("Mul", "Add", "Sub", "Div")), first, grower.constant([dice.choice((1, 2))], np.int64)
        )
    if dice.random() < 0.7:
        (first,) = grower.add("Concat", first, grower.constant([dice.choice((1, 2, 4, -1))], np.int64), axis=0)
    return first


def _pieces(grower: _Grower, dice: random.Random) -> list[str]:
    numbers = [
        dice.choice((0, 1, 2, -1)),
        dice.choice((1, 2, 3, -1, 1 << 62)),
        _axis(dice),
        dice.choice((1, 1, 1, 2, -1)),
    ]
    return grower.add("Slice", grower.any(), *(grower.constant([number], np.int64) for number in numbers))


def _matrix(grower: _Grower, dice: random.Random) -> str:
    return grower.constant(np.ones(dice.choice(((4, 3), (4,), (3, 4), (1, 4, 2), (2, 4, 4), (4, 1)))))


_STEPS: dict[str, Any] = {
    "one": lambda g, d: g.add(d.choice(_LIKE_ONE), g.any()),
    "two": lambda g, d: g.add(d.choice(_LIKE_TWO), g.any(), d.choice((g.any, g.number))()),
    "where": lambda g, d: g.add(
        "Where", *g.add("Greater", g.any(), g.number()), g.any(), d.choice((g.any, g.number))()
    ),
    "cast": lambda g, d: g.add("Cast", g.any(), to=d.choice(_NUMBERS)),
    "double": lambda g, d: g.add("Cast", g.any(), to=TensorProto.DOUBLE),
    "matmul": lambda g, d: g.add("MatMul", g.any(), d.choice((_matrix, lambda g, d: g.any()))(g, d)),
    "gemm": lambda g, d: g.add("Gemm", g.any(), _matrix(g, d), transA=d.choice((0, 0, 1)), transB=d.choice((0, 1))),
    "reduce": lambda g, d: (
        g.add(kind, g.any(), keepdims=d.choice((0, 1)), axis=_axis(d))
        if (kind := d.choice(_REDUCING)).startswith("Arg")
        else g.add(kind, g.any(), g.constant([_axis(d)], np.int64), keepdims=d.choice((0, 1)))
    ),
    "reshape": lambda g, d: g.add("Reshape", g.any(), _shape(g, d), allowzero=d.choice((0, 0, 1))),
    "expand": lambda g, d: g.add("Expand", g.any(), _shape(g, d)),
    "tile": lambda g, d: g.add("Tile", g.any(), _shape(g, d)),
    "filled": lambda g, d: g.add("ConstantOfShape", _shape(g, d)),
    "flatten": lambda g, d: g.add("Flatten", g.any(), axis=_axis(d)),
    "squeeze": lambda g, d: g.add("Squeeze", g.any(), g.constant([_axis(d)], np.int64)),
    "unsqueeze": lambda g, d: g.add("Unsqueeze", g.any(), g.constant(d.choice(([0], [1], [-1], [0, 2])), np.int64)),
    "transpose": lambda g, d: g.add("Transpose", g.any(), perm=d.choice(([1, 0], [0, 1], [2, 0, 1]))),
    "concat": lambda g, d: g.add("Concat", *(g.any() for _ in range(d.choice((1, 2, 2, 3)))), axis=_axis(d)),
    "split": lambda g, d: g.add("Split", g.any(), outputs=2, axis=_axis(d), num_outputs=2),
    "slice": _pieces,
    "gather": lambda g, d: g.add(
        "Gather", g.any(), g.constant(d.choice((0, [0], [1, 0, -1], [[0, 1]])), np.int64), axis=_axis(d)
    ),
    "looked up": lambda g, d: g.add(
        "Gather", _matrix(g, d), *g.add("ArgMax", g.any(), axis=1, keepdims=d.choice((0, 1)))
    ),
    "elements": lambda g, d: g.add("GatherElements", x := g.any(), *g.add("ArgMin", x, axis=1, keepdims=1), axis=1),
    "topk": lambda g, d: g.add("TopK", g.any(), g.constant([d.choice((1, 2, 5))], np.int64), outputs=2, axis=_axis(d)),
    "cumsum": lambda g, d: g.add("CumSum", g.any(), g.constant(1, np.int64)),
    "pad": lambda g, d: g.add("Pad", g.any(), g.constant(d.choice(([0, 1, 0, 2], [0, 0, 1, 0], [1, 1])), np.int64)),
    "range": lambda g, d: g.add(
        "Range",
        g.constant(0, np.int64),
        *g.add("Squeeze", *g.add("Shape", g.any(), start=0, end=1)),
        g.constant(1, np.int64),
    ),
    "onehot": lambda g, d: g.add(
        "OneHot",
        *g.add("ArgMax", g.any(), axis=1, keepdims=0),
        g.constant([d.choice((3, 4))], np.int64),
        g.constant([0.0, 1.0]),
    ),
    "columns": lambda g, d: g.add(
        "ArrayFeatureExtractor", g.any(), g.constant([d.choice((0, 3))], np.int64), domain=ML
    ),
    "scaled": lambda g, d: g.add("Scaler", g.any(), domain=ML, offset=[1.0], scale=[2.0]),
    "normal": lambda g, d: g.add("Normalizer", g.any(), domain=ML, norm="L2"),
    "encoded": lambda g, d: g.add("OneHotEncoder", g.any(), domain=ML, cats_int64s=[0, 1], zeros=1),
}


def grown(dice: random.Random) -> Sound:
    """Return a graph of some steps, all of which its answer depends on."""
    grower = _Grower(dice)
    for _ in range(dice.choice((1, 2, 3, 5, 8))):
        grower.grow()
    total = "X"
    for name in dict.fromkeys(grower.names[1:]):
        (number,) = grower.add("Cast", name, to=TensorProto.DOUBLE)
        (one,) = grower.add("ReduceMax", number, keepdims=0)
        (total,) = grower.add("Add", total, one)
    grower.nodes.append(helper.make_node("Identity", [total], ["y"]))
    inputs = [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, WIDTH])]
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(grower.nodes, "grown", inputs, outputs, grower.constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(ML, 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Sound("grown", SIGNATURE, Graph(model.SerializeToString(), {"predict": ("y",)}))

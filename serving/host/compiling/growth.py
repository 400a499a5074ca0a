"""Whether the values in a request can decide how large an answer becomes: such a graph must not run in the server.

A proof tries many rows, but not every value. An operator that takes a size from its input (`Range`, `Expand`, ...) may
behave on all of them and ask for a terabyte when somebody sends the right number. So sizes must come from constants
and from shapes, which a proof covers.
"""

from __future__ import annotations

from typing import Any

# operator: the inputs that say how large its output is, by the ONNX operator schemas of opset 1 to 24
_SIZED_BY: dict[str, tuple[int, ...]] = {
    "Range": (0, 1, 2),
    "Expand": (1,),
    "Tile": (1, 2),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "OneHot": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "AffineGrid": (1,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "BlackmanWindow": (0,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "DFT": (1,),
    "STFT": (1, 3),
}
# these grow with what the texts hold, or are drawn at random to a size in an attribute
_REFUSED = frozenset({"StringSplit", "RandomNormal", "RandomUniform", "Multinomial", "ImageDecoder"})
# what arithmetic on shapes is made of; all inputs being sizes, the output is one
_ARITHMETIC = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Max", "Min", "ReduceProd", "ReduceSum", "ReduceMax"),
        *(
            "Cast",
            "Concat",
            "Gather",
            "Identity",
            "Reshape",
            "Slice",
            "Squeeze",
            "Unsqueeze",
            "Where",
            "Equal",
            "Range",
        ),
        *("ConstantOfShape", "Expand", "Tile"),
    }
)


def grows_by_value(graph: Any) -> str | None:
    """Return the operator of an ONNX graph whose output's size depends on values of the input, None without one."""
    sizes = {"", *(each.name for each in graph.initializer)}
    for node in graph.node:  # in topological order, which onnxruntime insists on
        if node.op_type in _REFUSED:
            return str(node.op_type)
        by = _SIZED_BY.get(node.op_type, ())
        if any(place < len(node.input) and node.input[place] not in sizes for place in by):
            return str(node.op_type)
        is_arithmetic = node.op_type in _ARITHMETIC and sizes.issuperset(node.input)
        if node.op_type in ("Constant", "Shape", "Size") or is_arithmetic:
            sizes.update(node.output)
    return None

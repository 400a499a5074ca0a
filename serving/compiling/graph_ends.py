"""Draw the ends of a graph: inputs as the signature defines them, outputs as the estimator gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.converters.blocks import Block, Rows
from serving.compiling.drawing import Drawing, NotCompilable, make_value_info
from serving.domain.compiled_form import COLUMN_PREFIX, MATRIX_INPUT
from serving.domain.signature import Dtype, Feature, Signature
from serving.rows.batch import Tensor

_DTYPES: dict[Dtype, np.dtype[Any]] = {
    Dtype.BOOL: np.dtype(np.bool_),
    Dtype.STRING: np.dtype(object),
}


def declare_inputs(signature: Signature, drawing: Drawing) -> Rows:
    """Declare the inputs that `signature` asks for, and return them as rows; raises NotCompilable."""
    for feature in signature.features:
        if feature.dtype is Dtype.ANY:
            raise NotCompilable(f"feature '{feature.name}' takes values of any type, and a column of a graph has one")
    if all(feature.dtype is Dtype.NUMBER for feature in signature.features):
        width = len(signature.features)
        drawing.inputs.append(make_value_info(MATRIX_INPUT, np.dtype(np.float64), (None, width)))
        return Rows(drawing, (Block(MATRIX_INPUT, width),))
    blocks = []
    for place, feature in enumerate(signature.features):
        name = f"{COLUMN_PREFIX}{place}"
        drawing.inputs.append(make_value_info(name, _choose_dtype(feature), (None, 1)))
        blocks.append(Block(name, 1, Dtype.NUMBER if _is_number(feature) else feature.dtype))
    return Rows(drawing, tuple(blocks))


def _is_number(feature: Feature) -> bool:
    """Say whether the input of a feature is float64: for numbers, and for bools that may be null (NaN)."""
    return feature.dtype is Dtype.NUMBER or (feature.dtype is Dtype.BOOL and feature.nullable)


def _choose_dtype(feature: Feature) -> np.dtype[Any]:
    return np.dtype(np.float64) if _is_number(feature) else _DTYPES[feature.dtype]


def fit_output(drawing: Drawing, name: str, got: NDArray[Any], wanted: Tensor) -> str:
    """Draw the conversion of a tensor that looks like `got` to the dtype and shape of `wanted`; returns its name."""
    like = np.asarray(wanted)
    is_text = like.dtype.kind in "OU"
    if got.size != like.size:
        raise NotCompilable(f"the graph gives {list(got.shape)} where the model gives {list(like.shape)}")
    if is_text != (got.dtype.kind in "OU"):
        raise NotCompilable("the graph gives numbers where the model gives text, or the other way round")
    if got.shape[1:] != like.shape[1:]:
        shape = drawing.add_constant(np.array([-1, *like.shape[1:]], dtype=np.int64))
        name = drawing.draw_node("Reshape", name, shape)
    if not is_text and got.dtype != like.dtype:
        name = drawing.draw_node("Cast", name, to=make_value_info("", like.dtype, ()).type.tensor_type.elem_type)
    return name

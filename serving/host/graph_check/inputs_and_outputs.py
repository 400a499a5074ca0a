"""Checks the inputs and outputs of a graph against the signature; see :mod:`serving.domain.compiled_form`."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from onnx import TensorProto, helper

from serving.compiling.drawing import Drawing
from serving.compiling.graph_ends import declare_inputs
from serving.domain.errors import GraphRefused
from serving.domain.signature import Method, Signature
from serving.host.graph_check.memory_analysis import MemoryAnalysis
from serving.host.graph_check.operation import CELL_BYTES, AbstractTensor
from serving.host.graph_check.sizes import ROWS, Size

# bytes of a text in an answer beside its characters: it becomes a Python object
_ANSWER_TEXT_BYTES = 96
_MOST_AXES = 3
_BY_CLASS = ("predict_proba", "predict_log_proba")


def check_inputs(signature: Signature, model: Any) -> dict[str, AbstractTensor]:
    """Return the inputs that a signature requires, and declare them anew in the model.

    Raises GraphRefused unless the model declares exactly these inputs.
    """
    drawing = Drawing()
    declare_inputs(signature, drawing)
    wanted = [(each.name, _describe_input(each)) for each in drawing.inputs]
    found = [(each.name, _describe_input(each)) for each in model.graph.input]
    if sorted(found, key=str) != sorted(wanted, key=str):
        raise GraphRefused("its inputs are not those that the signature asks for")
    del model.graph.input[:]
    model.graph.input.extend(drawing.inputs)
    return {name: tensor for name, tensor in wanted if tensor is not None}


def _describe_input(value: Any) -> AbstractTensor | None:
    """Return a declared input of shape (rows, constant number of columns); None for any other declaration."""
    if value.type.WhichOneof("value") != "tensor_type":
        return None
    declared = value.type.tensor_type
    lengths = declared.shape.dim
    if len(lengths) != 2 or lengths[0].HasField("dim_value") or not lengths[1].HasField("dim_value"):
        return None
    return AbstractTensor(declared.elem_type, (ROWS, Size(0, lengths[1].dim_value)))


def declare_outputs(model: Any, outputs: Mapping[str, AbstractTensor]) -> None:
    """Declare the outputs with the types and shapes that the analysis found."""
    del model.graph.output[:]
    for name, tensor in outputs.items():
        lengths = [size.fixed if size.is_constant else None for size in tensor.shape]
        model.graph.output.append(helper.make_tensor_value_info(name, tensor.dtype, lengths))


def count_answer_bytes(
    signature: Signature, methods: Mapping[Method, tuple[str, ...]], analysis: MemoryAnalysis
) -> dict[Method, int]:
    """Return the bytes of one row of each method's answer, without texts of the request itself.

    Raises GraphRefused if the outputs of a method do not fit the signature.
    """
    outputs, text = analysis.outputs, analysis.longest_text
    named = [name for names in methods.values() for name in names]
    if not methods.keys() <= set(signature.methods) or sorted(set(named)) != sorted(outputs):
        raise GraphRefused("its outputs are not those of its methods")
    found: dict[Method, int] = {}
    for method, names in methods.items():
        widths = [_require_width(method, outputs[name]) for name in names]
        wanted = _list_allowed_widths(signature, method)
        if not names or (wanted and widths not in wanted):
            raise GraphRefused(f"{method} gives {widths} values for a row, the signature says {wanted[0]}")
        found[method] = sum(
            width * _count_answer_cell_bytes(outputs[name].dtype, text)
            for name, width in zip(names, widths, strict=True)
        )
    return found


def _list_allowed_widths(signature: Signature, method: Method) -> list[list[int]]:
    """Return the numbers of values that the arrays of a method may have for a row; [] if the signature has no rule."""
    if method == "predict":
        return [[signature.outputs]]
    if method in _BY_CLASS and signature.classes is not None:
        each = [len(labels) for labels in signature.classes]
        return [each, [len(each)]]  # chains of classifiers answer only the second class of each output
    return []


def _require_width(method: Method, tensor: AbstractTensor) -> int:
    shape = tensor.shape
    if not 1 <= len(shape) <= _MOST_AXES or shape[0] != ROWS or not all(size.is_constant for size in shape[1:]):
        raise GraphRefused(f"{method} does not give one entry for each row")
    return prod(size.fixed for size in shape[1:])


def _count_answer_cell_bytes(dtype: int, text: int) -> int:
    return _ANSWER_TEXT_BYTES + text if dtype == TensorProto.STRING else CELL_BYTES[dtype]

"""The rules of operators that compute cell by cell: the output has the shape to which the inputs broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, sub

import numpy as np
from onnx import TensorProto

from serving.host.graph_check.operation import CELL_BYTES, FRACTIONS, MICROSOFT, AbstractTensor, Operation, rule
from serving.host.graph_check.sizes import Size

Outputs = Sequence[AbstractTensor]


@rule(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "Elu"),
    *("Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Hardmax", "LeakyRelu", "Log", "LogSoftmax"),
    *("LpNormalization", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign"),
    *("Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Gelu", "Swish"),
)
@rule("BatchNormalization", "LayerNormalization")
@rule("FastGelu", "Gelu", "QuickGelu", domain=MICROSOFT)
def keep_shape(operation: Operation) -> Outputs:
    """Give one tensor with the shape and type of the first input; other inputs are parameters that broadcast to it."""
    first = operation.get_input(0)
    operation.require(operation.outputs == 1, "only its first output is known")
    for other in operation.inputs[1:]:
        if other is not None:
            operation.require(
                operation.broadcast_shapes(first.shape, other.shape) == first.shape, "a parameter is too large"
            )
    operation.scratch = _count_bytes(operation, first)
    return [AbstractTensor(first.dtype, first.shape)]


@rule("Identity")
def copy_input(operation: Operation) -> Outputs:
    """Give the input, with its content if that is known."""
    return [operation.get_input(0)]


@rule("Dropout")
def drop_nothing(operation: Operation) -> Outputs:
    """Give the input: dropout does nothing outside of training."""
    first = operation.get_input(0)
    training = operation.get_optional_input(2)
    is_off = training is None or (training.constant is not None and not training.constant.any())
    operation.require(is_off and operation.outputs == 1, "it drops cells at random")
    return [AbstractTensor(first.dtype, first.shape)]


@rule("IsInf", "IsNaN")
def mark_cells(operation: Operation) -> Outputs:
    """Give a bool for each cell."""
    return [AbstractTensor(TensorProto.BOOL, operation.get_input(0).shape)]


@rule("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
def compare_cells(operation: Operation) -> Outputs:
    """Give a bool for each cell of two broadcast tensors."""
    shape = operation.broadcast_shapes(operation.get_input(0).shape, operation.get_input(1).shape)
    return [AbstractTensor(TensorProto.BOOL, shape)]


@rule("Div", "Mod")
def divide_cells(operation: Operation) -> Outputs:
    """Give the quotients of two broadcast tensors. Integers are divided by constants only: 0 would end the process."""
    first, second = operation.get_input(0), operation.get_input(1)
    shape = operation.broadcast_shapes(first.shape, second.shape)
    made = AbstractTensor(first.dtype, shape)
    operation.scratch = _count_bytes(operation, made)
    if first.dtype in FRACTIONS:
        return [made]
    divisors = second.constant
    is_safe = divisors is not None and divisors.dtype.kind in "iu" and not np.isin(divisors, (0, -1)).any()
    operation.require(is_safe, "integers are divided by a number that may be 0 or -1")
    if operation.kind == "Mod" or first.sizes is None:
        return [made]
    by = operation.get_input_sizes(1)
    if len(by) != 1:
        return [made]
    sizes = [size.divide(by[0]) for size in first.sizes]
    return [made if None in sizes else AbstractTensor(first.dtype, shape, sizes=tuple(filter(None, sizes)))]


@rule("Max", "Mean", "Min", "PRelu", "Pow", "Sum")
def combine_inputs(operation: Operation) -> Outputs:
    """Give one tensor of all broadcast inputs, in the type of the first."""
    tensors = [operation.get_input(place) for place in range(len(operation.inputs))]
    made = AbstractTensor(tensors[0].dtype, operation.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    operation.scratch = _count_bytes(operation, made)
    return [made]


@rule("Add", "Mul", "Sub")
def compute_cells(operation: Operation) -> Outputs:
    """Give the results of two broadcast tensors. Integers from shape arithmetic stay known."""
    first, second = operation.get_input(0), operation.get_input(1)
    shape = operation.broadcast_shapes(first.shape, second.shape)
    operation.scratch = _count_bytes(operation, AbstractTensor(first.dtype, shape))
    return [AbstractTensor(first.dtype, shape, sizes=_compute_sizes(operation, first, second))]


def _compute_sizes(operation: Operation, first: AbstractTensor, second: AbstractTensor) -> tuple[Size, ...] | None:
    if first.dtype != TensorProto.INT64 or (first.sizes is None and second.sizes is None):
        return None
    if any(tensor.sizes is None and tensor.constant is None for tensor in (first, second)):
        return None
    left, right = operation.get_input_sizes(0), operation.get_input_sizes(1)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        return None
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    compute = {"Add": add, "Sub": sub, "Mul": Size.multiply}[operation.kind]
    made = [compute(one, other) for one, other in pairs]
    return None if None in made else tuple(made)


@rule("Where")
def choose_cells(operation: Operation) -> Outputs:
    """Give one tensor of three broadcast ones; the kernel first makes a tensor of each side."""
    condition, first, second = (operation.get_input(place) for place in range(3))
    made = AbstractTensor(first.dtype, operation.broadcast_shapes(condition.shape, first.shape, second.shape))
    operation.scratch = _count_bytes(operation, made).scale(2)
    return [made]


@rule("Cast")
def cast_cells(operation: Operation) -> Outputs:
    """Give the same cells in another type. Integers stay known if the new type holds all of them."""
    first, dtype = operation.get_input(0), operation.get_integer("to", 0)
    operation.require(dtype in CELL_BYTES, f"the element type {dtype} is not known")
    sizes = first.sizes if dtype == first.dtype == TensorProto.INT64 else None
    if sizes is None and dtype == TensorProto.INT64 and first.constant is not None and first.dtype == TensorProto.INT32:
        return [AbstractTensor(dtype, first.shape, constant=first.constant.astype(np.int64))]
    return [AbstractTensor(dtype, first.shape, sizes=sizes)]


def _count_bytes(operation: Operation, tensor: AbstractTensor) -> Size:
    return operation.count_cells(tensor.shape).scale(CELL_BYTES[tensor.dtype])

"""Rules of operators that compute cell by cell: as many cells come out as broadcasting makes of those that go in."""

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
def like_the_first(operation: Operation) -> Outputs:
    """One tensor of the shape and type of the first input; other inputs are parameters of one row at most."""
    first = operation.tensor(0)
    operation.require(operation.outputs == 1, "only its first output is known")
    for other in operation.inputs[1:]:
        if other is not None:
            operation.require(operation.broadcast(first.shape, other.shape) == first.shape, "a parameter is too large")
    operation.scratch = _bytes(operation, first)
    return [AbstractTensor(first.dtype, first.shape)]


@rule("Identity")
def identity(operation: Operation) -> Outputs:
    """The input, with all that is known of it."""
    return [operation.tensor(0)]


@rule("Dropout")
def dropout(operation: Operation) -> Outputs:
    """The input: nothing is dropped where nothing is learnt."""
    first = operation.tensor(0)
    training = operation.optional(2)
    is_off = training is None or (training.constant is not None and not training.constant.any())
    operation.require(is_off and operation.outputs == 1, "it drops cells at random")
    return [AbstractTensor(first.dtype, first.shape)]


@rule("IsInf", "IsNaN")
def truths_of_one(operation: Operation) -> Outputs:
    """A bool for each cell."""
    return [AbstractTensor(TensorProto.BOOL, operation.tensor(0).shape)]


@rule("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
def truths_of_two(operation: Operation) -> Outputs:
    """A bool for each cell of what broadcasting makes of two tensors."""
    shape = operation.broadcast(operation.tensor(0).shape, operation.tensor(1).shape)
    return [AbstractTensor(TensorProto.BOOL, shape)]


@rule("Div", "Mod")
def quotient(operation: Operation) -> Outputs:
    """What broadcasting makes of two tensors; integers are divided by constants only, as 0 would end the process."""
    first, second = operation.tensor(0), operation.tensor(1)
    shape = operation.broadcast(first.shape, second.shape)
    made = AbstractTensor(first.dtype, shape)
    operation.scratch = _bytes(operation, made)
    if first.dtype in FRACTIONS:
        return [made]
    divisors = second.constant
    is_safe = divisors is not None and divisors.dtype.kind in "iu" and not np.isin(divisors, (0, -1)).any()
    operation.require(is_safe, "integers are divided by what could be 0")
    if operation.kind == "Mod" or first.sizes is None:
        return [made]
    by = operation.sizes(1)
    if len(by) != 1:
        return [made]
    sizes = [size.divided_by(by[0]) for size in first.sizes]
    return [made if None in sizes else AbstractTensor(first.dtype, shape, sizes=tuple(filter(None, sizes)))]


@rule("Max", "Mean", "Min", "PRelu", "Pow", "Sum")
def of_all(operation: Operation) -> Outputs:
    """What broadcasting makes of all inputs, in the type of the first."""
    tensors = [operation.tensor(place) for place in range(len(operation.inputs))]
    made = AbstractTensor(tensors[0].dtype, operation.broadcast(*(tensor.shape for tensor in tensors)))
    operation.scratch = _bytes(operation, made)
    return [made]


@rule("Add", "Mul", "Sub")
def arithmetic(operation: Operation) -> Outputs:
    """What broadcasting makes of two tensors; of integers that shapes gave, their sum, product or difference."""
    first, second = operation.tensor(0), operation.tensor(1)
    shape = operation.broadcast(first.shape, second.shape)
    operation.scratch = _bytes(operation, AbstractTensor(first.dtype, shape))
    return [AbstractTensor(first.dtype, shape, sizes=_compute_known(operation, first, second))]


def _compute_known(operation: Operation, first: AbstractTensor, second: AbstractTensor) -> tuple[Size, ...] | None:
    if first.dtype != TensorProto.INT64 or (first.sizes is None and second.sizes is None):
        return None
    if any(tensor.sizes is None and tensor.constant is None for tensor in (first, second)):
        return None
    left, right = operation.sizes(0), operation.sizes(1)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        return None
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    compute = {"Add": add, "Sub": sub, "Mul": Size.times}[operation.kind]
    made = [compute(one, other) for one, other in pairs]
    return None if None in made else tuple(made)


@rule("Where")
def where(operation: Operation) -> Outputs:
    """What broadcasting makes of three tensors; the kernel makes one of each side first."""
    condition, first, second = (operation.tensor(place) for place in range(3))
    made = AbstractTensor(first.dtype, operation.broadcast(condition.shape, first.shape, second.shape))
    operation.scratch = _bytes(operation, made).scaled(2)
    return [made]


@rule("Cast")
def cast(operation: Operation) -> Outputs:
    """The same cells in another type; integers stay known as long as nothing is cut off."""
    first, dtype = operation.tensor(0), operation.number("to", 0)
    operation.require(dtype in CELL_BYTES, f"the element type {dtype} is not known")
    sizes = first.sizes if dtype == first.dtype == TensorProto.INT64 else None
    if sizes is None and dtype == TensorProto.INT64 and first.constant is not None and first.dtype == TensorProto.INT32:
        return [AbstractTensor(dtype, first.shape, constant=first.constant.astype(np.int64))]
    return [AbstractTensor(dtype, first.shape, sizes=sizes)]


def _bytes(operation: Operation, tensor: AbstractTensor) -> Size:
    return operation.cells(tensor.shape).scaled(CELL_BYTES[tensor.dtype])

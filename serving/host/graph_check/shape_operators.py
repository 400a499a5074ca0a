"""The rules of operators that move cells, and of operators that compute shapes, the only source of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.host.graph_check.constants import read_tensor
from serving.host.graph_check.operation import (
    AbstractTensor,
    Operation,
    make_constant_tensor,
    make_size_tensor,
    rule,
)
from serving.host.graph_check.sizes import ONE, ZERO, Size, multiply_sizes

Outputs = Sequence[AbstractTensor]
_TO_THE_END = 2**31 - 1


@rule("Constant")
def read_constant(operation: Operation) -> Outputs:
    """Give the tensor, number, text or list in an attribute."""
    operation.require(len(operation.attributes) == 1, "it holds more than one value")
    (name,) = operation.attributes
    held = operation.attributes[name]
    if name == "value":
        return [make_constant_tensor(read_tensor(held.t), held.t.data_type)]
    forms: dict[str, tuple[int, Callable[[], NDArray[Any]]]] = {
        "value_int": (TensorProto.INT64, lambda: np.array(held.i, np.int64)),
        "value_ints": (TensorProto.INT64, lambda: np.array(held.ints, np.int64)),
        "value_float": (TensorProto.FLOAT, lambda: np.array(held.f, np.float32)),
        "value_floats": (TensorProto.FLOAT, lambda: np.array(held.floats, np.float32)),
        "value_string": (TensorProto.STRING, lambda: np.array(held.s, dtype=object)),
        "value_strings": (TensorProto.STRING, lambda: np.array(list(held.strings), dtype=object)),
    }
    operation.require(name in forms, f"it holds {name}, which is not known")
    dtype, read = forms[name]
    return [make_constant_tensor(read(), dtype)]


@rule("Shape")
def list_lengths(operation: Operation) -> Outputs:
    """Give the lengths of all or some axes."""
    shape = operation.get_input(0).shape
    end = operation.get_integer("end", len(shape))
    return [make_size_tensor(shape[operation.get_integer("start", 0) : end])]


@rule("Size")
def count_all_cells(operation: Operation) -> Outputs:
    """Give the number of cells."""
    return [make_size_tensor([operation.count_cells(operation.get_input(0).shape)], shape=())]


@rule("Reshape")
def reshape(operation: Operation) -> Outputs:
    """Give the same cells in another shape; the length of one axis may follow from the others."""
    first, wanted = operation.get_input(0), list(operation.get_input_sizes(1))
    if not operation.get_flag("allowzero", default=False):
        for place, length in enumerate(wanted):
            if length == ZERO:
                operation.require(place < first.rank, "it keeps an axis that does not exist")
                wanted[place] = first.shape[place]
    total, free = (
        operation.count_cells(first.shape),
        [place for place, size in enumerate(wanted) if size == Size(0, -1)],
    )
    operation.require(len(free) <= 1, "two axes are left open")
    others = multiply_sizes(size for place, size in enumerate(wanted) if place not in free)
    if free and others is not None:
        left = total.divide(others)
        if left is None:
            operation.refuse(f"{total} cells do not make axes of {others} cells for every number of rows")
        wanted[free[0]] = left
    shape = operation.require_lengths(wanted)
    operation.require(
        operation.count_cells(shape) == total, f"{total} cells are to make a shape with another number of cells"
    )
    return [_reshape_known(first, shape)]


@rule("Flatten")
def flatten(operation: Operation) -> Outputs:
    """Give two axes: the axes before `axis` as one, and the rest as one."""
    first, axis = operation.get_input(0), operation.get_integer("axis", 1)
    operation.require(-first.rank <= axis <= first.rank, f"there is no axis {axis}")
    axis += first.rank if axis < 0 else 0
    return [
        _reshape_known(first, (operation.count_cells(first.shape[:axis]), operation.count_cells(first.shape[axis:])))
    ]


@rule("Squeeze")
def squeeze(operation: Operation) -> Outputs:
    """Remove axes of length 1. They must be named, unless all lengths are constant."""
    first = operation.get_input(0)
    axes = operation.get_axes(first.rank, since=13)
    if not axes:  # an empty list means the same as none
        operation.require(all(length.is_constant for length in first.shape), "it does not say which axes")
        axes = [axis for axis, length in enumerate(first.shape) if length == ONE]
    operation.require(all(first.shape[axis] == ONE for axis in axes), "an axis is longer than 1")
    return [_reshape_known(first, tuple(size for axis, size in enumerate(first.shape) if axis not in axes))]


@rule("Unsqueeze")
def unsqueeze(operation: Operation) -> Outputs:
    """Add axes of length 1."""
    first = operation.get_input(0)
    named = operation.get_input_integers(1) if operation.version >= 13 else operation.get_integers("axes")
    operation.require(named is not None, "it does not say which axes")
    listed = [] if named is None else list(named)  # without the check for None: an array of a single 0 is false
    rank = first.rank + len(listed)
    axes = [operation.resolve_axis(axis, rank) for axis in listed]
    operation.require(len(set(axes)) == len(axes), "an axis is named twice")
    lengths = iter(first.shape)
    return [_reshape_known(first, tuple(ONE if axis in axes else next(lengths) for axis in range(rank)))]


@rule("Transpose")
def transpose(operation: Operation) -> Outputs:
    """Give the axes in another order, by default the last one first."""
    first, listed = operation.get_input(0), operation.get_integers("perm")
    order = list(range(first.rank))[::-1] if listed is None else listed.tolist()
    operation.require(sorted(order) == list(range(first.rank)), "its order does not name each axis once")
    return [AbstractTensor(first.dtype, tuple(first.shape[axis] for axis in order))]


@rule("Concat")
def concat(operation: Operation) -> Outputs:
    """Give tensors one after another along one axis."""
    tensors = [operation.get_input(place) for place in range(len(operation.inputs))]
    operation.require("axis" in operation.attributes, "it does not say along which axis")
    axis = operation.resolve_axis(operation.get_integer("axis", 0), tensors[0].rank)
    shapes = [list(tensor.shape) for tensor in tensors]
    operation.require(len({len(shape) for shape in shapes}) == 1, "its inputs have not equally many axes")
    total = sum((shape.pop(axis) for shape in shapes), ZERO)
    operation.require(all(shape == shapes[0] for shape in shapes), "its inputs do not fit side by side")
    shapes[0].insert(axis, total)
    known = all(tensor.sizes is not None or tensor.constant is not None for tensor in tensors)
    sizes = None
    if known and tensors[0].dtype == TensorProto.INT64 and tensors[0].rank == 1 and total.fixed <= 64:
        sizes = tuple(size for place in range(len(tensors)) for size in operation.get_input_sizes(place))
    return [AbstractTensor(tensors[0].dtype, tuple(shapes[0]), sizes=sizes)]


@rule("Split")
def split(operation: Operation) -> Outputs:
    """Give the parts of an axis whose length is constant."""
    first = operation.get_input(0)
    axis = operation.resolve_axis(operation.get_integer("axis", 0), first.rank)
    length, count = first.shape[axis], operation.outputs
    operation.require(length.is_constant, "it splits an axis that depends on the rows")
    is_said = "num_outputs" not in operation.attributes or operation.get_integer("num_outputs", 0) == count
    operation.require(
        is_said, "it says that it has another number of outputs"
    )  # otherwise kernels read past the end of a list
    listed = operation.get_integers("split") if operation.version < 13 else None
    if listed is not None:
        parts = listed.tolist()
    elif operation.get_optional_input(1) is not None:
        parts = operation.get_input_integers(1)
    else:
        each = math.ceil(length.fixed / count)
        parts = [each] * (count - 1) + [length.fixed - each * (count - 1)]
    is_whole = sum(parts) == length.fixed and min(parts) >= 0 and len(parts) == count
    operation.require(is_whole, "its parts are not the whole")
    front, back = first.shape[:axis], first.shape[axis + 1 :]
    return [AbstractTensor(first.dtype, (*front, Size(0, part), *back)) for part in parts]


@rule("Slice")
def slice_axes(operation: Operation) -> Outputs:
    """Give a part of some axes. Of an axis that depends on the rows, only a constant number at its ends may go."""
    first = operation.get_input(0)
    if operation.version < 10:
        given = [operation.get_integers(name) for name in ("starts", "ends", "axes")]
        lists = [None if found is None else found.tolist() for found in given]
        starts, ends, axes, steps = lists[0] or [], lists[1] or [], lists[2], None
    else:
        starts, ends = operation.get_input_integers(1), operation.get_input_integers(2)
        axes = None if operation.get_optional_input(3) is None else operation.get_input_integers(3)
        steps = None if operation.get_optional_input(4) is None else operation.get_input_integers(4)
    axes = list(range(len(starts))) if axes is None else [operation.resolve_axis(axis, first.rank) for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    operation.require(len({len(starts), len(ends), len(axes), len(steps)}) == 1, "its lists have not one length")
    operation.require(
        len(set(axes)) == len(axes) <= first.rank and 0 not in steps, "it names an axis twice, or a step is 0"
    )
    shape, sizes = list(first.shape), first.sizes
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if sizes is not None:
            sizes = sizes[start:end:step]
        shape[axis] = _compute_slice_length(operation, shape[axis], start, end, step)
    return [AbstractTensor(first.dtype, operation.require_lengths(shape), sizes=sizes)]


def _compute_slice_length(operation: Operation, length: Size, start: int, end: int, step: int) -> Size:
    if length.is_constant:
        # in these cases NumPy takes no cell, and a kernel takes the first cell or all cells up to it
        is_usual = step > 0 or (start >= -length.fixed and end < _TO_THE_END)
        operation.require(is_usual, "it goes back from before the first cell, or to a place beyond the last one")
        return Size(0, len(range(*slice(start, end, step).indices(length.fixed))))
    is_to_the_end = end >= _TO_THE_END
    is_known = step == 1 and start >= 0 and (is_to_the_end or end < 0)
    operation.require(is_known, "which part of the rows it takes depends on how many there are")
    return length - Size(0, start if is_to_the_end else start - end)


@rule("Expand")
def expand(operation: Operation) -> Outputs:
    """Give a tensor broadcast to a shape."""
    first = operation.get_input(0)
    return [
        AbstractTensor(
            first.dtype,
            operation.broadcast_shapes(first.shape, operation.require_lengths(operation.get_input_sizes(1))),
        )
    ]


@rule("Tile")
def tile(operation: Operation) -> Outputs:
    """Give each axis repeated."""
    first, times = operation.get_input(0), operation.require_lengths(operation.get_input_sizes(1))
    operation.require(len(times) == first.rank, "it does not say how often for each axis")
    return [
        AbstractTensor(first.dtype, tuple(operation.count_cells(pair) for pair in zip(first.shape, times, strict=True)))
    ]


@rule("ConstantOfShape")
def fill_shape(operation: Operation) -> Outputs:
    """Give one value in a known shape."""
    shape = operation.require_lengths(operation.get_input_sizes(0))
    value = operation.attributes["value"].t if "value" in operation.attributes else None
    dtype = TensorProto.FLOAT if value is None else value.data_type
    operation.require(value is None or read_tensor(value).size == 1, "it fills with more than one value")
    return [AbstractTensor(dtype, shape)]


@rule("Range")
def count_up(operation: Operation) -> Outputs:
    """Give consecutive integers between known ends."""
    ends = [operation.get_input_sizes(place) for place in range(3)]
    operation.require(all(len(size) == 1 for size in ends), "its ends are no numbers")
    (start,), (limit,), (step,) = ends
    length = limit - start
    operation.require(step == ONE and length.is_length, "it does not count upwards by one")
    return [AbstractTensor(operation.get_input(0).dtype, (length,))]


@rule("Pad")
def pad(operation: Operation) -> Outputs:
    """Add a constant number of cells at the ends of some axes."""
    first = operation.get_input(0)
    listed = operation.get_integers("pads")
    pads = operation.get_input_integers(1) if operation.version >= 11 else [] if listed is None else listed.tolist()
    axes = list(range(first.rank))
    if operation.get_optional_input(3) is not None:
        axes = [operation.resolve_axis(axis, first.rank) for axis in operation.get_input_integers(3)]
    is_plain = operation.get_text("mode", "constant") == "constant" and min(pads, default=0) >= 0
    operation.require(is_plain and len(pads) == 2 * len(axes) == 2 * len(set(axes)), "it adds other than constants")
    shape = list(first.shape)
    for place, axis in enumerate(axes):
        shape[axis] += Size(0, pads[place] + pads[place + len(axes)])
    return [AbstractTensor(first.dtype, tuple(shape))]


def _reshape_known(tensor: AbstractTensor, shape: tuple[Size, ...]) -> AbstractTensor:
    """Return the same cells in another shape. Their content stays known if it is a constant, a scalar or a list."""
    known = tensor.constant
    if known is not None and all(size.is_constant for size in shape):
        return AbstractTensor(tensor.dtype, shape, constant=known.reshape([size.fixed for size in shape]))
    return AbstractTensor(tensor.dtype, shape, sizes=tensor.sizes if len(shape) <= 1 else None)

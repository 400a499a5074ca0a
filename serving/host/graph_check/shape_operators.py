"""Rules of operators that move cells, and of those that compute with shapes: sizes must come from these alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.host.graph_check.constants import array_of
from serving.host.graph_check.operation import (
    AbstractTensor,
    Operation,
    known_sizes,
    of_constant,
    rule,
)
from serving.host.graph_check.sizes import ONE, ZERO, Size, product

Outputs = Sequence[AbstractTensor]
_TO_THE_END = 2**31 - 1


@rule("Constant")
def constant(operation: Operation) -> Outputs:
    """The tensor, number, text or list that it holds."""
    operation.require(len(operation.attributes) == 1, "it holds more than one value")
    (name,) = operation.attributes
    held = operation.attributes[name]
    if name == "value":
        return [of_constant(array_of(held.t), held.t.data_type)]
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
    return [of_constant(read(), dtype)]


@rule("Shape")
def shape_of(operation: Operation) -> Outputs:
    """The lengths of the axes, or of some of them."""
    shape = operation.tensor(0).shape
    end = operation.number("end", len(shape))
    return [known_sizes(shape[operation.number("start", 0) : end])]


@rule("Size")
def size_of(operation: Operation) -> Outputs:
    """The number of cells."""
    return [known_sizes([operation.cells(operation.tensor(0).shape)], shape=())]


@rule("Reshape")
def reshape(operation: Operation) -> Outputs:
    """The same cells in another shape; one axis may be what is left."""
    first, wanted = operation.tensor(0), list(operation.sizes(1))
    if not operation.flag("allowzero", default=False):
        for place, length in enumerate(wanted):
            if length == ZERO:
                operation.require(place < first.rank, "it keeps an axis that is not there")
                wanted[place] = first.shape[place]
    total, free = operation.cells(first.shape), [place for place, size in enumerate(wanted) if size == Size(0, -1)]
    operation.require(len(free) <= 1, "two axes are left open")
    others = product(size for place, size in enumerate(wanted) if place not in free)
    if free and others is not None:
        left = total.divided_by(others)
        if left is None:
            operation.refuse(f"{total} cells do not make axes of {others} cells for every number of rows")
        wanted[free[0]] = left
    shape = operation.lengths(wanted)
    operation.require(operation.cells(shape) == total, f"{total} cells are to make a shape of other cells")
    return [_with_content(first, shape)]


@rule("Flatten")
def flatten(operation: Operation) -> Outputs:
    """Two axes: what is before `axis`, and the rest."""
    first, axis = operation.tensor(0), operation.number("axis", 1)
    operation.require(-first.rank <= axis <= first.rank, f"there is no axis {axis}")
    axis += first.rank if axis < 0 else 0
    return [_with_content(first, (operation.cells(first.shape[:axis]), operation.cells(first.shape[axis:])))]


@rule("Squeeze")
def squeeze(operation: Operation) -> Outputs:
    """Without axes of length 1, which have to be named unless there are no others that could be."""
    first = operation.tensor(0)
    axes = operation.axes(first.rank, since=13)
    if not axes:  # an empty list means the same as none
        operation.require(all(length.is_constant for length in first.shape), "it does not say which axes")
        axes = [axis for axis, length in enumerate(first.shape) if length == ONE]
    operation.require(all(first.shape[axis] == ONE for axis in axes), "an axis is longer than 1")
    return [_with_content(first, tuple(size for axis, size in enumerate(first.shape) if axis not in axes))]


@rule("Unsqueeze")
def unsqueeze(operation: Operation) -> Outputs:
    """With more axes of length 1."""
    first = operation.tensor(0)
    named = operation.integers(1) if operation.version >= 13 else operation.numbers("axes")
    operation.require(named is not None, "it does not say which axes")
    listed = [] if named is None else list(named)  # an array of a single 0 counts as false
    rank = first.rank + len(listed)
    axes = [operation.axis(axis, rank) for axis in listed]
    operation.require(len(set(axes)) == len(axes), "an axis is named twice")
    lengths = iter(first.shape)
    return [_with_content(first, tuple(ONE if axis in axes else next(lengths) for axis in range(rank)))]


@rule("Transpose")
def transpose(operation: Operation) -> Outputs:
    """The axes in another order, by default the last one first."""
    first, listed = operation.tensor(0), operation.numbers("perm")
    order = list(range(first.rank))[::-1] if listed is None else listed.tolist()
    operation.require(sorted(order) == list(range(first.rank)), "its order of axes is none")
    return [AbstractTensor(first.dtype, tuple(first.shape[axis] for axis in order))]


@rule("Concat")
def concat(operation: Operation) -> Outputs:
    """Tensors one after another."""
    tensors = [operation.tensor(place) for place in range(len(operation.inputs))]
    operation.require("axis" in operation.attributes, "it does not say along which axis")
    axis = operation.axis(operation.number("axis", 0), tensors[0].rank)
    shapes = [list(tensor.shape) for tensor in tensors]
    operation.require(len({len(shape) for shape in shapes}) == 1, "its inputs have not equally many axes")
    total = sum((shape.pop(axis) for shape in shapes), ZERO)
    operation.require(all(shape == shapes[0] for shape in shapes), "its inputs do not fit side by side")
    shapes[0].insert(axis, total)
    known = all(tensor.sizes is not None or tensor.constant is not None for tensor in tensors)
    sizes = None
    if known and tensors[0].dtype == TensorProto.INT64 and tensors[0].rank == 1 and total.fixed <= 64:
        sizes = tuple(size for place in range(len(tensors)) for size in operation.sizes(place))
    return [AbstractTensor(tensors[0].dtype, tuple(shapes[0]), sizes=sizes)]


@rule("Split")
def split(operation: Operation) -> Outputs:
    """Parts of one axis whose length is constant."""
    first = operation.tensor(0)
    axis = operation.axis(operation.number("axis", 0), first.rank)
    length, count = first.shape[axis], operation.outputs
    operation.require(length.is_constant, "it splits an axis that depends on the rows")
    is_said = "num_outputs" not in operation.attributes or operation.number("num_outputs", 0) == count
    operation.require(is_said, "it says that it has another number of outputs")  # kernels run over the end of a list
    listed = operation.numbers("split") if operation.version < 13 else None
    if listed is not None:
        parts = listed.tolist()
    elif operation.optional(1) is not None:
        parts = operation.integers(1)
    else:
        each = math.ceil(length.fixed / count)
        parts = [each] * (count - 1) + [length.fixed - each * (count - 1)]
    is_whole = sum(parts) == length.fixed and min(parts) >= 0 and len(parts) == count
    operation.require(is_whole, "its parts are not the whole")
    front, back = first.shape[:axis], first.shape[axis + 1 :]
    return [AbstractTensor(first.dtype, (*front, Size(0, part), *back)) for part in parts]


@rule("Slice")
def cut(operation: Operation) -> Outputs:
    """A part of some axes: of one that depends on the rows only what is left without a constant number at its ends."""
    first = operation.tensor(0)
    if operation.version < 10:
        given = [operation.numbers(name) for name in ("starts", "ends", "axes")]
        lists = [None if found is None else found.tolist() for found in given]
        starts, ends, axes, steps = lists[0] or [], lists[1] or [], lists[2], None
    else:
        starts, ends = operation.integers(1), operation.integers(2)
        axes = None if operation.optional(3) is None else operation.integers(3)
        steps = None if operation.optional(4) is None else operation.integers(4)
    axes = list(range(len(starts))) if axes is None else [operation.axis(axis, first.rank) for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    operation.require(len({len(starts), len(ends), len(axes), len(steps)}) == 1, "its lists have not one length")
    operation.require(len(set(axes)) == len(axes) <= first.rank and 0 not in steps, "its axes or steps are none")
    shape, sizes = list(first.shape), first.sizes
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if sizes is not None:
            sizes = sizes[start:end:step]
        shape[axis] = _length_of_cut(operation, shape[axis], start, end, step)
    return [AbstractTensor(first.dtype, operation.lengths(shape), sizes=sizes)]


def _length_of_cut(operation: Operation, length: Size, start: int, end: int, step: int) -> Size:
    if length.is_constant:
        # numpy and Python take no cell there, a kernel takes the first one, or all up to it
        is_usual = step > 0 or (start >= -length.fixed and end < _TO_THE_END)
        operation.require(is_usual, "it goes back from before the first cell, or to beyond the last one")
        return Size(0, len(range(*slice(start, end, step).indices(length.fixed))))
    is_to_the_end = end >= _TO_THE_END
    is_known = step == 1 and start >= 0 and (is_to_the_end or end < 0)
    operation.require(is_known, "which part of the rows it takes depends on how many there are")
    return length - Size(0, start if is_to_the_end else start - end)


@rule("Expand")
def expand(operation: Operation) -> Outputs:
    """What broadcasting makes of a tensor and a shape."""
    first = operation.tensor(0)
    return [AbstractTensor(first.dtype, operation.broadcast(first.shape, operation.lengths(operation.sizes(1))))]


@rule("Tile")
def tile(operation: Operation) -> Outputs:
    """Each axis over and over."""
    first, times = operation.tensor(0), operation.lengths(operation.sizes(1))
    operation.require(len(times) == first.rank, "it does not say how often for each axis")
    return [AbstractTensor(first.dtype, tuple(operation.cells(pair) for pair in zip(first.shape, times, strict=True)))]


@rule("ConstantOfShape")
def filled(operation: Operation) -> Outputs:
    """One value in a shape that is known."""
    shape = operation.lengths(operation.sizes(0))
    value = operation.attributes["value"].t if "value" in operation.attributes else None
    dtype = TensorProto.FLOAT if value is None else value.data_type
    operation.require(value is None or array_of(value).size == 1, "it fills with more than one value")
    return [AbstractTensor(dtype, shape)]


@rule("Range")
def counted(operation: Operation) -> Outputs:
    """Integers one after another, from and to what is known."""
    ends = [operation.sizes(place) for place in range(3)]
    operation.require(all(len(size) == 1 for size in ends), "its ends are no numbers")
    (start,), (limit,), (step,) = ends
    length = limit - start
    operation.require(step == ONE and length.is_length, "it does not count upwards by one")
    return [AbstractTensor(operation.tensor(0).dtype, (length,))]


@rule("Pad")
def pad(operation: Operation) -> Outputs:
    """A constant number of cells more at the ends of some axes."""
    first = operation.tensor(0)
    listed = operation.numbers("pads")
    pads = operation.integers(1) if operation.version >= 11 else [] if listed is None else listed.tolist()
    axes = list(range(first.rank))
    if operation.optional(3) is not None:
        axes = [operation.axis(axis, first.rank) for axis in operation.integers(3)]
    is_plain = operation.text("mode", "constant") == "constant" and min(pads, default=0) >= 0
    operation.require(is_plain and len(pads) == 2 * len(axes) == 2 * len(set(axes)), "it adds other than constants")
    shape = list(first.shape)
    for place, axis in enumerate(axes):
        shape[axis] += Size(0, pads[place] + pads[place + len(axes)])
    return [AbstractTensor(first.dtype, tuple(shape))]


def _with_content(tensor: AbstractTensor, shape: tuple[Size, ...]) -> AbstractTensor:
    """Return the same cells in another shape, with what is known of them where that is a scalar or a list."""
    known = tensor.constant
    if known is not None and all(size.is_constant for size in shape):
        return AbstractTensor(tensor.dtype, shape, constant=known.reshape([size.fixed for size in shape]))
    return AbstractTensor(tensor.dtype, shape, sizes=tensor.sizes if len(shape) <= 1 else None)

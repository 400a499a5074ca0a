"""The rules of operators that reduce axes, choose cells, look cells up, and multiply matrices."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from serving.host.graph_check.operation import CELL_BYTES, MICROSOFT, AbstractTensor, Operation, rule
from serving.host.graph_check.sizes import ONE, Size

Outputs = Sequence[AbstractTensor]


@rule(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def reduce_axes(operation: Operation) -> Outputs:
    """Reduce some axes, or all, to one cell; the kernel may copy the input first."""
    first = operation.get_input(0)
    axes = operation.get_axes(first.rank, since=13 if operation.kind == "ReduceSum" else 18)
    if not axes:
        if operation.get_flag("noop_with_empty_axes", default=False):
            return [AbstractTensor(first.dtype, first.shape)]
        axes = list(range(first.rank))
    return [_reduce_axes(operation, first, axes, first.dtype)]


@rule("ArgMax", "ArgMin")
def find_extreme_places(operation: Operation) -> Outputs:
    """Give the place of the largest or smallest cell along one axis."""
    first = operation.get_input(0)
    axis = operation.resolve_axis(operation.get_integer("axis", 0), first.rank)
    return [_reduce_axes(operation, first, [axis], TensorProto.INT64)]


def _reduce_axes(operation: Operation, first: AbstractTensor, axes: Sequence[int], dtype: int) -> AbstractTensor:
    operation.require(all(_is_never_empty(first.shape[axis]) for axis in axes), "an axis could be empty")
    operation.scratch = operation.count_cells(first.shape).scale(2 * CELL_BYTES[first.dtype])
    keeps = operation.get_flag("keepdims", default=True)
    kept = [ONE if axis in axes else size for axis, size in enumerate(first.shape) if keeps or axis not in axes]
    return AbstractTensor(dtype, tuple(kept))


def _is_never_empty(length: Size) -> bool:
    return length.per_row >= 0 and length.per_row + length.fixed >= 1


@rule("TopK")
def take_largest_cells(operation: Operation) -> Outputs:
    """Give a constant number of cells along one axis, and their places."""
    first = operation.get_input(0)
    axis = operation.resolve_axis(operation.get_integer("axis", -1), first.rank)
    (count,) = operation.get_input_integers(1) if operation.version >= 10 else [operation.get_integer("k", 0)]
    length = first.shape[axis]
    operation.require(length.is_constant and 1 <= count <= length.fixed, "it takes more cells than there are")
    shape = (*first.shape[:axis], Size(0, count), *first.shape[axis + 1 :])
    operation.scratch = operation.count_cells(first.shape).scale(16 + CELL_BYTES[first.dtype])
    return [AbstractTensor(first.dtype, shape), AbstractTensor(TensorProto.INT64, shape)][: operation.outputs]


@rule("Gather")
def gather_cells(operation: Operation) -> Outputs:
    """Give the cells along one axis at the places in another tensor; constant places are checked."""
    first, places = operation.get_input(0), operation.get_input(1)
    axis = operation.resolve_axis(operation.get_integer("axis", 0), first.rank)
    _require_within(operation, places, first.shape[axis])
    shape = (*first.shape[:axis], *places.shape, *first.shape[axis + 1 :])
    if first.sizes is not None and first.rank == 1 and places.constant is not None:
        chosen = [first.sizes[place] for place in places.constant.ravel().tolist()]
        return [AbstractTensor(first.dtype, shape, sizes=tuple(chosen) if places.rank <= 1 else None)]
    return [AbstractTensor(first.dtype, shape)]


@rule("GatherElements")
def gather_elements(operation: Operation) -> Outputs:
    """Give a cell along one axis for each cell of a tensor of places."""
    first, places = operation.get_input(0), operation.get_input(1)
    axis = operation.resolve_axis(operation.get_integer("axis", 0), first.rank)
    _require_within(operation, places, first.shape[axis])
    is_inside = places.rank == first.rank and all(
        own == other for at, (own, other) in enumerate(zip(places.shape, first.shape, strict=False)) if at != axis
    )
    operation.require(is_inside, "its places have another shape")
    return [AbstractTensor(first.dtype, places.shape)]


def _require_within(operation: Operation, places: AbstractTensor, length: Size) -> None:
    """Refuse constant places beyond an axis; the kernel itself checks places that the graph computes."""
    least = length.compute_for(1)
    if places.constant is not None and places.constant.size:
        is_within = places.constant.min() >= -least and places.constant.max() < least
        operation.require(is_within, f"a place lies beyond an axis of {length}")


@rule("MatMul")
def multiply_matrices(operation: Operation) -> Outputs:
    """Give the product of two matrices, or of stacks of matrices."""
    return [_multiply(operation, operation.get_input(0), operation.get_input(1))]


@rule("FusedMatMul", domain=MICROSOFT)
def multiply_swapped_matrices(operation: Operation) -> Outputs:
    """Give the product of two matrices whose axes may be swapped before, times a factor."""
    tensors = [operation.get_input(0), operation.get_input(1)]
    operation.require(
        not any(operation.get_flag(f"transBatch{side}", default=False) for side in "AB"), "it swaps stacks"
    )
    made = [
        _swap_axes(tensor, operation.get_flag(f"trans{side}", default=False))
        for tensor, side in zip(tensors, "AB", strict=True)
    ]
    return [_multiply(operation, *made)]


@rule("Gemm")
def multiply_and_add(operation: Operation) -> Outputs:
    """Give the product of two matrices plus a tensor that broadcasts to it."""
    tensors = [operation.get_input(0), operation.get_input(1)]
    operation.require(all(tensor.rank == 2 for tensor in tensors), "it takes matrices")
    made = [
        _swap_axes(tensor, operation.get_flag(f"trans{side}", default=False))
        for tensor, side in zip(tensors, "AB", strict=True)
    ]
    result, added = _multiply(operation, *made), operation.get_optional_input(2)
    if added is not None:
        operation.require(
            operation.broadcast_shapes(result.shape, added.shape) == result.shape,
            "the tensor that it adds is too large",
        )
    return [result]


@rule("CDist", domain=MICROSOFT)
def measure_distances(operation: Operation) -> Outputs:
    """Give the distance of each row of one matrix to each row of another."""
    first, second = operation.get_input(0), operation.get_input(1)
    fits = first.rank == second.rank == 2 and first.shape[1] == second.shape[1]
    operation.require(fits, "its matrices have not equally many columns")
    made = AbstractTensor(first.dtype, (first.shape[0], second.shape[0]))
    cells = operation.count_cells(made.shape) + operation.count_cells(first.shape) + operation.count_cells(second.shape)
    operation.scratch = cells.scale(CELL_BYTES[first.dtype])
    return [made]


def _swap_axes(tensor: AbstractTensor, is_wanted: bool) -> AbstractTensor:
    shape = tensor.shape
    return AbstractTensor(tensor.dtype, (*shape[:-2], shape[-1], shape[-2])) if is_wanted and len(shape) > 1 else tensor


def _multiply(operation: Operation, first: AbstractTensor, second: AbstractTensor) -> AbstractTensor:
    operation.require(first.rank >= 1 and second.rank >= 1, "it multiplies a single number")
    left = first.shape if first.rank > 1 else (ONE, *first.shape)
    right = second.shape if second.rank > 1 else (*second.shape, ONE)
    operation.require(left[-1] == right[-2], f"{left[-1]} columns meet {right[-2]} rows")
    operation.require(_is_never_empty(left[-1]), "an axis could be empty")
    stacks = operation.broadcast_shapes(left[:-2], right[:-2])
    shape = [*stacks, *left[-2:-1] * (first.rank > 1), *right[-1:] * (second.rank > 1)]
    cells = operation.count_cells(first.shape) + operation.count_cells(second.shape)
    operation.scratch = cells.scale(CELL_BYTES[first.dtype])
    return AbstractTensor(first.dtype, tuple(shape))


@rule("OneHot")
def mark_places(operation: Operation) -> Outputs:
    """Give one more axis of a constant length, with a value at one place of it."""
    places, values = operation.get_input(0), operation.get_input(2)
    (depth,) = operation.get_input_integers(1)
    axis = operation.resolve_axis(operation.get_integer("axis", -1), places.rank + 1)
    operation.require(depth >= 1, "its depth is less than 1")
    operation.scratch = operation.count_cells(places.shape).scale(8)
    return [AbstractTensor(values.dtype, (*places.shape[:axis], Size(0, depth), *places.shape[axis:]))]

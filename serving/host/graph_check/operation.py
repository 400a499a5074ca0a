"""One node of a graph in the memory analysis: its inputs, as far as they are known, and its attributes.

Each kind of operator has a rule: a function from an `Operation` to a description of its outputs. Rules are registered
by domain and name. An operator without a rule is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from serving.domain.errors import GraphRefused
from serving.host.graph_check.constants import read_tensor
from serving.host.graph_check.sizes import ONE, ZERO, Size, multiply_sizes

ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"

# bytes of one cell in memory; the characters of a text are counted separately
CELL_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
    TensorProto.STRING: 32,
}
FRACTIONS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
MOST_KNOWN_SIZES = 64


@dataclass(frozen=True, slots=True)
class AbstractTensor:
    """The description of a tensor for any number of rows: element type, shape, and the content if it is known.

    `constant` is the content of a constant. `sizes` is the content of a scalar or short list of integers from shape
    arithmetic: each is known for any number of rows.
    """

    dtype: int
    shape: tuple[Size, ...]
    constant: NDArray[Any] | None = None
    sizes: tuple[Size, ...] | None = None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)


Rule = Callable[["Operation"], Sequence[AbstractTensor]]
RULES: dict[tuple[str, str], Rule] = {}


def rule(*kinds: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of these operators."""

    def register(function: Rule) -> Rule:
        RULES.update({(domain, kind): function for kind in kinds})
        return function

    return register


@dataclass(slots=True)
class Operation:
    """One node and its inputs. Its rule sets `scratch` and `steps`, which its kernel takes beside its output.

    `scratch` counts bytes, `steps` the tree nodes that one row may visit. `version` is the version of the domain's
    opset.
    """

    kind: str
    version: int
    inputs: Sequence[AbstractTensor | None]
    attributes: Mapping[str, Any]
    outputs: int
    scratch: Size = field(default=ZERO)
    steps: int = 0

    def refuse(self, reason: str) -> NoReturn:
        """Raise GraphRefused with the name of the operator."""
        raise GraphRefused(f"{self.kind:.60}: {reason}")

    def require(self, is_so: Any, reason: str) -> None:
        """Raise GraphRefused unless `is_so` is true."""
        if not is_so:
            self.refuse(reason)

    def get_input(self, place: int) -> AbstractTensor:
        """Return an input; refuses the operator without it."""
        found = self.get_optional_input(place)
        return self.refuse(f"input {place} is missing") if found is None else found

    def get_optional_input(self, place: int) -> AbstractTensor | None:
        """Return an input, None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def get_integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.attributes[name].i) if name in self.attributes else default

    def get_flag(self, name: str, default: bool) -> bool:
        """Return an attribute that is 0 or 1; refuses any other number, which kernels read in different ways."""
        found = self.get_integer(name, int(default))
        self.require(found in (0, 1), f"{name} is {found}")
        return found == 1

    def get_integers(self, name: str) -> NDArray[np.int64] | None:
        """Return an attribute that lists integers; None without it."""
        if name not in self.attributes:
            return None
        values = self.attributes[name].ints
        return np.fromiter(values, dtype=np.int64, count=len(values))

    def get_floats(self, name: str) -> NDArray[np.float32] | None:
        """Return an attribute that lists numbers; None without it."""
        if name not in self.attributes:
            return None
        values = self.attributes[name].floats
        return np.fromiter(values, dtype=np.float32, count=len(values))

    def get_text(self, name: str, default: str) -> str:
        """Return a text attribute."""
        return self.attributes[name].s.decode("utf-8", "replace") if name in self.attributes else default

    def get_texts(self, name: str) -> list[bytes] | None:
        """Return an attribute that lists texts; None without it."""
        return list(self.attributes[name].strings) if name in self.attributes else None

    def get_array(self, name: str) -> NDArray[Any] | None:
        """Return an attribute that holds a tensor; None without it."""
        return read_tensor(self.attributes[name].t) if name in self.attributes else None

    def get_input_sizes(self, place: int) -> tuple[Size, ...]:
        """Return an input of integers that are known for any number of rows; refuses one that depends on values."""
        tensor = self.get_input(place)
        if tensor.sizes is not None:
            return tensor.sizes
        known = tensor.constant
        if known is None or known.dtype.kind not in "iu":
            self.refuse("a size depends on values, which no analysis can bound")
        self.require(known.ndim <= 1 and known.size <= MOST_KNOWN_SIZES, "a list of sizes is too long")
        return tuple(Size(0, int(value)) for value in known.ravel().tolist())

    def get_input_integers(self, place: int) -> list[int]:
        """Return an input of constant integers; refuses one that depends on the rows."""
        found = self.get_input_sizes(place)
        self.require(all(size.is_constant for size in found), "a constant is needed and depends on the rows")
        return [size.fixed for size in found]

    def resolve_axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front; refuses one that does not exist."""
        self.require(-rank <= axis < rank, f"there is no axis {axis} of {rank}")
        return axis % rank

    def get_axes(self, rank: int, since: int, place: int = 1) -> list[int] | None:
        """Return the axes, counted from the front; None without any.

        They are the attribute `axes`, and since opset `since` the input `place`.
        """
        if self.version >= since:
            found = None if self.get_optional_input(place) is None else self.get_input_integers(place)
        else:
            listed = self.get_integers("axes")
            found = None if listed is None else listed.tolist()
        if found is None:
            return None
        made = [self.resolve_axis(axis, rank) for axis in found]
        self.require(len(set(made)) == len(made), "an axis is named twice")
        return made

    def require_lengths(self, shape: Sequence[Size]) -> tuple[Size, ...]:
        """Return a shape; refuses one with an axis that could be negative."""
        self.require(all(size.is_length for size in shape), "an axis could be negative")
        return tuple(shape)

    def count_cells(self, shape: Sequence[Size]) -> Size:
        """Return the number of cells of a shape; refuses one that does not grow linearly with the rows."""
        found = multiply_sizes(shape)
        if found is None:
            self.refuse(f"a tensor of {' x '.join(map(str, shape))} cells grows faster than the number of rows")
        return found

    def broadcast_shapes(self, *shapes: Sequence[Size]) -> tuple[Size, ...]:
        """Return the shape to which shapes broadcast in NumPy; refuses axes that fit for some numbers of rows only."""
        rank = max(map(len, shapes))
        padded = [(ONE,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        made = []
        for lengths in zip(*padded, strict=True):
            other = {length for length in lengths if length != ONE}
            self.require(len(other) <= 1, f"axes of {' and '.join(sorted(map(str, other)))} do not go together")
            made.append(other.pop() if other else ONE)
        return tuple(made)

    def get_width(self, tensor: AbstractTensor) -> int:
        """Return the constant length of the last axis; refuses one that depends on the rows."""
        self.require(tensor.rank >= 1 and tensor.shape[-1].is_constant, "the number of features is not known")
        return tensor.shape[-1].fixed


def make_size_tensor(sizes: Sequence[Size], shape: tuple[Size, ...] | None = None) -> AbstractTensor:
    """Return a tensor of int64 with these sizes, as a list or in another `shape`."""
    return AbstractTensor(TensorProto.INT64, (Size(0, len(sizes)),) if shape is None else shape, sizes=tuple(sizes))


def make_constant_tensor(array: NDArray[Any], dtype: int) -> AbstractTensor:
    """Return the description of a constant, with its content."""
    return AbstractTensor(dtype, tuple(Size(0, length) for length in array.shape), constant=array)

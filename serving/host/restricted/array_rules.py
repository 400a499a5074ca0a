"""The rules for arrays and dtypes in a file, checked before their bytes are used.

A dtype says what the bytes mean; a forged dtype turns them into pointers. All functions may be called from any thread;
all but `read_array` only compute.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted

# the version of a dtype's state by its number of parts, as NumPy has written them since 1.7; times have all nine.
# NumPy reads other states as well, and with some of them it follows pointers that it has never set
_STATE_VERSIONS = {8: 3, 9: 4}
_KINDS_WITH_BYTES = frozenset("biufcmMSUVO")
_MOST_DIMENSIONS = 64


def count_elements(shape: Any) -> int | None:
    """Return how many elements an array of this shape has; None if `shape` is no shape."""
    if type(shape) is not tuple or len(shape) > _MOST_DIMENSIONS:
        return None
    if not all(isinstance(size, (int, np.integer)) and 0 <= size <= sys.maxsize for size in shape):
        return None
    count = 1
    for size in shape:
        count *= int(size)
    return count


def check_wrapper(parts: dict[str, Any], checked: dict[int, np.dtype[Any]]) -> int:
    """Return how many bytes the array of a joblib wrapper has; raises Distrusted for a malformed wrapper.

    `parts` are the attributes of the wrapper. `checked` has the dtypes that were checked before, by id: a forest has
    one dtype for the nodes of all its trees.
    """
    dtype, count = parts.get("dtype"), count_elements(parts.get("shape"))
    order, alignment = parts.get("order"), parts.get("numpy_array_alignment_bytes")
    is_sound = (
        count is not None
        and type(order) is str
        and order in ("C", "F")
        and (alignment is None or (type(alignment) is int and 0 < alignment <= 255))
        and any(parts.get("subclass") is each for each in (np.ndarray, np.matrix))
    )
    if not is_sound or not isinstance(dtype, np.dtype) or not _has_room(dtype, count or 0):
        raise Distrusted(f"the file holds an array wrapper that joblib would not write; {ANY_TRUST}")
    if id(dtype) not in checked:
        check_dtype(dtype)
        checked[id(dtype)] = dtype
    return (count or 0) * dtype.itemsize


def read_array(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str, is_aligned: bool) -> NDArray[Any]:
    """Read the array whose bytes follow in the file, as joblib wrote it, in the byte order of this machine.

    `is_aligned` says that a byte comes first with the number of padding bytes after it (joblib 1.2 and newer). The
    bytes are read straight into the array's memory; joblib's own reader copies them twice. Raises EOFError.
    """
    if is_aligned:
        (padding,) = file.read(1) or b"\0"
        file.read(padding)
    count = count_elements(shape) or 0
    array: NDArray[Any] = np.empty(count, dtype=dtype)
    left = array.view(np.uint8).data if array.nbytes else memoryview(b"")
    while left:
        read = file.readinto(left)
        if not read:
            raise EOFError("it ends within an array")
        left = left[read:]
    array = array.reshape(shape[::-1]).transpose() if order == "F" else array.reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def check_array_state(state: Any) -> None:
    """Raise Distrusted unless `state` is (version, shape, dtype, order, content), and two more for masked arrays."""
    is_sound = type(state) is tuple and len(state) in (5, 7) and isinstance(state[2], np.dtype)
    count = count_elements(state[1]) if is_sound else None
    if count is None or not _is_content(state[2], count, state[4]):
        raise Distrusted(f"the file holds an array whose parts do not fit together; {ANY_TRUST}")
    check_dtype(state[2])


def is_buffer_of(content: Any, dtype: Any, shape: Any) -> bool:
    """Return True if `content` is plain bytes, exactly as many as an array of this dtype and shape has."""
    count = count_elements(shape if type(shape) is tuple else (shape,))
    is_plain = isinstance(dtype, np.dtype) and not dtype.hasobject and type(content) in (bytes, bytearray)
    return is_plain and count is not None and _has_room(dtype, count) and len(content) == count * dtype.itemsize


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise Distrusted unless NumPy makes the same dtype of its description.

    A structured dtype may contain neither objects nor other structures, which could nest without end.
    """
    if not _is_canonical(dtype) or (dtype.names and dtype.hasobject):
        raise Distrusted(f"the file holds a dtype that NumPy would not make; {ANY_TRUST}")


def check_dtype_state(dtype: np.dtype[Any], state: Any) -> None:
    """Raise Distrusted unless `state` turns `dtype` into one that NumPy would make, of the same size and kind.

    The state is tried on a copy: an array that already has `dtype` would be read and freed by a forged dtype.
    """
    version = _STATE_VERSIONS.get(len(state)) if type(state) is tuple else None
    lacks_unit = dtype.kind in "mM" and len(state) != 9
    if version is None or lacks_unit or type(state[0]) is not int or state[0] != version:
        raise Distrusted(f"the file describes a dtype as NumPy would not; {ANY_TRUST}")
    trial: Any = np.dtype(dtype.str, copy=True)
    trial.__setstate__(state)
    if (trial.itemsize, trial.kind) != (dtype.itemsize, dtype.kind):
        raise Distrusted(f"the file changes the size of a dtype; {ANY_TRUST}")
    check_dtype(trial)


def _has_room(dtype: np.dtype[Any], count: int) -> bool:
    return dtype.itemsize > 0 or count <= 1  # elements of no bytes could be any number


def _is_content(dtype: np.dtype[Any], count: int, content: Any) -> bool:
    if dtype.hasobject:
        return isinstance(content, list) and len(content) == count
    return _has_room(dtype, count) and isinstance(content, (bytes, bytearray))


def _is_canonical(dtype: np.dtype[Any]) -> bool:
    if dtype.kind not in _KINDS_WITH_BYTES or dtype.itemsize < 0:
        return False
    try:
        fresh = _rebuild_dtype(dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return fresh is not None and _are_alike(dtype, fresh)


def _rebuild_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype that NumPy makes of the description of `dtype`; None if its parts are not allowed."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((base, shape)) if _is_canonical(base) and not base.hasobject else None
    if dtype.names is None:
        return np.dtype(dtype.str) if dtype.fields is None else None
    fields: Any = dtype.fields or {}
    if sorted(fields) != sorted(dtype.names) or any(fields[name][0].base.names for name in dtype.names):
        return None
    if not all(_is_canonical(fields[name][0]) for name in dtype.names):
        return None
    description: Any = {
        "names": list(dtype.names),
        "formats": [fields[name][0] for name in dtype.names],
        "offsets": [fields[name][1] for name in dtype.names],
        "itemsize": dtype.itemsize,
    }
    fresh: np.dtype[Any] = np.dtype(description, align=dtype.isalignedstruct)
    return fresh


def _are_alike(dtype: np.dtype[Any], fresh: np.dtype[Any]) -> bool:
    return (dtype.itemsize, dtype.flags, dtype.hasobject, dtype.alignment, dtype.kind) == (
        fresh.itemsize, fresh.flags, fresh.hasobject, fresh.alignment, fresh.kind,
    )  # fmt: skip


def list_objects_in(array: NDArray[Any]) -> list[Any]:
    """Return the objects in an array of objects, the masked ones included."""
    found: list[Any] = np.asarray(array).ravel().tolist()
    return found

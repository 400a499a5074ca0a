"""Rewrites the nodes of a skops schema that hold numbers: arrays, dtypes, sparse matrices and random states."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted, Global
from serving.host.restricted.array_rules import count_elements
from serving.host.restricted.pickle_writer import PickleWriter
from serving.host.restricted.skops_archive import Archive, ArrayFile
from serving.host.restricted.skops_schema import Node, get_child, get_children, get_name, get_text, read_sizes

_ARRAY: Global = ("numpy", "ndarray")
_WHOLE_ARRAYS = frozenset({_ARRAY, ("numpy", "matrix"), ("numpy", "memmap")})
# the arrays that each layout of sparse matrices has beside its data
_LAYOUTS = {
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "dia": ("offsets",),
    "coo": (),
}


class ArrayRewriter:
    """Writes nodes of numbers as opcodes."""

    def __init__(self, archive: Archive, writer: PickleWriter) -> None:
        self._archive = archive
        self._out = writer

    def write(self, node: Any) -> None:
        """Write the opcodes that push the object of any node."""
        raise NotImplementedError

    # --- arrays -------------------------------------------------------------------------------------------------------

    def write_array(self, node: Node) -> None:
        """Write an NdArrayNode: an array of numbers, a NumPy scalar, or an array of objects."""
        kind = get_text(node, "type")
        if kind == "json":
            self._write_objects(node)
        elif kind != "numpy":
            raise Distrusted(f"the file has an array of type {kind[:40]!r}, which no model needs; {ANY_TRUST}")
        elif get_name(node) in _WHOLE_ARRAYS:
            self._write_numbers(self._archive.open_array(node["file"]))
        else:
            self._write_scalar(get_name(node), self._archive.open_array(node["file"]))

    def _write_numbers(self, array: ArrayFile) -> None:
        array.copy_to(self._out.push_array(array.dtype, array.shape, array.order))

    def _write_scalar(self, name: Global, array: ArrayFile) -> None:
        kind = vars(np).get(name[1]) if name[0] == "numpy" else None
        if kind is not array.dtype.type or array.shape != ():
            raise Distrusted(f"the file has a {'.'.join(name)[:100]} that is another array; {ANY_TRUST}")
        self._out.push_global(("numpy._core.multiarray", "scalar"))
        self._out.push(array.dtype)
        self._out.push(array.read())
        self._out.emit(pickle.TUPLE2 + pickle.REDUCE)

    def _write_objects(self, node: Node) -> None:
        shape = read_sizes(node["shape"])
        self._out.push_global(("numpy._core.multiarray", "_reconstruct"))
        self._open_state([_ARRAY], shape, np.dtype(object), is_fortran=False)
        self._write_object_list(get_children(node, "content"), shape)
        self._out.emit(pickle.TUPLE + pickle.BUILD)

    def _open_state(self, kinds: Sequence[Global], shape: tuple[int, ...], dtype: Any, *, is_fortran: bool) -> None:
        """Write the rest of the call of NumPy's constructor, and the state of the array up to its content."""
        self._out.emit(pickle.MARK)
        for kind in kinds:
            self._out.push_global(kind)
        self._out.push((0,))
        self._out.push(b"b")
        self._out.emit(pickle.TUPLE + pickle.REDUCE + pickle.MARK)
        head: tuple[Any, ...] = (1, shape, dtype, is_fortran)
        for part in head:
            self._out.push(part)

    def _write_object_list(self, nodes: list[Any], shape: tuple[int, ...]) -> None:
        """Write the objects of an array of objects as one list; with several dimensions, skops has lists in lists."""
        self._out.emit(pickle.EMPTY_LIST + pickle.MARK)
        for size in shape[1:]:
            lists = [get_children(node, "content") for node in nodes]
            if any(len(each) != size for each in lists):
                raise Distrusted(f"the file holds an array whose parts do not fit together; {ANY_TRUST}")
            nodes = [node for each in lists for node in each]
        for node in nodes:
            self.write(node)
        self._out.emit(pickle.APPENDS)

    def write_masked(self, node: Node) -> None:
        """Write a MaskedArrayNode, of numbers or of objects."""
        content = get_child(node, "content")
        data, mask = get_child(content, "data"), self._archive.open_array(get_text(content["mask"], "file"))
        is_of_objects = get_text(data, "type") == "json"
        array = None if is_of_objects else self._archive.open_array(data["file"])
        shape = array.shape if array else read_sizes(data["shape"])
        dtype = array.dtype if array else np.dtype(object)
        if mask.dtype != np.bool_ or mask.shape not in (shape, ()):
            raise Distrusted(f"the file has a mask of another shape than its array; {ANY_TRUST}")
        is_fortran = array is not None and array.order == "F"
        self._out.push_global(("numpy.ma.core", "_mareconstruct"))
        self._open_state([("numpy.ma", "MaskedArray"), _ARRAY], shape, dtype, is_fortran=is_fortran)
        if array is None:
            self._write_object_list(get_children(data, "content"), shape)
        else:
            self._out.push(array.read())
        self._archive.budget.take(count_elements(shape) or 0)
        whole = np.broadcast_to(mask.read_numbers("b"), shape)
        self._out.push(whole.tobytes("F" if is_fortran else "C"))
        self._out.push(None)  # the fill value of the masked items, which skops does not keep
        self._out.emit(pickle.TUPLE + pickle.BUILD)

    def write_dtype(self, node: Node) -> None:
        """Write a DTypeNode: skops keeps an empty array of this dtype."""
        array = get_child(node, "content")
        is_of_objects = get_text(array, "type") == "json"
        self._out.push(np.dtype(object) if is_of_objects else self._archive.open_array(array["file"]).dtype)

    # --- sparse matrices ----------------------------------------------------------------------------------------------

    def write_sparse(self, node: Node) -> None:
        """Write a SparseMatrixNode: an archive of arrays inside the archive."""
        name = get_name(node)
        layout = name[1].partition("_")[0]
        if layout not in _LAYOUTS or get_text(node, "type") != "scipy":
            raise Distrusted(f"the file has a sparse matrix of another layout, {'.'.join(name)[:100]}; {ANY_TRUST}")
        inner = self._archive.open_inner(get_text(node, "file"))
        shape = tuple(inner.open_array("shape.npy").read_numbers("iu").ravel().tolist())
        self._out.push_global(name)
        self._out.emit(pickle.EMPTY_TUPLE + pickle.NEWOBJ + pickle.EMPTY_DICT + pickle.MARK)
        attributes: tuple[Any, ...] = ("_shape", shape, "maxprint", 50)
        for each in attributes:
            self._out.push(each)
        for part in ("data", *_LAYOUTS[layout]):
            self._out.push(part)
            self._write_numbers(inner.open_array(f"{part}.npy"))
        if layout == "coo":
            self._write_coordinates(inner)
        self._out.emit(pickle.SETITEMS + pickle.BUILD)

    def _write_coordinates(self, inner: Archive) -> None:
        self._out.push("has_canonical_format")
        self._out.push(False)
        self._out.push("coords")
        self._out.emit(pickle.MARK)
        for axis in ("row", "col"):
            self._write_numbers(inner.open_array(f"{axis}.npy"))
        self._out.emit(pickle.TUPLE)

    # --- random numbers -----------------------------------------------------------------------------------------------

    def write_random_state(self, node: Node) -> None:
        """Write a RandomStateNode: skops keeps the state of its generator, which is always MT19937."""
        self._out.push_global(("numpy.random._pickle", "__randomstate_ctor"))
        self._out.push(("MT19937",))
        self._out.emit(pickle.REDUCE)
        self.write(get_child(node, "content"))
        self._out.emit(pickle.BUILD)

    def write_generator(self, node: Node) -> None:
        """Write a RandomGeneratorNode, without the seed for further generators: no model makes one while it answers."""
        state = get_child(get_child(node, "content"), "bit_generator")
        self._out.push_global(("numpy.random._pickle", "__generator_ctor"))
        self.write(get_child(get_child(state, "content"), "bit_generator"))
        self._out.emit(pickle.TUPLE1 + pickle.REDUCE)
        self.write(state)
        self._out.emit(pickle.BUILD)  # as NumPy before 2 writes it, which NumPy 2 reads as well

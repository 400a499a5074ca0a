"""Rewrites the schema of a skops file as a pickle: a call by skops' loader becomes an opcode that asks for the call.

While skops loads a file, it calls what the file names with arguments from the file. A pickle does the same, and the
restricted unpickler has the rules for it. So this module makes no object of a node: it writes the pickle of the same
object, which is read under these rules. Kinds of nodes that no model needs are refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn._loss

from serving.host.restricted.allow_list import ANY_TRUST, AllowList, Distrusted, Global
from serving.host.restricted.pickle_writer import PickleWriter
from serving.host.restricted.skops_archive import Archive, parse_json
from serving.host.restricted.skops_arrays import ArrayRewriter
from serving.host.restricted.skops_schema import Node, get_child, get_children, get_name, get_text, is_null

MOST_NODES_DEEP = 100

_LITERALS: dict[Global, Callable[[str], Any]] = {
    ("builtins", "str"): str,
    ("builtins", "int"): int,
    ("builtins", "float"): float,
    ("builtins", "bool"): lambda key: key == "true",
    ("builtins", "NoneType"): lambda _: None,
    ("numpy", "bool"): lambda key: np.bool_(key == "true"),
}
_KEY_SCALARS = (np.integer, np.floating, np.str_)
# the class of pandas.NA, of which there is one object
_NOT_AVAILABLE = ("pandas.api.typing", "NAType")
# functions that make an object of the class that is their only argument
_MAKERS = frozenset({"newObj", "__bit_generator_ctor"})


def rewrite_as_pickle(archive: Archive, allowed: AllowList) -> PickleWriter:
    """Return the unfinished pickle of the object in a skops file.

    Raises Distrusted; a damaged file raises another exception.
    """
    writer = PickleWriter()
    try:
        Rewriter(archive, writer, allowed).write(archive.read_schema())
    except RecursionError:
        raise Distrusted("the file nests objects without end; write it anew") from None
    return writer


class Rewriter(ArrayRewriter):
    """Writes the nodes of one schema as opcodes. One use."""

    def __init__(self, archive: Archive, writer: PickleWriter, allowed: AllowList) -> None:
        super().__init__(archive, writer)
        self._makers = {kind: maker for maker, kinds in allowed.called.items() if maker[1] in _MAKERS for kind in kinds}
        self._depth = 0

    def write(self, node: Any) -> None:
        """Write the opcodes that push the object of a node."""
        loader = get_text(node, "__loader__")
        rule = _RULES.get(loader)
        if rule is None:
            what = f"{loader} of {'.'.join(get_name(node))}"[:200]
            raise Distrusted(f"the file has a part that no model needs, {what}; {ANY_TRUST}")
        identity = node.get("__id__")
        if type(identity) is int and self._out.repeat(identity):
            return
        self._depth += 1
        if self._depth > MOST_NODES_DEEP:
            raise Distrusted(f"the file nests objects more than {MOST_NODES_DEEP} times; {ANY_TRUST}")
        rule(self, node)
        self._depth -= 1
        if type(identity) is int:
            self._out.note(identity)

    # --- plain values and names ---------------------------------------------------------------------------------------

    def write_json(self, node: Node) -> None:
        """Write a JsonNode."""
        self._write_plain(parse_json(get_text(node, "content")))

    def write_global(self, node: Node) -> None:
        """Write a TypeNode or FunctionNode; files of skops' protocol 0 name functions in the content."""
        content = node.get("content")
        named = get_name(node) if content is None else (get_text(content, "module_path"), get_text(content, "function"))
        self._out.push_global(named)

    def write_bytes(self, node: Node) -> None:
        """Write a BytesNode or BytearrayNode."""
        content = self._archive.read(get_text(node, "file"))
        self._out.push(content if node["__loader__"] == "BytesNode" else bytearray(content))

    def write_slice(self, node: Node) -> None:
        """Write a SliceNode."""
        self._out.push_global(("builtins", "slice"))
        for name in ("start", "stop", "step"):
            self._write_plain(get_child(node, "content")[name])
        self._out.emit(pickle.TUPLE3 + pickle.REDUCE)

    def _write_plain(self, value: Any) -> None:
        if value is not None and type(value) not in (bool, int, float, str):
            raise Distrusted(f"the file has a {type(value).__name__} where skops writes a plain value; {ANY_TRUST}")
        self._out.push(value)

    # --- containers ---------------------------------------------------------------------------------------------------

    def write_list(self, node: Node) -> None:
        """Write a ListNode."""
        self._open_container(node, "list", pickle.EMPTY_LIST)
        self._write_children(node, pickle.APPENDS)

    def write_set(self, node: Node) -> None:
        """Write a SetNode."""
        self._open_container(node, "set", pickle.EMPTY_SET)
        self._write_children(node, pickle.ADDITEMS)

    def write_tuple(self, node: Node) -> None:
        """Write a TupleNode; a named tuple is made of its fields."""
        is_plain = get_name(node) == ("builtins", "tuple")
        if not is_plain:
            self._out.push_global(get_name(node))
        self._out.emit(pickle.MARK)
        self._write_children(node, pickle.TUPLE if is_plain else pickle.TUPLE + pickle.NEWOBJ)

    def write_dict(self, node: Node) -> None:
        """Write a DictNode."""
        self._open_container(node, "dict", pickle.EMPTY_DICT)
        self._write_items(node)

    def write_default_dict(self, node: Node) -> None:
        """Write a DefaultDictNode."""
        content = get_child(node, "content")
        self._out.push_global(("collections", "defaultdict"))
        self.write(content["default_factory"])
        self._out.emit(pickle.TUPLE1 + pickle.REDUCE + pickle.MARK)
        self._write_items(get_child(content, "main"))

    def _open_container(self, node: Node, plain: str, opcode: bytes) -> None:
        """Push an empty container of the class of `node`, and a mark. A plain container has an opcode of its own."""
        name = get_name(node)
        if name == ("builtins", plain):
            self._out.emit(opcode + pickle.MARK)
            return
        made_by = pickle.REDUCE if name == ("collections", "OrderedDict") else pickle.NEWOBJ
        self._out.push_global(name)
        self._out.emit(pickle.EMPTY_TUPLE + made_by + pickle.MARK)

    def _write_children(self, node: Node, end: bytes) -> None:
        for each in get_children(node, "content"):
            self.write(each)
        self._out.emit(end)

    def _write_items(self, node: Node) -> None:
        content, kinds = get_child(node, "content"), get_children(get_child(node, "key_types"), "content")
        if len(content) != len(kinds):
            raise Distrusted("the file has a dict that lacks the types of some keys; write it anew")
        for kind, (key, value) in zip(kinds, content.items(), strict=True):
            self._write_key(get_name(kind), key)
            self.write(value)
        self._out.emit(pickle.SETITEMS)

    def _write_key(self, kind: Global, key: str) -> None:
        """Write a key of a dict, which is text in JSON."""
        scalar = vars(np).get(kind[1]) if kind[0] == "numpy" else None
        if kind in _LITERALS:
            self._out.push(_LITERALS[kind](key))
        elif isinstance(scalar, type) and issubclass(scalar, _KEY_SCALARS):
            self._out.push(scalar(key))
        else:
            self._out.push_global(kind)
            self._out.push(key)
            self._out.emit(pickle.TUPLE1 + pickle.REDUCE)

    # --- objects ------------------------------------------------------------------------------------------------------

    def write_object(self, node: Node) -> None:
        """Write an ObjectNode: the object is made without its constructor, as in pickles."""
        name = get_name(node)
        if name == _NOT_AVAILABLE:
            self._out.push_global(("pandas", "NA"))
            return
        maker = self._makers.get(name)
        for each in (name,) if maker is None else (maker, name):
            self._out.push_global(each)
        self._out.emit(pickle.EMPTY_TUPLE + pickle.NEWOBJ if maker is None else pickle.TUPLE1 + pickle.REDUCE)
        state = node.get("content")
        if state is not None and not is_null(state):
            self.write(state)
            self._out.emit(pickle.BUILD)

    def write_call(self, node: Node) -> None:
        """Write a ConstructorFromReduceNode or OperatorFuncNode."""
        self._out.push_global(get_name(node))
        self.write(node["content"] if "content" in node else node["attrs"])
        self._out.emit(pickle.REDUCE)

    def write_partial(self, node: Node) -> None:
        """Write a PartialNode."""
        content = get_child(node, "content")
        self._out.push_global(("functools", "partial"))
        self.write(content["func"])
        self._out.emit(pickle.TUPLE1 + pickle.REDUCE + pickle.MARK)
        for name in ("func", "args", "kwds", "namespace"):
            self.write(content[name])
        self._out.emit(pickle.TUPLE + pickle.BUILD)

    def write_tree(self, node: Node) -> None:
        """Write a TreeNode."""
        self._write_reduced(node, ("sklearn.tree._tree", "Tree"))

    def write_loss(self, node: Node) -> None:
        """Write a LossNode."""
        losses = getattr(sklearn._loss, "_loss", None)  # not before 1.1
        kind = getattr(losses, "CyHalfMultinomialLoss", None)
        if kind is not None and get_name(node) == (kind.__module__, kind.__name__):
            self._out.push(kind())  # it has no state, and a pickle makes it by a special function
        else:
            self._write_reduced(node, get_name(node))

    def _write_reduced(self, node: Node, function: Global) -> None:
        self._out.push_global(function)
        self.write(get_child(node, "__reduce__")["args"])
        self._out.emit(pickle.REDUCE)
        state = get_child(node, "content")
        if not is_null(state) and state["content"]:
            self.write(state)
            self._out.emit(pickle.BUILD)


_RULES: dict[str, Callable[[Rewriter, Node], None]] = {
    "JsonNode": Rewriter.write_json,
    "TypeNode": Rewriter.write_global,
    "FunctionNode": Rewriter.write_global,
    "BytesNode": Rewriter.write_bytes,
    "BytearrayNode": Rewriter.write_bytes,
    "SliceNode": Rewriter.write_slice,
    "ListNode": Rewriter.write_list,
    "SetNode": Rewriter.write_set,
    "TupleNode": Rewriter.write_tuple,
    "DictNode": Rewriter.write_dict,
    "DefaultDictNode": Rewriter.write_default_dict,
    "ObjectNode": Rewriter.write_object,
    "ConstructorFromReduceNode": Rewriter.write_call,
    "OperatorFuncNode": Rewriter.write_call,
    "PartialNode": Rewriter.write_partial,
    "TreeNode": Rewriter.write_tree,
    "LossNode": Rewriter.write_loss,
    "NdArrayNode": Rewriter.write_array,
    "MaskedArrayNode": Rewriter.write_masked,
    "DTypeNode": Rewriter.write_dtype,
    "SparseMatrixNode": Rewriter.write_sparse,
    "RandomStateNode": Rewriter.write_random_state,
    "RandomGeneratorNode": Rewriter.write_generator,
}

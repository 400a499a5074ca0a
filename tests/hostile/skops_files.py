"""skops files written by hand, node by node: zip archives with a schema that names what is to be made."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import skops.io
from sklearn.preprocessing import StandardScaler

Node = dict[str, Any]
STRINGS = {"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"}


def node(loader: str, name: str, **parts: Any) -> Node:
    """Return a node of an object of ``module.Class``."""
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind, **parts}


def plain(value: Any) -> Node:
    """Return the node of what JSON has a word for, or of what it should have none for."""
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def in_tuple(*items: Node) -> Node:
    """Return the node of a tuple."""
    return node("TupleNode", "builtins.tuple", content=list(items))


def in_list(*items: Node) -> Node:
    """Return the node of a list."""
    return node("ListNode", "builtins.list", content=list(items))


def in_dict(items: Mapping[str, Node], kind: str = "builtins.dict") -> Node:
    """Return the node of a dict with texts for keys."""
    return node("DictNode", kind, content=dict(items), key_types=in_list(*[STRINGS] * len(items)))


def call(name: str, *arguments: Node) -> Node:
    """Return a node that calls ``module.name``."""
    return node("ConstructorFromReduceNode", name, content=in_tuple(*arguments))


def array(file: str, name: str = "numpy.ndarray") -> Node:
    """Return the node of an array in a member."""
    return node("NdArrayNode", name, type="numpy", file=file)


def objects(shape: Node, *items: Node) -> Node:
    """Return the node of an array of objects."""
    return node("NdArrayNode", "numpy.ndarray", type="json", content=list(items), shape=shape)


def npy(content: Any) -> bytes:
    """Return an array in NumPy's own format."""
    file = io.BytesIO()
    np.save(file, content)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    """Return an archive of arrays, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def whole(root: Node, **members: bytes) -> bytes:
    """Return a skops file of one object. The members are called as in `members`, but with a dot for each ``_``."""
    schema = json.dumps({**root, "protocol": 2, "_skops_version": "0.16"}).encode()
    return archive({"schema.json": schema, **{name.replace("_", "."): raw for name, raw in members.items()}})


def noted(extra: Node, **members: bytes) -> bytes:
    """Return a skops file of a sound scaler that has one more attribute, ``note``."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(StandardScaler().fit(np.eye(3))))) as opened:
        sound = {name: opened.read(name) for name in opened.namelist()}
    schema = json.loads(sound.pop("schema.json"))
    attributes = schema["content"]
    attributes["content"]["note"] = extra
    attributes["key_types"]["content"].append(STRINGS)
    more = {name.replace("_", "."): raw for name, raw in members.items()}
    return archive({"schema.json": json.dumps(schema).encode(), **sound, **more})

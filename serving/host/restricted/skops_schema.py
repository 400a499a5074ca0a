"""Reads the parts of a node in the schema of a skops file, each of the type that skops writes.

Every function raises Distrusted for a part that is missing or of another type.
"""

from __future__ import annotations

from typing import Any

from serving.host.restricted.allow_list import Distrusted, Global
from serving.host.restricted.skops_archive import parse_json

Node = dict[str, Any]


def get_text(node: Any, part: str) -> str:
    """Return a part that is a text."""
    return str(_require_part(node, part, str))


def get_child(node: Any, part: str) -> Node:
    """Return a part that is a node or a dict of nodes."""
    found: Node = _require_part(node, part, dict)
    return found


def get_children(node: Any, part: str) -> list[Any]:
    """Return a part that is a list of nodes."""
    found: list[Any] = _require_part(node, part, list)
    return found


def get_name(node: Any) -> Global:
    """Return the class or function that a node names."""
    return get_text(node, "__module__"), get_text(node, "__class__")


def is_null(node: Any) -> bool:
    """Return True for the node of None."""
    return get_text(node, "__loader__") == "JsonNode" and get_text(node, "content") == "null"


def read_sizes(node: Any) -> tuple[int, ...]:
    """Return the tuple of sizes in a node."""
    sizes = [parse_json(get_text(each, "content")) for each in get_children(node, "content")]
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise _make_refusal("a shape")
    return tuple(sizes)


def _require_part(node: Any, part: str, kind: type) -> Any:
    found = node.get(part) if type(node) is dict else None
    if type(found) is not kind:
        raise _make_refusal(f"'{part}'")
    return found


def _make_refusal(part: str) -> Distrusted:
    return Distrusted(f"the file's schema.json has {part} in another form than skops writes it; write it anew")

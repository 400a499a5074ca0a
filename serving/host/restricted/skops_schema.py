"""What a node in the schema of a skops file says of itself: its parts, each of the type that skops writes."""

from __future__ import annotations

from typing import Any

from serving.host.restricted.allow_list import Global
from serving.host.restricted.distrust import Distrusted
from serving.host.restricted.skops_archive import parse_json

Node = dict[str, Any]


def text(node: Any, part: str) -> str:
    """Return a part that is a text; all of these raise Distrusted for a part of another type, or a node without it."""
    return str(_require(node, part, str))


def child(node: Any, part: str) -> Node:
    """Return a part that is a node or has nodes by name."""
    found: Node = _require(node, part, dict)
    return found


def children(node: Any, part: str) -> list[Any]:
    """Return a part that is a list of nodes."""
    found: list[Any] = _require(node, part, list)
    return found


def name_of(node: Any) -> Global:
    """Return the class or function that a node names."""
    return text(node, "__module__"), text(node, "__class__")


def is_null(node: Any) -> bool:
    """Say whether a node is that of None."""
    return text(node, "__loader__") == "JsonNode" and text(node, "content") == "null"


def read_sizes(node: Any) -> tuple[int, ...]:
    """Return the tuple of integers that a node is."""
    sizes = [parse_json(text(each, "content")) for each in children(node, "content")]
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise _malformed("a shape")
    return tuple(sizes)


def _require(node: Any, part: str, kind: type) -> Any:
    found = node.get(part) if type(node) is dict else None
    if type(found) is not kind:
        raise _malformed(f"'{part}'")
    return found


def _malformed(part: str) -> Distrusted:
    return Distrusted(f"the file's schema.json has {part} in another form than skops writes it; write it anew")

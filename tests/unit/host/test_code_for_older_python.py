"""The code of hosts is written for Python 3.9, apart from what `serving.host.substitutes` adds to it.

Real older Pythons run it in other tests, where this machine has them. This one looks at the text of every module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import serving

PACKAGE = Path(serving.__file__).parent
MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for part in ("compiling", "domain", "host", "rows", "sandbox", "wire")
    for path in (PACKAGE / part).rglob("*.py")
)
# methods and functions that came later, and that nothing can add to a class of the standard library
NEWER = frozenset({"add_note", "batched", "bit_count", "file_digest", "total"})


def find_newer(tree: ast.Module) -> Iterator[str]:
    """Yield what Python 3.9 would stumble on while it runs: unions of classes that are computed, newer methods."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(node.func, ast.Attribute) and name in NEWER:
            yield f"line {node.lineno}: .{name}()"
        if name in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
            yield f"line {node.lineno}: {name} with a union"
        if name in ("from_bytes", "to_bytes") and len(node.args) + len(node.keywords) < 2:
            yield f"line {node.lineno}: {name} without the order of bytes"
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(map(is_union, ast.walk(statement.value))):
            yield f"line {statement.lineno}: a union of types"


def is_union(node: ast.AST) -> bool:
    """Whether this is ``A | None`` or ``int | str``: sets and flags are joined by the same operator."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        return False
    plain = {"None", "bool", "bytes", "bytearray", "dict", "float", "int", "list", "memoryview", "str", "tuple", "type"}
    return any(ast.unparse(side).partition("[")[0] in plain for side in (node.left, node.right))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_runs_on_python_3_9(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {each.name for node in tree.body if isinstance(node, ast.ImportFrom) for each in node.names}
    has_annotations = any(isinstance(node, (ast.FunctionDef, ast.AnnAssign)) for node in ast.walk(tree))
    assert "annotations" in imported or not has_annotations, "from __future__ import annotations"
    assert list(find_newer(tree)) == []


@pytest.mark.parametrize(
    "code",
    [
        "Label = int | str",
        "Rule = Callable[[int], str | None]",
        "isinstance(x, list | dict)",
        "Counter().total()",
        "int.from_bytes(raw)",
    ],
)
def test_what_python_3_9_lacks_is_found(code: str) -> None:
    assert list(find_newer(ast.parse(code)))


def test_newer_syntax_is_found() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass", feature_version=(3, 9))

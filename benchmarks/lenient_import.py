"""Imports modules so that what a library lacks is left out: each statement that fails is skipped, and named.

The models in `tests.sound` are written for the newest scikit-learn. An older one lacks some classes and options; all
the other models must still be made there. So each statement of these modules runs in a ``try`` of its own.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

_SIMPLE = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.With)
_NOTE = "_note_left_out"


def import_leniently(package: str) -> ModuleType:
    """Return a package, it and its modules imported so that statements which fail are left out and named on stderr."""
    sys.meta_path.insert(0, _Finder(package))
    return importlib.import_module(package)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._package and not name.startswith(self._package + "."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name: str) -> Any:
        path = self.get_filename(name)
        tree = _Lenient().visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        seen: set[tuple[int, str]] = set()

        def note(line: int, error: Exception) -> None:
            text = f"{type(error).__name__}: {str(error)[:100]}"
            if (line, text) not in seen:
                seen.add((line, text))
                print(f"left out: {module.__name__}:{line}: {text}", file=sys.stderr)

        setattr(module, _NOTE, note)
        super().exec_module(module)


class _Lenient(ast.NodeTransformer):
    """Puts each statement of functions into a ``try``, and each name that is imported into a statement of its own."""

    def __init__(self) -> None:
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._depth += 1
        node.body = self._wrap(node.body)
        self._depth -= 1
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        return node  # it knows what may be absent

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if self._depth or node.module == "__future__":
            return node
        single = [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
        return [_try(ast.copy_location(each, node)) for each in single]

    def _wrap(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [self._wrap_one(each) for each in body]

    def _wrap_one(self, statement: ast.stmt) -> ast.stmt:
        for part in ("body", "orelse", "finalbody"):
            inner = getattr(statement, part, None)
            if isinstance(inner, list) and not isinstance(statement, ast.Try):
                setattr(statement, part, self._wrap(inner))
        return _try(statement) if isinstance(statement, _SIMPLE) else statement


def _try(statement: ast.stmt) -> ast.Try:
    note = ast.parse(f"{_NOTE}({statement.lineno}, error)").body
    handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), "error", note)
    made = ast.Try([statement], [handler], [], [])
    for each in ast.walk(made):
        if isinstance(each, (ast.stmt, ast.expr, ast.excepthandler)) and not hasattr(each, "lineno"):
            ast.copy_location(each, statement)
    return made

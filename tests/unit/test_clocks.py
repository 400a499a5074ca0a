"""The wall clock may jump: it names and dates things, and decides nothing. Timers are monotonic, and tests wait."""

from __future__ import annotations

import ast
from pathlib import Path

import serving

PACKAGE = Path(serving.__file__).parent
WALL_CLOCKS = ("monotonic()", "perf_counter()", "process_time()", "thread_time()", "time.time()", "loop.time()")
TESTS = Path(__file__).parents[1]


def is_bound_on_a_time(statement: ast.Assert) -> bool:
    """Say whether it asserts that no more than some time has passed; that as much has passed is true anywhere."""
    is_bound = any(isinstance(each, ast.Lt | ast.LtE) for each in ast.walk(statement))
    calls = (ast.unparse(each) for each in ast.walk(statement) if isinstance(each, ast.Call))
    return is_bound and any(call.endswith(CLOCKS) for call in calls)


def test_no_test_asserts_that_something_is_quick() -> None:
    """A slow machine would fail it: speed is measured in benchmarks/."""
    texts = {path: path.read_text() for path in TESTS.rglob("*.py")}
    found = [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path, text in texts.items()
        if any(clock in text for clock in CLOCKS)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert) and is_bound_on_a_time(node)
    ]
    assert found == []

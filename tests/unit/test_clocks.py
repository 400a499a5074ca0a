"""The wall clock may jump: it names and dates things, and decides nothing. Timers are monotonic."""

from __future__ import annotations

import ast
from pathlib import Path

import serving

PACKAGE = Path(serving.__file__).parent
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# Where it may be read, and what holds when it jumps.
ALLOWED = {
    "lifecycle/lone.py": "names a lone file's content; never before an earlier name (test_lone.py)",
    "lifecycle/records.py": "dates a state, for people",
    "lifecycle/recovery.py": "names a damaged database that is kept aside",
    "lifecycle/remembered_verdicts.py": "dates a verdict, for people",
    "offline/gated.py": "dates a manifest",
    "offline/offline_evaluator.py": "a command that ends: how long files were quiet, by their own times",
    "store/descriptors.py": "orders the cache by use; never before an earlier mark (test_staging.py)",
    "store/listing.py": "whether a change is too fresh to trust its time; if so it is read again (test_models.py)",
}


def test_the_wall_clock_is_read_only_where_a_jump_changes_nothing() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS
    }
    assert found == set(ALLOWED)

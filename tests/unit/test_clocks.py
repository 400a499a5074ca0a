"""The wall clock may jump: it names and dates things, and decides nothing. Timers are monotonic, and tests wait."""

from __future__ import annotations

import ast
from pathlib import Path

import serving

PACKAGE = Path(serving.__file__).parent
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# Where it may be read, and what holds when it jumps.
ALLOWED = {
    "api/events/counted_state.py": "dates counts, for clients",
    "api/events/event_feed.py": "tells clients the time here",
    "api/sessions.py": "ends sessions in all processes alike; too long a life is none (test_page_session.py)",
    "cli/rollout_command.py": "says how long a step has lasted, for people",
    "cli/publish_remotely.py": "dates a manifest",
    "environments/create_environment.py": "dates a record, for people",
    "lifecycle/lone_files.py": "names a lone file's content; never before an earlier name (test_lone_files.py)",
    "lifecycle/records.py": "dates a state, for people",
    "lifecycle/recovery.py": "names a damaged database that is kept aside",
    "lifecycle/remembered_verdicts.py": "dates a verdict, for people",
    "offline/bare_publishing.py": "dates a manifest",
    "offline/check_environment.py": "dates the manifest of a trial, which is thrown away",
    "offline/gated_publishing.py": "dates a manifest",
    "offline/offline_evaluator.py": "a command that ends: how long files were quiet, by their own times",
    "recording/record_files.py": "names a file; after a jump others are the oldest",
    "recording/recorder.py": "dates a record, for people",
    "supervisor/attached_workers.py": "dates the start of a process, for people",
    "supervisor/crew.py": "dates a worker's start, for people",
    "telemetry/dropped_spans.py": "dates a counter, for Prometheus",
    "telemetry/fallbacks.py": "dates a counter, for Prometheus",
    "telemetry/spans.py": "dates a trace at its beginning; the rest of it is monotonic",
    "store/descriptors.py": "orders the cache by use; never before an earlier mark (test_staging.py)",
    "store/list_store.py": "whether a change is too fresh to trust its time; then read again (test_model_directory.py)",
}


def test_the_wall_clock_is_read_only_where_a_jump_changes_nothing() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS
    }
    assert found == set(ALLOWED)


CLOCKS = ("monotonic()", "perf_counter()", "process_time()", "thread_time()", "time.time()", "loop.time()")
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

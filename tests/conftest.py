"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

# Libraries read this when they are loaded. With several threads each, workers wait for each other's, and busily so:
# fitting boosters took three times as much of the processors. Servers that tests start do not inherit it.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
# Tests fork; gRPC's own code would run in each child, start threads and end it where it may not.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from tests.e2e.harness import Server, constant, serving, write_version  # noqa: E402  (loads those libraries)
from tests.environments import OLDEST, SECOND, WITH_FIELD, share_environment  # noqa: E402

# A worker takes file after file in this order; what takes longest comes first, so that none is left with it at the end.
# The first two make environments; other files that need these come later, and need not wait.
LONGEST = (
    "e2e/test_other_environment.py",
    "unit/hosting/test_oldest_environment.py",
    "e2e/test_workers.py",
    "e2e/test_process.py",
    "e2e/test_uploads_failing.py",
    "e2e/test_upload_command.py",
    "e2e/test_rollouts_killed.py",
    "e2e/test_events_workers.py",
    "e2e/test_events.py",
    "unit/test_cli.py",
    "e2e/test_forged_frames.py",
    "e2e/test_environment_commands.py",
    "unit/hosting/test_zygote.py",
    "e2e/test_faults_killed.py",
    "unit/host/restricted/test_attribute_check.py",
    "unit/sandbox/test_audit.py",
    "unit/hosting/test_evaluating.py",
    "unit/sandbox/test_sandbox.py",
    "e2e/test_edge_bombs.py",
    "e2e/test_uploads.py",
    "e2e/test_swaps.py",
    "browser/test_model_view.py",
    "browser/test_accessibility.py",
    "browser/test_model_view.py",
    "browser/test_model_rollout.py",
    "browser/test_page_stream.py",
    "browser/test_page_views.py",
    "e2e/test_rollouts.py",
    "e2e/test_labels.py",
    "e2e/test_worker_deaths.py",
    "unit/compiling/test_convert.py",
    "e2e/test_edge_framing.py",
    "e2e/test_watching.py",
    "e2e/test_restarts.py",
    "e2e/test_page_access.py",
    "browser/test_hostile_pages.py",
    "e2e/test_prediction_log.py",
    "e2e/test_graph_checks.py",
    "e2e/test_models_page.py",
    "unit/lifecycle/test_recovery.py",
    "e2e/test_hosts.py",
    "e2e/test_faults_store.py",
    "unit/hosting/test_environment_hosts.py",
    "e2e/test_no_word.py",
    "unit/api/json_bodies/test_cutter.py",
    "e2e/test_compiled.py",
    "e2e/test_faults_state.py",
    "unit/offline/test_publish_estimator.py",
    "e2e/test_faults_stopped.py",
    "e2e/test_operators.py",
    "e2e/test_candidates.py",
    "e2e/test_faults_copies.py",
    "unit/host/restricted/test_reading.py",
    "unit/offline/test_training_environment.py",
    "e2e/test_faults_disk.py",
    "container/test_dashboard.py",
    "browser/test_safety.py",
    "browser/test_model_upload.py",
    "browser/test_model_rollout.py",
    "container/test_alerts.py",
    "e2e/test_kills.py",
    "unit/test_demo.py",
    "e2e/test_fuzz_http.py",
    "e2e/test_edge_memory.py",
    "e2e/test_correctness.py",
    "unit/host/restricted/test_skops_file.py",
    "e2e/test_removals.py",
    "unit/host/test_every_estimator.py",
    "e2e/test_edge.py",
    "unit/test_offline.py",
    "e2e/test_formats.py",
)


gc.disable()  # nothing of what is collected is garbage: to look for it takes two fifths of the time


def pytest_collection_finish() -> None:
    """Look for garbage again, but never among what was collected and imported: each search would take half a second."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file stays."""
    tests = Path(__file__).parent
    places = {tests / file: place for place, file in enumerate(LONGEST)}
    if missing := [str(path) for path in places if not path.exists()]:
        raise pytest.UsageError(f"LONGEST in tests/conftest.py names files that do not exist: {', '.join(missing)}")
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


# Whether an example is slow depends on what else the machine does.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

# Without this, a logged traceback shows every local variable of every frame: seconds for one of the framework's.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A ready server with one model, `m`, whose version 1 answers 1.0."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as running:
        yield running


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a real second environment: scikit-learn 1.5.2, NumPy 1.26.4, pandas 2.2.3, no pydantic."""
    yield from share_environment(find_shared_directory(tmp_path_factory) / "second-environment", SECOND)


@pytest.fixture(scope="session")
def field_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of an environment like the second one, with packages of the field; it takes a minute to make."""
    yield from share_environment(find_shared_directory(tmp_path_factory) / "field-environment", WITH_FIELD)


@pytest.fixture(scope="session")
def oldest_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of the oldest environment that hosts run in: Python 3.9, scikit-learn 1.0.2, NumPy 1.22."""
    yield from share_environment(find_shared_directory(tmp_path_factory) / "oldest-environment", OLDEST)


def find_shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the temporary directory that all workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

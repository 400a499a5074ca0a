"""Work in a forked process: its result, its end, its deadline."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from serving.compiling.forked_worker import ForkedWorker, WorkFailed
from tests.e2e.harness import until


def test_a_result_of_any_size_is_returned() -> None:
    content = os.urandom(5 << 20)
    assert ForkedWorker(lambda: content).run(30.0) == content
    assert ForkedWorker(lambda: b"").run(30.0) == b""


def test_the_work_happens_in_another_process() -> None:
    assert int(ForkedWorker(lambda: str(os.getpid()).encode()).run(30.0)) != os.getpid()


def test_work_that_takes_too_long_is_killed() -> None:
    def work() -> bytes:
        time.sleep(600)
        return b""

    worker = ForkedWorker(work)
    with pytest.raises(WorkFailed, match=r"not finished after 0\.5 s"):
        worker.run(0.5)
    assert not psutil.pid_exists(worker.pid)


def test_the_signal_that_killed_a_worker_is_named() -> None:
    def work() -> bytes:
        faulthandler.disable()  # pytest's, which would print where it happened
        signal.raise_signal(signal.SIGSEGV)
        return b""

    with pytest.raises(WorkFailed, match="died with SIGSEGV"):
        ForkedWorker(work).run(30.0)


def test_work_that_raises_an_exception_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(WorkFailed, match="the process failed"):
        ForkedWorker(work).run(30.0)


def test_a_dismissed_worker_ends_without_working(tmp_path: Path) -> None:
    worker = ForkedWorker(lambda: b"never", (tmp_path / "entered").touch, (tmp_path / "ready").touch)
    until((tmp_path / "entered").exists, "its beginning")
    assert not (tmp_path / "ready").exists()
    worker.prepare()
    until((tmp_path / "ready").exists, "the preparation")
    worker.dismiss()
    assert not psutil.pid_exists(worker.pid)
    worker.dismiss()


def test_the_work_sees_the_state_at_the_fork() -> None:
    seen = [b"before"]
    worker = ForkedWorker(lambda: seen[0])
    seen[0] = b"after"
    assert worker.run(30.0) == b"before"

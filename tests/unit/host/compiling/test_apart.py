"""Work in a forked process: its result, its end, its deadline."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from serving.host.compiling.apart import Unfinished, run_apart
from tests.e2e.harness import until


def test_what_the_work_returns_comes_back_whatever_its_size() -> None:
    content = os.urandom(5 << 20)
    assert run_apart(lambda: content, 30.0) == content
    assert run_apart(lambda: b"", 30.0) == b""


def test_the_work_happens_in_another_process() -> None:
    assert int(run_apart(lambda: str(os.getpid()).encode(), 30.0)) != os.getpid()


def test_work_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    def work() -> bytes:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)
        return b""

    with pytest.raises(Unfinished, match=r"not finished after 0\.5 s"):
        run_apart(work, 0.5)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid), "the end of the process")


def test_work_that_dies_is_told_by_its_signal() -> None:
    def work() -> bytes:
        faulthandler.disable()  # pytest's, which would print where it happened
        os.kill(os.getpid(), signal.SIGSEGV)
        return b""

    with pytest.raises(Unfinished, match="died with SIGSEGV"):
        run_apart(work, 30.0)


def test_work_that_raises_has_failed(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(Unfinished, match="the process failed"):
        run_apart(work, 30.0)

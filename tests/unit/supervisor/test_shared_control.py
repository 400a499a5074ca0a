"""What control answers its workers."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.settings import Settings
from serving.supervisor.shared_control import SharedControl
from serving.supervisor.worker_link import WorkerLink
from serving.wire.shared_words import make_words
from serving.wire.worker_messages import Exposition, RenderMetrics
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


def test_many_clients_that_want_the_metrics_at_once_take_one_thread(tmp_path: Path) -> None:
    """They may be as many as there are connections, and the supervisor needs its threads for workers."""
    settings = Settings(store={"path": tmp_path}, state={"path": tmp_path})
    words = make_words("test")
    workers: Any = SimpleNamespace(list_links=list)
    control = SharedControl(settings, words, 2, lambda _: workers)
    may_render, answers = threading.Event(), list[Any]()

    def render(*_: Any) -> tuple[bytes, str]:
        may_render.wait(20)
        return b"", "text/plain"

    control.metrics.render_workers = render  # type: ignore[method-assign]
    link, gone = WorkerLink(0, os.getpid(), -1), WorkerLink(1, os.getpid(), -1)
    gone.has_ended.set()
    asked: Any = SimpleNamespace(message=RenderMetrics(""), answer=answers.append)
    before = threading.active_count()
    for _ in range(50):
        control.take(link, asked)
        control.take(gone, asked)
    assert threading.active_count() <= before + 1
    may_render.set()
    until(lambda: len(answers) == 50, "all answers, and none for a worker that is gone")
    assert answers[0] == Exposition("", "text/plain")
    os.close(words)

"""The watcher finds out whether events arrive, and leaves nothing behind in the store."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.inotify import InotifyObserver

from serving.lifecycle.watcher import Watcher
from serving.store.upload_directories import make_upload_directory
from tests.e2e.harness import until

WAIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, events arrive."""
    monkeypatch.setattr("serving.lifecycle.watcher.PROBE_SECONDS", WAIT_SECONDS)


class Names(FileSystemEventHandler):
    """The names that were made or removed in a directory, until `last` was made."""

    def __init__(self, last: str) -> None:
        self.last = last
        self.seen: list[str] = []
        self.has_ended = threading.Event()

    def on_created(self, event: FileSystemEvent) -> None:
        self.seen.append(Path(os.fsdecode(event.src_path)).name)
        if self.seen[-1] == self.last:
            self.has_ended.set()

    def on_deleted(self, event: FileSystemEvent) -> None:
        self.seen.append(f"{Path(os.fsdecode(event.src_path)).name} removed")


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    handler = Names("last")
    observer = Observer()
    observer.schedule(handler, str(tmp_path))
    observer.start()
    yield handler
    observer.stop()
    observer.join()


def test_the_watcher_makes_no_file_in_the_store(tmp_path: Path, names: Names) -> None:
    """A file in the way of `rm -rf` or `rmdir` would make them fail."""
    watcher = Watcher(tmp_path, "auto", lambda: None)
    found = tmp_path.stat()
    try:
        assert watcher.ensure((found.st_dev, found.st_ino))
        assert watcher.mode == "events"
    finally:
        watcher.stop()
    (tmp_path / "last").mkdir()
    assert names.has_ended.wait(WAIT_SECONDS)
    assert names.seen == ["last"]


def test_a_change_wakes(tmp_path: Path) -> None:
    has_woken = threading.Event()
    watcher = Watcher(tmp_path, "auto", has_woken.set)
    found = tmp_path.stat()
    try:
        assert watcher.ensure((found.st_dev, found.st_ino))
        assert has_woken.wait(WAIT_SECONDS)
        has_woken.clear()
        (tmp_path / "m").mkdir()
        assert has_woken.wait(WAIT_SECONDS)
    finally:
        watcher.stop()


def test_what_is_written_aside_wakes_nobody_until_it_is_renamed(tmp_path: Path) -> None:
    """A long upload would have the whole store listed, again and again."""
    woken: list[None] = []
    watcher = Watcher(tmp_path, "events", lambda: woken.append(None))
    upload = make_upload_directory(tmp_path, "m")
    (tmp_path / "m").mkdir()
    found = tmp_path.stat()
    try:
        assert watcher.ensure((found.st_dev, found.st_ino))
        with (upload.files / "model.joblib").open("wb", buffering=0) as file:
            for _ in range(50):
                file.write(b"x")
                file.truncate()
        assert not woken
        upload.files.rename(tmp_path / "m" / "1")
        until(lambda: woken, "a wake")  # events come in order: the others have come before
        assert len(woken) < 10
    finally:
        watcher.stop()
        upload.remove()


def test_a_directory_that_is_added_twice_prints_nothing_into_the_log(tmp_path: Path) -> None:
    """watchdog warns of that where directories are made while they are being added."""
    code = (
        "import sys; import serving.lifecycle.watcher; from watchdog.observers.inotify_c import InotifyFD\n"
        "class Heard:\n    def on_event(self, event): pass\n    def on_watch_deleted(self, wd): pass\n"
        "fd = InotifyFD.get_instance()\n"
        "for _ in range(2): fd.add_callback(sys.argv[1].encode(), 2, Heard(), 1)\n"
        "import os; os._exit(0)"
    )
    line = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "fs.inotify.max_user_watches"), (errno.EMFILE, "fs.inotify.max_user_instances")],
)
def test_a_limit_of_inotify_is_told_and_the_store_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "inotify limit reached")

    watcher = Watcher(tmp_path, "auto", lambda: None)
    found = tmp_path.stat()
    with monkeypatch.context() as patch:
        patch.setattr(InotifyObserver, "start", refuse)
        assert not watcher.ensure((found.st_dev, found.st_ino))
    assert watcher.mode == "poll"
    assert watcher.problem is not None
    assert watcher.problem.startswith("changes are found by polling only: inotify limit reached")
    assert advice in watcher.problem
    watcher.forget()
    try:
        assert watcher.ensure((found.st_dev, found.st_ino))
        assert watcher.problem is None
    finally:
        watcher.stop()


def test_a_store_that_cannot_be_written_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only mount: whether events arrive cannot be found out."""

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    watcher = Watcher(tmp_path, "auto", lambda: None)
    found = tmp_path.stat()
    assert not watcher.ensure((found.st_dev, found.st_ino))
    assert watcher.mode == "poll"

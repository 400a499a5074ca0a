"""Real files for the tests of the store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.domain.listing import Entry, Listing
from serving.settings import StoreSettings
from serving.store.list_store import Store

NOBODY = 65534
HOUR_NS = 3600 * 10**9


def sha256(content: bytes) -> str:
    """Return the sha256 of some bytes in hex."""
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes = b"bytes of a model") -> Path:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_version(root: Path, model: str, version: str, **files: bytes) -> Path:
    """Write a version directory; keyword ``model_joblib`` names the file ``model.joblib``."""
    for name, content in (files or {"model_joblib": b"bytes of a model"}).items():
        write(root / model / version / name.replace("_", "."), content)
    return root / model / version


def write_manifest(directory: Path, **changes: Any) -> None:
    """Write the manifest that matches what is in a version directory, then apply `changes`."""
    files = [
        {"name": path.name, "sha256": sha256(path.read_bytes()), "size": path.stat().st_size}
        for path in sorted(directory.iterdir())
        if path.name != "manifest.json"
    ]
    document = {
        "model": directory.parent.name,
        "version": directory.name,
        "created_at": "2026-11-20T08:00:00Z",
        "files": files,
    }
    (directory / "manifest.json").write_text(json.dumps(document | changes))


def write_in_place(path: Path, content: bytes) -> None:
    """Overwrite the bytes of a file, keep its inode and mtime, and make sure that its ctime has moved."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def an_hour_later() -> int:
    """Return a wall clock at which no file is fresh any more."""
    return time.time_ns() + HOUR_NS


def wait_for_next_tick() -> None:
    """Wait until the clock of file systems has moved: what changes from now on gets a later ctime."""
    if not hasattr(os, "memfd_create"):
        return  # other systems keep the time to the nanosecond
    probe = os.memfd_create("probe")
    try:
        before = os.fstat(probe).st_ctime_ns
        while os.fstat(probe).st_ctime_ns == before:
            os.utime(probe)
    finally:
        os.close(probe)


class QuietStore(Store):
    """A Store for which every directory has been quiet for an hour; nothing changes in the tick of a listing."""

    def list(self, *preferred: Any) -> Listing:
        """Return everything in the store."""
        found = super().list(*preferred)
        wait_for_next_tick()
        return found


def store_at(root: Path, **settings: Any) -> Store:
    """Return a Store for which every directory has been quiet for an hour."""
    return QuietStore(StoreSettings(path=root, **settings), now_ns=an_hour_later)


def list_model(root: Path, model: str = "iris", **settings: Any) -> tuple[Entry, ...]:
    """List the store afresh and return the entries of one model."""
    return store_at(root, **settings).list().models.get(model, ())


def versions(root: Path, model: str = "iris", **settings: Any) -> list[str]:
    """List the store afresh and return the version names of one model."""
    return [entry.version for entry in list_model(root, model, **settings)]


def problem_of(root: Path, path: str, **settings: Any) -> str:
    """List the store afresh and return what is wrong with the entry at `path`, empty when nothing is."""
    (entry,) = [entry for entry in list_model(root, **settings) if entry.path == path]
    return entry.problem or ""


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run the block as a user whom file modes bind; root is bound by none."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)

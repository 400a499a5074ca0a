"""Files below a directory in which a server, or a thread, is at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def iterate_files(directory: Path) -> Iterator[Path]:
    """Yield the files there are; directories that are removed meanwhile are passed over, where rglob would raise."""
    for root, _, names in os.walk(directory):
        yield from (Path(root, name) for name in names)


def read_files(directory: Path) -> dict[Path, bytes]:
    """Return the content of each file that is still there when it is read."""
    found = {}
    for path in iterate_files(directory):
        with suppress(FileNotFoundError):
            found[path] = path.read_bytes()
    return found

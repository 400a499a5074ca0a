"""What every benchmark is given: places for its files, and whether this is only a smoke test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench-cache"

Count = TypeVar("Count", int, float)


@dataclass(frozen=True, slots=True)
class Run:
    """`scratch` is empty and removed afterwards, `cache` stays; both are on one file system, so files can be renamed
    and linked between them.
    """

    scratch: Path
    cache: Path
    is_quick: bool = False

    def count(self, full: Count, quick: Count) -> Count:
        """Return how many, or how long: the second in a smoke test."""
        return quick if self.is_quick else full


@contextmanager
def begin(*, is_quick: bool) -> Iterator[Run]:
    """Make the directories of one benchmark."""
    CACHE.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        yield Run(scratch, CACHE, is_quick)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

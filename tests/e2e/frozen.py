"""Holds processes still, so that what is under way in them stays so for as long as a test needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import psutil


@contextlib.contextmanager
def frozen(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Have processes do nothing for the length of a ``with`` block; they may end before and within."""
    held: list[psutil.Process] = []
    try:
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()
                held.append(one)
        yield
    finally:
        for one in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()

"""Files that must never be loaded."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper

from tests.e2e.harness import constant

MEGABYTES = 1 << 20


@dataclass(frozen=True)
class Touch:
    """A pickle that touches a file where it is let."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def good() -> bytes:
    """Return a sound joblib file."""
    file = io.BytesIO()
    joblib.dump(constant(99, ballast_bytes=4096), file)
    return file.getvalue()


def dumped(value: Any, **options: Any) -> bytes:
    """Return what joblib writes for a value."""
    file = io.BytesIO()
    joblib.dump(value, file, **options)
    return file.getvalue()


def _shape_bomb(_: Path) -> bytes:
    """Announce an array of 64 TiB in less than a kilobyte."""
    return pickle.dumps(NumpyArrayWrapper(np.ndarray, (1 << 43,), "C", np.dtype("f8"))) + bytes(64)


def _zlib_bomb(_: Path) -> bytes:
    """Twice what may be read out of any file, of nothing, in an eighth of a megabyte."""
    deflate = zlib.compressobj(9)
    head = pickle.dumps(b"")[:2] + b"\x8e" + (128 * MEGABYTES).to_bytes(8, "little")
    zeros = bytes(MEGABYTES)
    return b"".join([deflate.compress(head), *(deflate.compress(zeros) for _ in range(128)), deflate.flush()])


# How to make each (given a path to touch), the gate that refuses it, and words of its evidence.
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "empty": (lambda _: b"", "format", "is empty"),
    "truncated": (lambda _: good()[: len(good()) // 2], "load", "cut short"),
    "zeros": (lambda _: bytes(len(good())), "format", "nothing but zero bytes"),
    "wrong magic": (lambda _: b"\x7fELF" + good(), "format", "beginning with the bytes 7f 45 4c 46"),
    "corrupt zlib": (lambda _: dumped(constant(99), compress=3)[:40] + bytes(400), "load", "damaged"),
    "zlib bomb": (_zlib_bomb, "load", "candidate.max_expansion"),
    "shape bomb": (_shape_bomb, "load", "it is shorter than it says"),
    "os.system": (lambda path: pickle.dumps(Touch(path)), "load", "posix.system"),
    "os.system, compressed": (lambda path: dumped(Touch(path), compress=("xz", 3)), "load", "posix.system"),
    "os.system in an object array": (
        lambda path: dumped({"tree": np.array([1, Touch(path)], dtype=object)}),
        "load",
        "posix.system",
    ),
}

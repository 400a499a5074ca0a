"""Reads the object in a joblib or pickle file, within a budget of bytes, and checks it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

from serving.host.restricted.allow_list import Distrusted, read_allow_list
from serving.host.restricted.attribute_check import check_attributes
from serving.host.restricted.joblib_files import open_joblib_file
from serving.host.restricted.opcodes import Survey, survey_opcodes
from serving.host.restricted.soundness import check_soundness
from serving.host.restricted.unpickler import RestrictedUnpickler

# any compressed file may become this large; beyond it, `candidate.max_expansion` decides
FREE_BYTES = 64 << 20


def load_restricted(
    path: str, trusted: Sequence[str] = (), max_expansion: float = 200.0, mmap_mode: str | None = None
) -> Any:
    """Return the object in a joblib or pickle file, compressed or not. Only known classes are built.

    `trusted` are further names, ``module.name``, that the file may use in any way. Beyond 64 MB a compressed file may
    not become more than `max_expansion` times as large. `mmap_mode` is joblib's, for uncompressed files. Blocks. Raises
    Distrusted for a file that does what no known model does. A damaged file raises EOFError, or another exception.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as raw, open_joblib_file(raw, path, mmap_mode) as (file, mode):
        if isinstance(file, str):
            raise Distrusted("the file was written by joblib 0.9 or older: write it anew with the joblib of today")
        is_compressed = file is not raw
        limit = max(FREE_BYTES, int(size * max_expansion)) if is_compressed else size
        source = BudgetedFile(file, limit, is_compressed=is_compressed)
        names = read_allow_list().with_trusted(tuple(trusted))
        found = RestrictedUnpickler(path, source, names, mmap_mode=mode).load()
        if source.read(1):
            raise Distrusted("the file continues after the end of its pickle; write it anew")
    check_loaded(found, trusted)
    return found


def survey_file(path: str, max_expansion: float = 200.0) -> Survey:
    """Return what the opcodes of a joblib or pickle file name, without importing, making or calling any of it.

    Keeps the budgets of `load_restricted`. Blocks. Never raises: for a file that cannot be read, the survey is empty.
    """
    with contextlib.suppress(Exception):  # no file, or damaged before the first opcode
        size = os.path.getsize(path)
        with open(path, "rb") as raw, open_joblib_file(raw, path, None) as (file, _):
            is_compressed = file is not raw
            limit = max(FREE_BYTES, int(size * max_expansion)) if is_compressed else size
            return survey_opcodes(BudgetedFile(file, limit, is_compressed=is_compressed))
    return Survey()


def check_loaded(model: Any, trusted: Sequence[str] = (), setting: str = "security.pickle_trusted") -> None:
    """Raise Distrusted unless the attributes and the numbers of a loaded model are such as known libraries make.

    `trusted` names classes and functions, ``module.name``, that any attribute may hold and whose attributes may hold
    anything. `setting` is the setting that lists them. Attributes that name a place to write to are set to None.
    Computes for milliseconds.
    """
    check_attributes(model, read_allow_list().with_trusted(tuple(trusted)), setting)
    check_soundness(model)


class BudgetedFile:
    """A file that gives no more than `limit` bytes, and raises before its reader allocates memory for more."""

    def __init__(self, file: Any, limit: int, *, is_compressed: bool) -> None:
        self.name = getattr(file, "name", "")
        self._file = file
        self._left = limit
        self._limit = limit
        self._is_compressed = is_compressed

    def expect(self, count: int) -> None:
        """Raise unless `count` more bytes are within the limit."""
        if count > self._left:
            self._refuse()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes."""
        if count > self._left + 1:
            self._refuse()
        return self._count_taken(self._file.read(count))

    def read1(self, count: int) -> bytes:
        """Return up to `count` bytes, fewer where the limit allows no more."""
        return self._count_taken(self._file.read(min(count, self._left + 1)))

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the bytes that are left, and return how many these were."""
        self.expect(memoryview(buffer).nbytes)
        count: int = self._file.readinto(buffer)
        self._left -= count
        return count

    def readline(self) -> bytes:
        """Return a line: opcodes of old protocols are lines."""
        return self._count_taken(self._file.readline(self._left + 1))

    def tell(self) -> int:
        """Return the place in the file."""
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a later place in the file, as a reader of mapped arrays does."""
        before = self.tell()
        after = int(self._file.seek(offset, whence))
        self._left -= after - before
        return after

    def _count_taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            self._refuse()
        return data

    def _refuse(self) -> None:
        if self._is_compressed:
            size = f"{self._limit >> 20} MB, all that its compressed size allows"
            raise Distrusted(f"the file becomes larger than {size} (candidate.max_expansion)")
        raise EOFError("it is shorter than it says")

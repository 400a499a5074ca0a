"""Shared memory in which one worker counts, so that the supervisor can read the counts even when the worker was killed.

    states    one 8-byte word per record: 0 for a free record, else the serial number of its present use
    records   CRC-32 and length of the key, the key as JSON, a row of float64 numbers

A worker writes numbers and key before the state, and clears the state before anything else, so a record that is half
written is a free one. A serial number is used once in the life of a sheet: a reader that sees the same one before and
after it has copied a record has copied one use of it. Each number is aligned and is written and copied whole. float64
holds whole numbers up to 2**53 exactly.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import sys
import threading
import zlib
from typing import NamedTuple

import orjson
import structlog

RECORDS = 4096
NUMBERS = 64
_HEAD_BYTES = 8
# ["traffic","...","..."] with two names of 100 characters has 217 bytes
MAX_KEY_BYTES = 248
_RECORD_BYTES = _HEAD_BYTES + MAX_KEY_BYTES + 8 * NUMBERS

Key = tuple[str, ...]
"""What is counted, and of what: ``("traffic", model, version)``."""

log = structlog.get_logger("serving.telemetry")


class CountRecord(NamedTuple):
    """What a reader found in one record: the serial number of its use, its key, and a copy of its numbers."""

    serial: int
    key: Key
    numbers: list[float]


class CountSheet:
    """One worker's counts. The supervisor makes it with `create`, the worker opens the same descriptor.

    Only one process writes, and it numbers the uses of records: open a sheet for writing once. `take` belongs to the
    event loop's thread; `release` and `read` may be called from any. Nothing blocks. Only where memfd_create exists.
    """

    def __init__(self, fd: int, records: int = RECORDS) -> None:
        """Map the sheet behind `fd`, which is owned from now on. Raises ValueError or OSError for another size."""
        self.fd = fd
        self._memory = mmap.mmap(fd, records * (8 + _RECORD_BYTES))
        whole = memoryview(self._memory)
        self._states = whole[: 8 * records].cast("Q")
        self._bytes = whole[8 * records :]
        self._numbers = self._bytes.cast("d")
        self._views = (self._states, self._numbers, self._bytes, whole)
        self._lock = threading.Lock()  # guards what follows, in the one process that writes
        self._free = list(range(records - 1, -1, -1))
        self._serial = 0
        self._is_overflow_logged = False

    @classmethod
    def create(cls, records: int = RECORDS) -> CountSheet:
        """Return an empty sheet in memory that nobody can make smaller or larger. Raises OSError."""
        if sys.platform != "linux":
            raise OSError("shared counts need memfd_create, which only Linux has")
        fd = os.memfd_create("serving-counts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, records * (8 + _RECORD_BYTES))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(fd, records)
        except BaseException:
            os.close(fd)
            raise

    @staticmethod
    def is_fixed(fd: int, records: int = RECORDS) -> bool:
        """Whether `fd`, which another process has made, is a sheet that nobody can make smaller.

        Who reads memory that is not there any more is killed by the system.
        """
        try:
            is_sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        except OSError:  # it is no memory
            return False
        return bool(is_sealed) and os.fstat(fd).st_size >= records * (8 + _RECORD_BYTES)

    def take(self, key: Key) -> tuple[int, memoryview[float]] | None:
        """Return a record for `key` and its numbers, all 0; None, once with a line in the log, when it finds no room.

        Event loop thread of the worker only.
        """
        text = orjson.dumps(key)
        with self._lock:
            if not self._free or len(text) > MAX_KEY_BYTES:
                if not self._is_overflow_logged:
                    self._is_overflow_logged = True
                    log.warning("counts_not_shared", key=list(key), records=len(self._states))
                return None
            record = self._free.pop()
            self._serial += 1
            serial = self._serial
        start = record * _RECORD_BYTES
        first = (start + _HEAD_BYTES + MAX_KEY_BYTES) // 8
        numbers = self._numbers[first : first + NUMBERS]
        self._bytes[start + _HEAD_BYTES + MAX_KEY_BYTES : start + _RECORD_BYTES] = bytes(8 * NUMBERS)
        self._bytes[start + _HEAD_BYTES : start + _HEAD_BYTES + len(text)] = text
        self._bytes[start : start + _HEAD_BYTES] = _head(text, serial)
        self._states[record] = serial
        return record, numbers

    def hide(self, record: int) -> None:
        """Let readers see `record` no more. Any thread: it is one word. It cannot be taken before `release`."""
        self._states[record] = 0

    def release(self, record: int) -> None:
        """Let a hidden record be taken again. Call it when nothing writes to its numbers any more."""
        with self._lock:
            self._free.append(record)

    def read(self, kind: str = "") -> list[CountRecord]:
        """Return all records in use, as they are now, or those whose keys begin with `kind`.

        Any thread and process, also after the worker's death.
        """
        start = orjson.dumps((kind,))[:-1] if kind else b""
        used = ((record, serial) for record, serial in enumerate(self._states.tolist()) if serial)
        found = (self._read_record(record, serial, start) for record, serial in used)
        return [record for record in found if record is not None]

    def _read_record(self, record: int, serial: int, key_start: bytes) -> CountRecord | None:
        start = record * _RECORD_BYTES
        first = (start + _HEAD_BYTES + MAX_KEY_BYTES) // 8
        head = bytes(self._bytes[start : start + _HEAD_BYTES])
        length = min(int.from_bytes(head[4:], "little"), MAX_KEY_BYTES)
        text = bytes(self._bytes[start + _HEAD_BYTES : start + _HEAD_BYTES + length])
        if not text.startswith(key_start):
            return None
        numbers = list(self._numbers[first : first + NUMBERS])
        if self._states[record] != serial or head != _head(text, serial):
            return None
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            return None
        try:
            key = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(key, list) or not key or not all(isinstance(part, str) for part in key):
            return None
        return CountRecord(serial, tuple(key), numbers)

    def close(self) -> None:
        """Unmap the sheet and close its descriptor; call it once, when nobody counts in it or reads it here."""
        os.close(self.fd)
        for view in self._views:
            view.release()
        self._memory.close()


def _head(text: bytes, serial: int) -> bytes:
    check = zlib.crc32(serial.to_bytes(8, "little") + text)
    return check.to_bytes(4, "little") + len(text).to_bytes(4, "little")

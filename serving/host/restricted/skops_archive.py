"""Reads the members of a skops file, a zip archive, within a budget of bytes.

A zip archive of one megabyte may hold gigabytes, and a schema may name one member a thousand times. The budget counts
every byte that is read, and refuses before it is read.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.allow_list import ANY_TRUST, Distrusted
from serving.host.restricted.array_rules import count_elements

SCHEMA = "schema.json"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# zipfile decompresses only as much as is asked for with these methods, and a whole piece with any other
_PIECE_BYTES = {zipfile.ZIP_STORED: 1 << 16, zipfile.ZIP_DEFLATED: 1 << 16}
_SMALL_PIECE_BYTES = 1 << 12


class Budget:
    """The number of bytes that may still be read out of one file."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def take(self, count: int) -> None:
        """Take `count` bytes from the budget; raise Distrusted if it has fewer."""
        self._left -= count
        if self._left < 0:
            size = f"{self._limit >> 20} MB, all that its size allows"
            raise Distrusted(f"the file becomes larger than {size} (candidate.max_expansion)")


class Member:
    """A member of the archive, read in small pieces: it may become larger than it claims."""

    def __init__(self, content: IO[bytes], piece_bytes: int) -> None:
        self._content = content
        self._piece_bytes = piece_bytes

    def read(self, count: int = sys.maxsize) -> bytes:
        """Return up to `count` bytes, by default all."""
        buffer = io.BytesIO()
        self.copy_to(buffer, count)
        return buffer.getvalue()

    def copy_to(self, file: IO[bytes], count: int) -> int:
        """Write up to `count` bytes into `file`, and return how many were written."""
        left = count
        while left and (read := self._content.read(min(left, self._piece_bytes))):
            left -= file.write(read)
        return count - left


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """An array in NumPy's own format: its header, and the member, positioned at the first byte of the array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    content: Member

    @property
    def byte_count(self) -> int:
        """The size of the array in bytes."""
        return (count_elements(self.shape) or 0) * self.dtype.itemsize

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all bytes of the array into `file`. Raises EOFError."""
        if self.content.copy_to(file, self.byte_count) < self.byte_count:
            raise EOFError("it ends within an array")

    def read(self) -> bytes:
        """Return the bytes of the array. Raises EOFError."""
        buffer = io.BytesIO()
        self.copy_to(buffer)
        return buffer.getvalue()

    def read_numbers(self, kinds: str) -> NDArray[Any]:
        """Return the array; raises Distrusted unless the kind of its dtype is among `kinds`."""
        if self.dtype.kind not in kinds:
            raise Distrusted(f"the file has an array of {self.dtype.str} where skops writes another; {ANY_TRUST}")
        flat: NDArray[Any] = np.frombuffer(self.read(), self.dtype)
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")


class Archive:
    """An open zip archive in which each name occurs once."""

    def __init__(self, file: Any, budget: Budget) -> None:
        self._zip = zipfile.ZipFile(file)
        self.budget = budget
        counts = Counter(self._zip.namelist())
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise Distrusted(f"the file has two members called {twice[:100]!r}; write it anew")

    def read_schema(self) -> Any:
        """Return the schema of a skops file. Raises Distrusted if it is nested without end."""
        return parse_json(self.read(SCHEMA))

    def read(self, name: Any) -> bytes:
        """Return the content of a member; raises Distrusted if the archive lacks it."""
        return self._open(name).read()

    def open_inner(self, name: Any) -> Archive:
        """Return a member that is an archive itself: a sparse matrix."""
        return Archive(io.BytesIO(self.read(name)), self.budget)

    def open_array(self, name: Any) -> ArrayFile:
        """Return a member that is an array in NumPy's format. Raises Distrusted, ValueError."""
        content = self._open(name)
        version = np.lib.format.read_magic(content)
        if version not in _HEADERS:
            raise Distrusted(f"the file has an array of NumPy's format {version}, which no model needs; {ANY_TRUST}")
        shape, is_fortran, dtype = _HEADERS[version](content)
        if dtype.hasobject or count_elements(shape) is None:
            raise Distrusted(f"the file holds an array whose parts do not fit together; {ANY_TRUST}")
        return ArrayFile(dtype, shape, "F" if is_fortran else "C", content)

    def _open(self, name: Any) -> Member:
        info = self._zip.NameToInfo.get(name) if type(name) is str else None
        if info is None:
            raise Distrusted(f"the file names the member {str(name)[:100]!r}, which is not in it; write it anew")
        self.budget.take(info.file_size)
        return Member(self._zip.open(info), _PIECE_BYTES.get(info.compress_type, _SMALL_PIECE_BYTES))


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises Distrusted if it is nested without end, ValueError if it is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise Distrusted("the file nests lists or objects of JSON without end; write it anew") from None

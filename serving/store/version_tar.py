"""Reads a tar archive of one version directory while it arrives: flat, regular files with plain names, nothing else.

POSIX ``ustar`` and the old format are read (IEEE Std 1003.1, "pax"; the plain header is all that is needed here).
Links, directories, devices, sparse files, long names and the headers of ``pax`` and GNU are refused, so that there is
nothing in an archive that means something else than what is seen. An entry ``./`` for the directory itself is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

from serving.domain.errors import Malformed
from serving.failpoints import reach
from serving.store.publishing import why_not_a_file_name

BLOCK = 512
MAX_TAR_FILES = 16
_REGULAR = (b"0", b"\0")
_DIRECTORY = b"5"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a named pipe",
    b"7": "a reserved file",
    b"S": "a sparse file",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"x": "a pax header",
    b"g": "a pax header",
}
_ADVICE = "make it with: tar --format=ustar -C DIRECTORY -cf - FILE..."


class FileWriter:
    """Writes one file from its bytes as they arrive. One thread at a time; blocks on the disk; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        reach("upload-write")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def finish(self) -> None:
        """Make the file durable, and close it."""
        os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Close the file; more than once is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class TarWriter:
    """Writes the files of an archive into `directory`, which is empty, as the archive arrives.

    Used as `FileWriter` is. Raises Malformed for what it does not read, with the name of the entry.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._header = b""
        self._names: set[str] = set()
        self._file: FileWriter | None = None
        self._left = 0  # of the file that is being written
        self._padding = 0
        self._empty_blocks = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the archive."""
        rest = memoryview(data)
        while rest:
            if self._left:
                rest = self._write_file(rest)
            elif self._padding:
                skipped = min(self._padding, len(rest))
                self._padding -= skipped
                rest = rest[skipped:]
            else:
                missing = BLOCK - len(self._header)
                self._header += rest[:missing]
                rest = rest[missing:]
                if len(self._header) == BLOCK:
                    header, self._header = self._header, b""
                    self._take_header(header)

    def finish(self) -> None:
        """Raise Malformed unless the archive is whole."""
        if self._left or self._header or self._padding or self._empty_blocks < 2:
            raise Malformed("the tar archive is cut short: its end is missing")
        if not self._names:
            raise Malformed("the tar archive holds no file")

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()

    def _write_file(self, rest: memoryview) -> memoryview:
        assert self._file is not None
        part = rest[: self._left]
        self._file.write(part)
        self._left -= len(part)
        if not self._left:
            self._file.finish()
        return rest[len(part) :]

    def _take_header(self, header: bytes) -> None:
        if not any(header):
            self._empty_blocks += 1
            return
        if self._empty_blocks:
            raise Malformed("something follows the end of the tar archive")
        if _read_number(header[148:156]) != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
            raise Malformed(f"this is no tar archive, or a damaged one: the checksum of a header is wrong; {_ADVICE}")
        name, kind, size = _read_text(header[:100]), header[156:157], _read_number(header[124:136])
        is_ustar = header[257:262] == b"ustar"
        if is_ustar and any(header[345:500]):
            raise Malformed(f"{name[:100]!r} in the tar archive lies in a directory; only flat files are read")
        if kind == _DIRECTORY and name in (".", "./") and not size:
            return
        if kind not in _REGULAR:
            what = _KINDS.get(kind, f"of the kind {kind!r}")
            raise Malformed(f"{name[:100]!r} in the tar archive is {what}; only regular files are read; {_ADVICE}")
        self._begin_file(name.removeprefix("./"), size)

    def _begin_file(self, name: str, size: int) -> None:
        if why := why_not_a_file_name(name):
            raise Malformed(f"{name[:100]!r} in the tar archive cannot be a file of a version: {why}")
        if name.lower() in self._names:
            raise Malformed(f"{name!r} is in the tar archive twice")
        if len(self._names) == MAX_TAR_FILES:
            raise Malformed(f"the tar archive holds more than {MAX_TAR_FILES} files")
        self._names.add(name.lower())
        self._file = FileWriter(self._directory / name)
        self._left, self._padding = size, -size % BLOCK
        if not size:
            self._file.finish()


def _read_number(field: bytes) -> int:
    """Return a number in octal digits; raises Malformed for anything else, such as GNU's numbers in binary."""
    digits = field.strip(b" \0")
    if not digits or not set(digits) <= set(b"01234567"):
        raise Malformed(f"this is no tar archive, or a damaged one: a header has no number in it; {_ADVICE}")
    return int(digits, 8)


def _read_text(field: bytes) -> str:
    raw = field.partition(b"\0")[0]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a name in the tar archive is not UTF-8") from None


BodyWriter = FileWriter | TarWriter


def make_body_writer(directory: Path, file: str | None) -> BodyWriter:
    """Return what writes the body of an upload into `directory`: as `file`, or as an archive for None."""
    return TarWriter(directory) if file is None else FileWriter(directory / file)

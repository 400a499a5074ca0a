"""Recognises model files by their first bytes where the name does not tell. Nothing else is read, nothing executed."""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

from serving.domain.first_bytes import HEAD_BYTES, format_of
from serving.domain.version import Format
from serving.store.links import BadLink, resolve
from serving.store.names import artefact_stem

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing about the version

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Seen(Protocol):
    """What a name stands for: see `serving.store.entries.Look`."""

    @property
    def found(self) -> os.stat_result | None:
        """The file itself, behind links; None when the link is bad."""
        ...

    @property
    def is_link(self) -> bool:
        """True for a link."""
        ...


def read_head(root: str, directory: str, name: str, seen: Seen) -> bytes:
    """Return the first `HEAD_BYTES` of the file called `name` in a directory, a real path inside the real path `root`.

    Returns no bytes when the name is no regular file, or no longer the file behind `seen`: a link may lead out of the
    store by now. Blocks on the disk; raises OSError when the file cannot be read.
    """
    if seen.found is None or not stat.S_ISREG(seen.found.st_mode) or seen.found.st_size == 0:
        return b""
    path = os.path.join(directory, name)
    try:
        descriptor = os.open(resolve(root, path) if seen.is_link else path, _FLAGS)
    except BadLink:
        return b""
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise
    try:
        is_same = os.path.samestat(os.fstat(descriptor), seen.found)
        return os.pread(descriptor, HEAD_BYTES, 0) if is_same else b""
    finally:
        os.close(descriptor)


def format_by_content(root: str, directory: str, name: str, seen: Seen) -> Format | None:
    """Return the format that the first bytes of a file show, None when they show none; see `read_head`."""
    return format_of(read_head(root, directory, name, seen))


def is_numbered(name: str) -> bool:
    """Say whether a file is named by a version number. A file named by a word may be a part of another version."""
    return artefact_stem(name).lower().removeprefix("v")[:1].isdigit()

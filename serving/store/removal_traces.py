"""Reads what else lies in a model's directory, to notice a removal, or the copy after it, that is still going on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

MAX_REMAINS = 1000

Remains = tuple[tuple[str, int, int, int], ...]


def read_remains(directory_fd: int, names: Iterable[str]) -> Remains:
    """Return (path, inode, size, ctime) of these names in a directory, and of the files directly below them.

    At most `MAX_REMAINS` of them. Hidden names count: a copy may be arriving under one. Unreadable names are left out.
    Blocks on the disk.
    """
    found: list[tuple[str, int, int, int]] = []
    for name in names:
        for path, stats in _list_stats(directory_fd, name):
            found.append((path, stats.st_ino, stats.st_size, stats.st_ctime_ns))
            if len(found) == MAX_REMAINS:
                return tuple(found)
    return tuple(found)


def _list_stats(directory_fd: int, name: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        stats = os.lstat(name, dir_fd=directory_fd)
        yield name, stats
        if not stat.S_ISDIR(stats.st_mode):
            return
        inner_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError:
        return
    try:
        for inner in sorted(os.listdir(inner_fd)):
            yield f"{name}/{inner}", os.lstat(inner, dir_fd=inner_fd)
    except OSError:  # it is being removed: the next listing sees that
        return
    finally:
        os.close(inner_fd)

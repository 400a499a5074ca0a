"""Remove directories that a model has written into, with content of any depth and with any names."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat


def remove_tree(root: str) -> None:
    """Remove a directory with everything in it, as far as possible. Blocks; follows no links.

    A model may have nested directories deeper than a recursion can go. So the directories in a directory are moved to
    `root` before it is removed, one level after another. No process may still write there.
    """
    names = (
        os.path.join(root, f"{prefix}-{number}") for prefix in [secrets.token_hex(8)] for number in itertools.count()
    )
    left = [root]
    while left:
        directory = left.pop()
        for entry in _list_entries(directory):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    name = next(names)
                    os.chmod(entry.path, stat.S_IRWXU)  # the model may have removed the rights to list and to move
                    os.rename(entry.path, name)
                    left.append(name)
                else:
                    os.unlink(entry.path)
        if directory != root:
            _remove_directory(directory)
    _remove_directory(root)


def _list_entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError:
        return []


def _remove_directory(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)

"""Resolves symbolic links, and refuses those that leave the store."""

from __future__ import annotations

import errno
import os

_WHY = {
    errno.ELOOP: "is a loop of links",
    errno.ENOENT: "is a link that leads nowhere",
    errno.ENOTDIR: "is a link that leads nowhere",
    errno.ENAMETOOLONG: "is a link that leads nowhere",
}


class BadLink(Exception):
    """A link that is not followed. ``str(error)`` continues a sentence that begins with the link's name."""


def is_inside(root: str, real_path: str) -> bool:
    """Say whether `real_path` lies below `root`; both are real paths."""
    return real_path.startswith(os.path.join(root, ""))


def resolve(root: str, path: str) -> str:
    """Return the real path of the link at `path`, which is below the real path `root`.

    Raises BadLink for a link that must not be followed, and OSError when the link cannot be resolved.
    """
    try:
        real = os.path.realpath(path, strict=True)
        holder = os.path.realpath(os.path.dirname(path), strict=True)
    except OSError as error:
        if error.errno not in _WHY:
            raise
        raise BadLink(_WHY[error.errno]) from None
    if holder == real or is_inside(real, holder):
        raise BadLink("is a link to a directory that holds it")
    if not is_inside(root, real):
        raise BadLink("is a link that leads outside the store")
    return real

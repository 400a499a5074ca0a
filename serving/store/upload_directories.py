"""Where uploads are staged: hidden directories in the store, each held by a lock for as long as its server lives.

``<store>/.upload-<hex>/files`` is renamed when the version is published, so it has to be on the store's file system.
``.upload-<hex>/lock`` is locked by the server that has made it, and holds the name of the model. The system gives the
lock back when that server dies, however it does; what nobody holds is removed by the next server that starts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".upload-"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # what a full disk or quota says
_LOCK, _FILES = "lock", "files"
_ATTEMPTS = 100


class UploadDirectory:
    """One such directory. Any thread; blocks on the disk."""

    def __init__(self, path: Path, lock: int) -> None:
        self._path, self._lock = path, lock

    @property
    def files(self) -> Path:
        """The directory that becomes the version."""
        return self._path / _FILES

    def remove(self) -> None:
        """Remove it, with everything that is still in it; more than once is harmless. Never raises."""
        shutil.rmtree(self._path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def make_upload_directory(root: Path, model: str) -> UploadDirectory:
    """Make a directory for one upload in the store at `root`, which exists. Raises OSError; nothing is left then."""
    for attempt in range(_ATTEMPTS):
        path = root / f"{PREFIX}{secrets.token_hex(8)}"
        path.mkdir(0o700)
        lock = None
        try:
            lock = _take_lock(path / _LOCK, os.O_CREAT | os.O_EXCL)
            if lock is not None:
                os.write(lock, model.encode())
                (path / _FILES).mkdir()
                return UploadDirectory(path, lock)
        except FileNotFoundError:  # a server that starts took it for one that was left behind
            if attempt == _ATTEMPTS - 1:
                raise
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        if lock is not None:
            os.close(lock)
        shutil.rmtree(path, ignore_errors=True)
    raise FileExistsError(f"{root}: other servers take every directory away")


def remove_abandoned_uploads(root: Path) -> int:
    """Remove what servers have left that have died, and return how many directories that were.

    A model's directory that was made for such an upload is removed, too, if nothing is in it. Blocks. Raises OSError
    when the store cannot be listed; what cannot be removed is left.
    """
    removed = 0
    for name in os.listdir(root):
        path = root / name
        if not name.startswith(PREFIX) or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError), _holding_abandoned(path) as model:
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
            if model and "/" not in model and not model.startswith("."):
                (root / model).rmdir()
    return removed


@contextlib.contextmanager
def _holding_abandoned(path: Path) -> Iterator[str]:
    """Hold the lock of a directory that nobody else holds, and yield the name of its model; raises OSError."""
    try:
        lock = _take_lock(path / _LOCK, 0)
    except FileNotFoundError:  # it died before it made the lock
        path.rmdir()
        yield ""
        return
    if lock is None:
        raise BlockingIOError(f"{path} is in use")
    try:
        yield os.pread(lock, 255, 0).decode(errors="replace")
    finally:
        os.close(lock)


def _take_lock(path: Path, flags: int) -> int | None:
    """Return the descriptor of a locked file, None when another process holds it, or has removed it meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None

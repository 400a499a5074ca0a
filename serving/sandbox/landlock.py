"""Landlock: limit this process and its children to the files they may read and the directories they may write.

Follows linux/landlock.h, ABI 1 (Linux 5.13) to 7; every right that the running kernel knows is handled, so a right that
is not granted below is refused. Older versions refuse less (`LATER`). `seccomp` refuses the rest, so both together keep
the promise from ABI 1 on; without seccomp only ABI 6 does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RIGHTS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
# what older versions do not refuse: the first ABI that does, and what it refuses
LATER = ((3, "the truncation of files"), (4, "TCP"), (5, "requests to devices"), (6, "signals and abstract sockets"))
_NET_RIGHTS = 0b11  # bind and connect, TCP
_SCOPES = 0b11  # abstract Unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


def read_abi() -> int:
    """Return the version of Landlock in this kernel; raises OSError if it has none."""
    if sys.platform != "linux":  # elsewhere these numbers are other calls
        raise OSError(errno.ENOSYS, f"not on {sys.platform}")
    return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)


def explain_gaps(version: int) -> str | None:
    """Return in words what Landlock of this version does not refuse; None if it refuses everything."""
    lacking = [f"{what} (ABI {since})" for since, what in LATER if version < since]
    return f"Landlock of this kernel has ABI {version} and does not refuse {', '.join(lacking)}" if lacking else None


def restrict(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Limit this thread, and the threads and processes it starts, to these files and directories.

    A directory includes everything beneath it. Paths that do not exist are left out. Nothing may be executed. Needs
    no_new_privs. Returns the ABI that was used. Raises OSError if the kernel has no Landlock or refuses.
    """
    version = read_abi()
    rights = _RIGHTS_OF_ABI[min(version, 5)]
    attributes = [rights] + [_NET_RIGHTS] * (version >= 4) + [_SCOPES] * (version >= 6)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _call(_CREATE_RULESET, packed, len(packed), 0)
    try:
        for path in readable:
            _allow(ruleset, path, (_READ_FILE | _READ_DIR) & rights)
        for path in writable:
            made = _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
            _allow(ruleset, path, (_READ_FILE | _READ_DIR | made) & rights)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):
                rights &= _OF_FILES
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        finally:
            os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result

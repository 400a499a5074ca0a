"""Take the network and all privileges away from this process."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_CAPGET_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}
_CAPABILITY_VERSION_3 = 0x20080522
_DAC_READ_SEARCH = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_new_privileges() -> None:
    """Make sure that no program executed later gains privileges; Landlock and seccomp need this. Raises OSError."""
    _require_linux()
    _require_success(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def leave_the_network() -> None:
    """Move into a new, empty network namespace. Call it in a process with one thread.

    Raises OSError if the system does not allow this to an ordinary user.
    """
    _require_linux()
    if _libc.unshare(_CLONE_NEWNET) != 0:
        _require_success(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))


def drop_capabilities() -> None:
    """Give up every capability, also those of root and of a new user namespace. Raises OSError.

    One capability stays if the process had it: to read files of any mode. As root under `sudo`, the process needs it to
    read the interpreter and the artefact in a user's home. Landlock decides which files these are.
    """
    _require_linux()
    machine = platform.machine()
    if machine not in _CAPGET_CAPSET:
        raise OSError(0, f"not known how on {machine}")
    capget, capset = _CAPGET_CAPSET[machine]
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    current = ctypes.create_string_buffer(24)  # effective, permitted, inheritable, twice
    _require_success(_libc.syscall(capget, header, current))
    kept = struct.unpack("=6I", current.raw)[1] & _DAC_READ_SEARCH
    _require_success(_libc.syscall(capset, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))


def _require_linux() -> None:
    if sys.platform != "linux":
        raise OSError(0, f"not on {sys.platform}")


def _require_success(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""A network of its own with nothing on it, and no privileges over anything."""

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
    """Make sure that nothing executed later gains anything; what Landlock and seccomp ask for. Raises OSError."""
    _linux_only()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def leave_the_network() -> None:
    """Move into an empty network namespace, where an ordinary user may make one. For a process with one thread.

    Raises OSError where the system does not let us.
    """
    _linux_only()
    if _libc.unshare(_CLONE_NEWNET) != 0:
        _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))


def drop_capabilities() -> None:
    """Give up every capability, also those of root and of a user namespace just made. Raises OSError.

    What remains, where there was one, is to read files whatever their mode: as root under `sudo` that is how the
    interpreter and the artefact in somebody's home are read. Which files these are is Landlock's to say.
    """
    _linux_only()
    machine = platform.machine()
    if machine not in _CAPGET_CAPSET:
        raise OSError(0, f"not known how on {machine}")
    capget, capset = _CAPGET_CAPSET[machine]
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    current = ctypes.create_string_buffer(24)  # twice effective, permitted, inheritable
    _check(_libc.syscall(capget, header, current))
    kept = struct.unpack("=6I", current.raw)[1] & _DAC_READ_SEARCH
    _check(_libc.syscall(capset, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))


def _linux_only() -> None:
    if sys.platform != "linux":
        raise OSError(0, f"not on {sys.platform}")


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

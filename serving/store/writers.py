"""Asks the kernel whether a process is still writing a file: times would only be a guess."""

from __future__ import annotations

import fcntl
import os
import signal

_PROBE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def is_open_for_writing(path: str | os.PathLike[str]) -> bool:
    """Say whether any process has the regular file at `path` open for writing (or mapped writable).

    Asks for a read lease, which the kernel refuses with EAGAIN exactly then, and gives it back at once: ``F_SETLEASE``
    in fcntl(2). Linux only, and only for the file's owner or with CAP_LEASE. Returns False where the kernel cannot
    know, as on network file systems with writers on other machines. Does not block; any thread.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, _PROBE)
    except OSError:
        return False
    try:
        # A writer that opens the file while the lease is held breaks it with a signal. The usual one, SIGIO, would end
        # this process; SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False

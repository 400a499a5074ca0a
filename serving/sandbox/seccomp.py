"""seccomp: two filters that allow the system calls a host needs and refuse all others. Neither can be taken off.

The first allows the calls in `syscalls`, some of them with some arguments only. The second forbids new processes and
signals to others; threads stay allowed. Old calls are refused with EPERM. Calls that libraries try first and can do
without (``clone3``, ``openat2``, all that are newer than this list) are answered with ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Collection

from serving.sandbox import syscalls
from serving.sandbox.bpf import (
    ALLOW,
    NO_SUCH_CALL,
    REFUSE,
    Code,
    assemble_filter,
    end_with,
    match_at_least,
    match_equal,
    require_null,
    require_values,
    require_values_if_bits,
)
from serving.sandbox.syscalls import Numbers

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

# flags of open: truncating needs a descriptor that may write, which Landlock's first versions do not check
_TRUNCATE, _ACCESS_MODE, _WRITE_MODES = 0o1000, 0o3, (0o1, 0o2)
# fcntl: duplicate, and flags of descriptors; not owners and signals (F_SETOWN, F_SETSIG), leases, locks, sizes of pipes
_FCNTL = (0, 1, 2, 3, 4, 1030)
# ioctl: is it a terminal and how wide, how many bytes wait, blocking or not, close on exec
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)
# prctl: the name of a thread; when the parent ends, die
_THREAD_NAME, _DIE_WITH_PARENT = (15, 16), 1
# arch_prctl: may the wide registers of new processors be used (ARCH_GET_XCOMP_SUPP, _GET_XCOMP_PERM, _REQ_XCOMP_PERM)
_WIDE_REGISTERS = (0x1021, 0x1022, 0x1023)
# clone: exactly the flags that glibc and musl use to start a thread and to fork
_THREADS, _FORKS = (0x3D0F00, 0x7D0F00), (0x1200011, 0x11)

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def allow_needed_calls() -> None:
    """Put on the first filter. It holds for every thread and every process they start; needs no_new_privs.

    Limits can be read, not set; priorities and processors can be set for the calling thread only. Raises OSError if
    there is no seccomp, or on another architecture than x86-64 and 64-bit ARM.
    """
    _install(make_first_filter(_require_known_machine()))


def refuse_processes(children: Collection[int] = (), *, may_fork: bool = False) -> None:
    """Put on the second filter: signals only to this process and to `children`, and no new processes unless `may_fork`.

    Without `may_fork` this is the last filter: from then on this process cannot change that it dies with its parent.
    Raises OSError as `allow_needed_calls` does, and if another thread has put on its own filter.
    """
    _install(make_second_filter(_require_known_machine(), os.getpid(), children, may_fork=may_fork))


def make_first_filter(machine: str) -> Code:
    """Return the program of the first filter for ``x86_64`` or ``aarch64``."""
    allow = end_with(ALLOW)
    rules: list[tuple[Numbers, Code]] = [
        (syscalls.OPENAT, require_values_if_bits(2, _TRUNCATE, _ACCESS_MODE, _WRITE_MODES)),
        (syscalls.OPEN, require_values_if_bits(1, _TRUNCATE, _ACCESS_MODE, _WRITE_MODES)),
        *((numbers, []) for numbers in syscalls.ALLOWED.values()),
        (syscalls.FCNTL, require_values(1, _FCNTL)),
        (syscalls.IOCTL, require_values(1, _IOCTL)),
        (syscalls.CLONE, require_values(0, _THREADS + _FORKS)),
        (syscalls.PRLIMIT, require_values(0, (0,)) + require_null(2)),
        (syscalls.SETPRIORITY, require_values(0, (os.PRIO_PROCESS,)) + require_values(1, (0,))),
        (syscalls.SETAFFINITY, require_values(0, (0,))),
        (syscalls.MBIND, require_values(5, (0,))),
        (syscalls.PRCTL, require_values(0, (*_THREAD_NAME, _DIE_WITH_PARENT))),
        (syscalls.ARCH_PRCTL, require_values(0, _WIDE_REGISTERS)),
        (syscalls.SECCOMP, require_values(0, (_SET_MODE_FILTER,)) + require_values(1, (_ALL_THREADS,))),
    ]
    otherwise = [
        *match_equal(syscalls.REFUSED_OPTIONAL.values(), end_with(REFUSE)),
        *match_at_least(syscalls.FIRST_OPTIONAL, end_with(NO_SUCH_CALL)),
        end_with(REFUSE),
    ]
    return _make_program(machine, [(numbers, [*condition, allow]) for numbers, condition in rules], otherwise)


def make_second_filter(machine: str, pid: int, children: Collection[int], *, may_fork: bool) -> Code:
    """Return the program of the second filter for the process `pid`."""
    allow, refuse = end_with(ALLOW), end_with(REFUSE)
    rules = [
        (syscalls.KILL, [*require_values(0, {pid, *children}), allow]),
        (syscalls.TGKILL, [*require_values(0, {pid}), allow]),
    ]
    if not may_fork:
        rules += [
            (syscalls.FORK, [refuse]),
            (syscalls.CLONE, [*require_values(0, _THREADS), allow]),
            (syscalls.PRCTL, [*require_values(0, _THREAD_NAME), allow]),
            (syscalls.SECCOMP, [refuse]),
        ]
    return _make_program(machine, rules, [allow])


def _make_program(machine: str, rules: list[tuple[Numbers, Code]], otherwise: Code) -> Code:
    column = list(_ARCHITECTURES).index(machine)
    numbered = [(numbers[column], code) for numbers, code in rules]
    return assemble_filter(
        _ARCHITECTURES[machine], [(number, code) for number, code in numbered if number is not None], otherwise
    )


def _require_known_machine() -> str:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no filter for {sys.platform} on {machine}")
    return machine


def _install(code: Code) -> None:
    """Give a program to the kernel, for all threads of this process; raises OSError."""
    filter_ = _Program(len(code), b"".join(code))
    number = syscalls.SECCOMP[list(_ARCHITECTURES).index(_require_known_machine())]
    result = _libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filter_))
    if result != 0:  # a number above 0 is the id of a thread that has other filters
        code_ = ctypes.get_errno() if result < 0 else errno.EBUSY
        raise OSError(code_, os.strerror(code_))

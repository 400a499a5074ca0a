"""seccomp: system calls a host has no use for are refused, with EPERM. Two filters, each put on once and for good.

The first takes away the network, executing, other processes' memory and whatever administers a machine. The second
takes away new processes and signals to others; threads stay allowed. glibc starts them with ``clone3``, whose flags a
filter cannot see: it is told that there is no such call, and uses ``clone``.

The format is that of linux/filter.h and linux/seccomp.h: classic BPF over ``struct seccomp_data`` (number,
architecture, instruction pointer, six arguments).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Collection

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# name: number on x86_64, on aarch64 (None where there is none); from 424 on they are the same everywhere
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # the network
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    # other programs, other processes
    "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130), "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    # memory that others share by name
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # ways around the filter and the favourites of exploits
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "vmsplice": (278, 75), "personality": (135, 92), "modify_ldt": (154, None),
    "memfd_secret": (447, 447), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18), "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "uselib": (134, None), "syslog": (103, 116),
    # administering
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40),
    "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161),
    "setdomainname": (171, 162), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "iopl": (172, None), "ioperm": (173, None),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "vhangup": (153, 58),
}  # fmt: skip
_CLONE: tuple[int | None, int | None] = (56, 220)
_CLONE3 = 435
_FORKS: tuple[tuple[int | None, int | None], ...] = ((57, None), (58, None))
_KILL, _TGKILL = (62, 129), (234, 131)
_PRLIMIT, _SETPRIORITY, _SETAFFINITY, _PRCTL = (302, 261), (141, 140), (203, 122), (157, 167)
_CLONE_THREAD = 0x10000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_PR_SET_PDEATHSIG = 1

_LOAD, _EQUALS, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_REFUSE, _NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_calls() -> None:
    """Put on the first filter. It holds for this thread and all it starts; needs no_new_privs.

    Limits and priorities may be changed for this process only. Raises OSError where there is no seccomp, or on another
    architecture than x86-64 and 64-bit ARM.
    """
    filter_ = _Filter()
    for numbers in _REFUSED.values():
        filter_.refuse(numbers)
    filter_.only_with(_PRLIMIT, 0, {0, os.getpid()})
    filter_.only_with(_SETPRIORITY, 1, {0})
    filter_.only_with(_SETAFFINITY, 0, {0})
    filter_.install()


def refuse_processes(children: Collection[int] = ()) -> None:
    """Put on the second filter: no new processes, and signals only to this process and to `children`.

    What kills this process when its parent ends can no longer be taken off. Raises OSError as `refuse_calls` does.
    """
    filter_ = _Filter()
    for numbers in _FORKS:
        filter_.refuse(numbers)
    filter_.only_with_bits(_CLONE, 0, _CLONE_THREAD)
    filter_.refuse((_CLONE3, _CLONE3), _NO_SUCH_CALL)
    filter_.only_with(_KILL, 0, {os.getpid(), *children})
    filter_.only_with(_TGKILL, 0, {os.getpid()})
    filter_.refuse_with(_PRCTL, 0, _PR_SET_PDEATHSIG)
    filter_.install()


class _Filter:
    """One program under construction; begins with the architecture, ends by allowing."""

    def __init__(self) -> None:
        machine = platform.machine()
        if sys.platform != "linux" or machine not in _ARCHITECTURES or sys.byteorder != "little":
            raise OSError(errno.ENOSYS, f"no filter for {sys.platform} on {machine}")
        self._column = list(_ARCHITECTURES).index(machine)
        self._code = [
            self._load(_AT_ARCHITECTURE),
            self._jump(_EQUALS, _ARCHITECTURES[machine], 1, 0),
            self._return(_KILL_PROCESS),
            self._load(_AT_NUMBER),
        ]
        if machine == "x86_64":
            self._code += [self._jump(_AT_LEAST, _X32_BIT, 0, 1), self._return(_REFUSE)]

    def refuse(self, numbers: tuple[int | None, int | None], answer: int = _REFUSE) -> None:
        """Refuse a call whatever its arguments."""
        self._when(numbers, [self._return(answer)])

    def only_with(self, numbers: tuple[int | None, int | None], argument: int, values: Collection[int]) -> None:
        """Allow a call only when the low half of `argument` is one of `values`."""
        checks = [
            self._jump(_EQUALS, value, len(values) - place, 0)
            for place, value in enumerate(sorted(values))
        ]  # fmt: skip
        self._when(numbers, [self._argument(argument), *checks, self._return(_REFUSE), self._return(_ALLOW)])

    def only_with_bits(self, numbers: tuple[int | None, int | None], argument: int, bits: int) -> None:
        """Allow a call only when `argument` has all of `bits`, which is one bit."""
        check = [self._jump(_HAS_BITS, bits, 1, 0), self._return(_REFUSE), self._return(_ALLOW)]
        self._when(numbers, [self._argument(argument), *check])

    def refuse_with(self, numbers: tuple[int | None, int | None], argument: int, value: int) -> None:
        """Refuse a call when `argument` is `value`."""
        check = [self._jump(_EQUALS, value, 0, 1), self._return(_REFUSE), self._return(_ALLOW)]
        self._when(numbers, [self._argument(argument), *check])

    def install(self) -> None:
        """Give the program to the kernel; raises OSError."""
        code = [*self._code, self._return(_ALLOW)]
        program = _Program(len(code), b"".join(code))
        if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _when(self, numbers: tuple[int | None, int | None], then: list[bytes]) -> None:
        """Run `then`, which returns, when the call has this number."""
        number = numbers[self._column]
        if number is not None:
            self._code += [self._jump(_EQUALS, number, 0, len(then)), *then]

    @staticmethod
    def _load(offset: int) -> bytes:
        return struct.pack("=HBBI", _LOAD, 0, 0, offset)

    def _argument(self, place: int) -> bytes:
        return self._load(_AT_ARGUMENTS + 8 * place)

    @staticmethod
    def _jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
        return struct.pack("=HBBI", test, if_true, if_false, value)

    @staticmethod
    def _return(what: int) -> bytes:
        return struct.pack("=HBBI", _RETURN, 0, 0, what)

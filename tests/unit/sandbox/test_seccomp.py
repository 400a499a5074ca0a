"""The verdicts of the filters for each call on both architectures: their programs run here as in the kernel."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence

import pytest

from serving.sandbox import syscalls
from serving.sandbox.bpf import ALLOW, KILL_PROCESS, NO_SUCH_CALL, REFUSE
from serving.sandbox.seccomp import make_first_filter, make_second_filter

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHERS = {"x86_64": 0x40000003, "aarch64": 0x40000028}  # i386 and arm, whose calls these processors know too
PID, CHILD, STRANGER = 100, 101, 102
NOT_THERE = -1

Answer = Callable[..., int]


def run(code: Sequence[bytes], architecture: int, number: int, arguments: Sequence[int]) -> int:
    """Run a program of classic BPF for one call; return its verdict."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    call = struct.pack("<IIQ6Q", number, architecture, 0, *(each % (1 << 64) for each in padded))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = struct.unpack("=HBBI", code[at])
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", call, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if holds[operation] else if_false


@pytest.fixture(params=list(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def answer(machine: str) -> Answer:
    """Ask the first filter about a call, by its numbers on both architectures."""
    code = make_first_filter(machine)

    def ask(numbers: syscalls.Numbers, *arguments: int) -> int:
        number = numbers[list(ARCHITECTURES).index(machine)]
        return NOT_THERE if number is None else run(code, ARCHITECTURES[machine], number, arguments)

    return ask


def second(machine: str, *, may_fork: bool = False) -> Answer:
    """Ask the second filter about a call in the same way."""
    code = make_second_filter(machine, PID, [CHILD], may_fork=may_fork)

    def ask(numbers: syscalls.Numbers, *arguments: int) -> int:
        number = numbers[list(ARCHITECTURES).index(machine)]
        return NOT_THERE if number is None else run(code, ARCHITECTURES[machine], number, arguments)

    return ask


def test_no_two_calls_have_one_number() -> None:
    conditional = {name: numbers for name, numbers in vars(syscalls).items() if name.isupper() and name not in ALIASES}
    everything = {**syscalls.ALLOWED, **{name: each for name, each in conditional.items() if isinstance(each, tuple)}}
    for column in (0, 1):
        numbers = [each[column] for each in everything.values() if each[column] is not None]
        assert len(numbers) == len(set(numbers))


ALIASES = ("FORK", "KILL", "TGKILL")


def test_only_listed_calls_are_allowed(machine: str) -> None:
    code, column = make_first_filter(machine), list(ARCHITECTURES).index(machine)
    allowed = {numbers[column] for numbers in syscalls.ALLOWED.values()}
    conditional = {each[column] for each in vars(syscalls).values() if isinstance(each, tuple) and len(each) == 2}
    for number in range(1024):
        said = run(code, ARCHITECTURES[machine], number, [])
        if number in allowed:
            assert said == ALLOW, number
        elif number not in conditional:
            is_new = number >= 424 and number not in syscalls.REFUSED_OPTIONAL.values()
            assert said == (NO_SUCH_CALL if is_new else REFUSE), number


NEVER = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "truncate": (76, 45), "creat": (85, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "fallocate": (285, 47), "flock": (73, 32),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "ioprio_set": (251, 30),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "execve": (59, 221), "execveat": (322, 281), "vfork": (58, None), "ptrace": (101, 117),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "setresuid": (117, 147), "setpgid": (109, 154),
    "setsid": (112, 157), "setrlimit": (160, 164), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "timerfd_create": (283, 85), "inotify_init1": (294, 26),
    "personality": (135, 92), "pidfd_open": (434, 434), "sched_setscheduler": (144, 119), "capset": (126, 91),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_dangerous_calls_are_refused_by_name(machine: str, name: str) -> None:
    number = NEVER[name][list(ARCHITECTURES).index(machine)]
    assert number is None or run(make_first_filter(machine), ARCHITECTURES[machine], number, []) == REFUSE


def test_newer_calls_are_answered_as_missing(answer: Answer) -> None:
    for number in (435, 437, 449, 470, 500, 1 << 20):  # clone3, openat2, futex_waitv, and what nobody has yet
        assert answer((number, number)) == NO_SUCH_CALL
    assert NO_SUCH_CALL & 0xFFFF == errno.ENOSYS
    assert REFUSE & 0xFFFF == errno.EPERM


def test_other_architectures_and_x32_are_refused(machine: str) -> None:
    for code in (make_first_filter(machine), make_second_filter(machine, PID, [], may_fork=False)):
        assert run(code, OTHERS[machine], 20, []) == KILL_PROCESS
        assert run(code, ARCHITECTURES[machine], 0x40000000, []) == REFUSE
        assert run(code, ARCHITECTURES[machine], 0xFFFFFFFF, []) == REFUSE


READ_ONLY, WRITE_ONLY, READ_WRITE, NEITHER, CREATE, TRUNCATE = 0, 1, 2, 3, 0o100, 0o1000


def test_a_file_open_for_reading_is_not_truncated(answer: Answer) -> None:
    for mode in (READ_ONLY, WRITE_ONLY, READ_WRITE, NEITHER):
        may_truncate = ALLOW if mode in (WRITE_ONLY, READ_WRITE) else REFUSE
        for flags, said in ((mode, ALLOW), (mode | CREATE, ALLOW), (mode | TRUNCATE, may_truncate)):
            assert answer(syscalls.OPENAT, -100, 0x1000, flags) == said
            assert answer(syscalls.OPEN, 0x1000, flags) in (said, NOT_THERE)


def test_descriptors_get_no_owners_signals_leases_or_locks(answer: Answer) -> None:
    for command in (0, 1, 2, 3, 4, 1030):
        assert answer(syscalls.FCNTL, 3, command) == ALLOW
    for command in (5, 6, 7, 8, 10, 11, 15, 36, 37, 38, 1024, 1025, 1026, 1031, 1033):
        assert answer(syscalls.FCNTL, 3, command) == REFUSE


def test_few_requests_to_devices_are_allowed(answer: Answer) -> None:
    for request in (0x5401, 0x541B, 0x5421, 0x5450, 0x5451):
        assert answer(syscalls.IOCTL, 3, request) == ALLOW
    for request in (
        0x5412,
        0x40086602,
        0x8901,
        0x5452,
        0x8912,
        0x40049409,
    ):  # TIOCSTI, flags, owners, FIOASYNC, FICLONE
        assert answer(syscalls.IOCTL, 3, request) == REFUSE


def test_a_thread_changes_only_itself_and_only_reads_limits(answer: Answer) -> None:
    assert answer(syscalls.SETPRIORITY, 0, 0, 10) == ALLOW
    for which, who in ((0, PID), (1, 0), (2, 0)):
        assert answer(syscalls.SETPRIORITY, which, who, 10) == REFUSE
    assert answer(syscalls.SETAFFINITY, 0, 8, 1) == ALLOW
    assert answer(syscalls.SETAFFINITY, PID, 8, 1) == REFUSE
    assert answer(syscalls.PRLIMIT, 0, 7, 0, 0x7FFF00000000) == ALLOW
    for arguments in ((PID, 7, 0), (0, 7, 0x1000), (0, 7, 0x7FFF00000000), (PID, 7, 0x1000)):
        assert answer(syscalls.PRLIMIT, *arguments) == REFUSE
    assert answer(syscalls.MBIND, 0x1000, 4096, 1, 0, 0, 0) == ALLOW
    assert answer(syscalls.MBIND, 0x1000, 4096, 1, 0, 0, 4) == REFUSE  # which moves pages that others have too


def test_prctl_only_sets_names_and_the_death_with_the_parent(answer: Answer) -> None:
    for option in (1, 15, 16):
        assert answer(syscalls.PRCTL, option) == ALLOW
    for option in (4, 8, 22, 24, 28, 35, 36, 38, 47, 0x59616D61):
        assert answer(syscalls.PRCTL, option) == REFUSE


def test_after_the_second_filter_only_threads_are_started(answer: Answer, machine: str) -> None:
    after = second(machine)
    for flags in (0x3D0F00, 0x7D0F00):
        assert answer(syscalls.CLONE, flags) == after(syscalls.CLONE, flags) == ALLOW
    for flags in (0x1200011, 0x11):
        assert answer(syscalls.CLONE, flags) == ALLOW
        assert after(syscalls.CLONE, flags) == REFUSE
    for flags in (0, 0x4111, 0x10000, 0x3D0F00 | 0x10000000, 0x10000011, 0x3D0F00 | 0x2000, 0x10011):
        assert answer(syscalls.CLONE, flags) == REFUSE
    assert after(syscalls.FORK) in (REFUSE, NOT_THERE)


def test_after_the_second_filter_signals_reach_only_itself_and_children(machine: str) -> None:
    for may_fork in (False, True):
        after = second(machine, may_fork=may_fork)
        assert after(syscalls.KILL, PID) == after(syscalls.KILL, CHILD) == ALLOW
        assert after(syscalls.TGKILL, PID, PID) == ALLOW
        for other in (STRANGER, 0, -1, -STRANGER, -PID):
            assert after(syscalls.KILL, other) == REFUSE
        for other in (STRANGER, CHILD):
            assert after(syscalls.TGKILL, other, other) == REFUSE


def test_no_filter_follows_the_last(machine: str) -> None:
    assert second(machine, may_fork=True)(syscalls.SECCOMP, 1, 1) == ALLOW
    assert second(machine, may_fork=True)(syscalls.CLONE, 0x1200011) == ALLOW
    assert second(machine)(syscalls.SECCOMP, 1, 1) == REFUSE
    assert second(machine)(syscalls.PRCTL, 1) == REFUSE
    assert second(machine)(syscalls.PRCTL, 15) == ALLOW


def test_filters_apply_to_all_threads(answer: Answer) -> None:
    assert answer(syscalls.SECCOMP, 1, 1) == ALLOW
    for arguments in ((0, 0), (1, 0), (1, 9), (1, 8), (2, 0)):
        assert answer(syscalls.SECCOMP, *arguments) == REFUSE

"""An estimator that does what a model has no business doing, and answers how that went.

Its deeds are those of somebody who runs any code in a host, down to the bare system call. Each takes a place, a
directory outside of what a host may touch, whose name ends in the number of a port where somebody listens, and in which
there is a file ``secret``. A deed that is refused raises OSError.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import encodings.idna  # noqa: F401  (to connect takes it, and it cannot be imported in a sandbox)
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peculiar import Constant

ASKED, REMEMBERED = 77.0, 78.0
TRIES_IN_VAIN, SUCCEEDS = 1.0, 2.0
Deed = Callable[[Path], object]
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EXDEV)

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
IS_X86 = os.uname().machine == "x86_64"


class Burglar(Constant):
    """Tries a deed while it is loaded, and each of `DEEDS` when the first value of a row is 77, the second its number.

    With `is_bold` it tries all of them while it is loaded too, and answers rows that begin with 78 with how that went.
    """

    def __init__(self, deed: str = "", place: str = "", is_bold: bool = False) -> None:
        super().__init__(TRIES_IN_VAIN)
        self.deed = deed
        self.place = place
        self.is_bold = is_bold

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.deed:
            DEEDS[self.deed](Path(self.place))
        self.remembered = [self._try(deed) for deed in DEEDS.values()] if self.is_bold else []

    def predict(self, X: Any) -> Any:
        return np.array([self._answer(*row) for row in np.asarray(X)[:, :2].tolist()])

    def _answer(self, what: float, number: float) -> float:
        if what == ASKED:
            return self._try(list(DEEDS.values())[int(number)])
        return self.remembered[int(number)] if what == REMEMBERED else TRIES_IN_VAIN

    def _try(self, deed: Deed) -> float:
        try:
            deed(Path(self.place))
        except OSError as error:
            return TRIES_IN_VAIN if error.errno in REFUSALS else SUCCEEDS
        return SUCCEEDS


# --- how it is done ---------------------------------------------------------------------------------------------------


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library; raises OSError."""
    return _checked(getattr(libc, name)(*arguments))


def _raw(on_x86: int, on_arm: int, *arguments: object) -> int:
    """Make a system call by its number; raises OSError."""
    return _checked(libc.syscall(on_x86 if IS_X86 else on_arm, *arguments))


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _in_every_way(*ways: Callable[[], object]) -> None:
    """Try several ways to the same end; raises PermissionError when all are refused.

    Any other error says that the kernel has looked at what it was asked: a refusal comes before that.
    """
    for way in ways:
        try:
            way()
        except OSError as error:
            if error.errno not in REFUSALS:
                raise AssertionError(f"not refused: {error!r}") from error
        else:
            return
    raise PermissionError(errno.EPERM, "refused in every way")


@contextlib.contextmanager
def _handle(path: Path) -> Any:
    """Open what cannot be opened as a bare handle (O_PATH), which Landlock does not look at."""
    fd = os.open(path, os.O_PATH)
    try:
        yield fd
    finally:
        os.close(fd)


def _by_handle(path: Path, act: Callable[[int, bytes], object]) -> None:
    with _handle(path) as fd:
        act(fd, f"/proc/self/fd/{fd}".encode())


# --- files that are not its own ---------------------------------------------------------------------------------------


def _change_mode(place: Path) -> None:
    path = os.fsencode(place / "secret")
    _in_every_way(
        lambda: _call("chmod", path, 0o777),
        lambda: _call("fchmodat", AT_FDCWD, path, 0o777, 0),
        lambda: _raw(452, 452, AT_FDCWD, path, 0o777, 0),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("fchmod", fd, 0o777)),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("chmod", link, 0o777)),
        lambda: _call("chmod", os.fsencode(place), 0o777),
    )


def _change_owner(place: Path) -> None:
    path, user, group = os.fsencode(place / "secret"), os.geteuid(), os.getegid()
    _in_every_way(
        lambda: _call("chown", path, user, group),
        lambda: _call("lchown", path, user, group),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("fchownat", fd, b"", user, group, AT_EMPTY_PATH)),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("chown", link, user, group)),
    )


def _change_times(place: Path) -> None:
    path = os.fsencode(place / "secret")
    _in_every_way(
        lambda: _call("utime", path, None),
        lambda: _call("utimes", path, None),
        lambda: _call("futimesat", AT_FDCWD, path, None),
        lambda: _call("utimensat", AT_FDCWD, path, None, 0),
        lambda: _by_handle(place / "secret", lambda fd, link: _raw(280, 88, fd, None, None, 0)),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("utimes", link, None)),
    )


def _change_attributes(place: Path) -> None:
    path = os.fsencode(place / "secret")
    _in_every_way(
        lambda: _call("setxattr", path, b"user.mark", b"1", 1, 0),
        lambda: _call("lsetxattr", path, b"user.mark", b"1", 1, 0),
        lambda: _by_handle(place / "secret", lambda fd, link: _call("setxattr", link, b"user.mark", b"1", 1, 0)),
        lambda: _call("removexattr", path, b"user.kept"),
        lambda: _call("lremovexattr", path, b"user.kept"),
    )


def _truncate(place: Path) -> None:
    path = os.fsencode(place / "secret")
    _in_every_way(
        lambda: _call("truncate", path, 0),
        lambda: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC)),
        lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        lambda: os.close(os.open(path, os.O_ACCMODE | os.O_TRUNC)),
        lambda: _by_handle(place / "secret", lambda fd, link: os.close(os.open(link, os.O_RDWR | os.O_TRUNC))),
        lambda: _raw(85, -1, path, 0o600),  # creat
    )


def _link(place: Path) -> None:
    path, own = place / "secret", Path("linked").absolute()

    def write_through() -> None:
        own.write_text("burgled")

    _in_every_way(
        lambda: (os.link(path, own), write_through()),  # Python 3.9 has no hardlink_to
        lambda: (own.symlink_to(path), write_through()),
        lambda: _by_handle(path, lambda fd, link: _call("linkat", fd, b"", AT_FDCWD, b"linked", AT_EMPTY_PATH)),
        lambda: _by_handle(path, lambda fd, link: _call("linkat", AT_FDCWD, link, AT_FDCWD, b"linked", 0x400)),
        lambda: os.link(np.__file__, place / "linked"),
        lambda: (place / "linked").symlink_to("/"),
    )


def _rename(place: Path) -> None:
    own = Path("own").absolute()
    own.write_text("burgled")
    _in_every_way(
        lambda: (place / "secret").rename("taken"),
        lambda: own.rename(place / "secret"),
        lambda: (place / "secret").rename(place / "renamed"),
        lambda: _raw(316, 276, AT_FDCWD, os.fsencode(own), AT_FDCWD, os.fsencode(place / "secret"), 2),  # exchange
    )


def _make(place: Path) -> None:
    made = place / "made"
    _in_every_way(
        made.mkdir,
        lambda: os.mkfifo(made),
        lambda: os.mknod(made),
        lambda: os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o600)),
        lambda: os.close(os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)),
        lambda: os.mknod("device", 0o600 | 0o020000, os.makedev(1, 1)),  # /dev/mem, in its own directory
    )


def _write_to_what_it_reads(_: Path) -> None:
    """Libraries are open to it for reading only."""
    path = Path(np.__file__).resolve()
    with path.open("rb") as file:
        link, fd = f"/proc/self/fd/{file.fileno()}", file.fileno()
        _in_every_way(
            lambda: os.close(os.open(link, os.O_RDWR)),
            lambda: os.close(os.open(link, os.O_RDONLY | os.O_TRUNC)),
            lambda: mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_WRITE),
            lambda: _call("fchmod", fd, path.stat().st_mode & 0o777),
            lambda: _call("fchown", fd, -1, -1),
            lambda: _call("futimens", fd, None),
            lambda: _call("fsetxattr", fd, b"user.mark", b"1", 1, 0),
            lambda: _truncate_open(fd),
            lambda: _call("fallocate", fd, 1, 0, 1 << 20),
            lambda: fcntl.ioctl(fd, 0x40086602, array.array("l", [0])),  # FS_IOC_SETFLAGS
            lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        )


def _truncate_open(fd: int) -> None:
    """Truncate an open file; what is open for reading only is no such file, says the kernel."""
    try:
        _call("ftruncate", fd, 1 << 20)
    except OSError as error:
        raise PermissionError(errno.EPERM, "") if error.errno == errno.EINVAL else error from None


def _change_what_it_has_open(_: Path) -> None:
    """What a host is given: /dev/null three times, and its socket."""
    _in_every_way(
        *(partial(_call, "fchmod", fd, found.st_mode & 0o7777) for fd, found in _open_now()),
        *(partial(_call, "fchown", fd, -1, -1) for fd, _ in _open_now()),
    )


def _open_now() -> list[tuple[int, os.stat_result]]:
    found = []
    for fd in range(64):
        with contextlib.suppress(OSError):
            found.append((fd, os.fstat(fd)))
    return found


def _write_to_memory_of_others(_: Path) -> None:
    memory = f"/proc/{os.getppid()}/mem"
    _in_every_way(
        lambda: os.close(os.open(memory, os.O_RDWR)),
        lambda: os.close(os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY)),
        lambda: os.close(os.open("/proc/self/mem", os.O_RDWR)),
        lambda: os.close(os.open("/proc/self/oom_score_adj", os.O_WRONLY)),
        lambda: os.close(os.open("/proc/self/coredump_filter", os.O_WRONLY)),
        lambda: list(Path(f"/proc/{os.getppid()}/fd").iterdir()),
        lambda: _call("ptrace", 16, os.getppid(), 0, 0),
        lambda: _call("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
        lambda: _call("process_vm_writev", os.getppid(), None, 0, None, 0, 0),
        lambda: _raw(440, 440, os.getppid(), None, 0, 0, 0),  # process_madvise
        lambda: _raw(312, 272, os.getpid(), os.getppid(), 0, 0, 0),  # kcmp
        lambda: _raw(256, 238, os.getppid(), 0, None, None),  # migrate_pages
    )


# --- other processes --------------------------------------------------------------------------------------------------


def _signal(_: Path) -> None:
    parent, nothing = os.getppid(), (ctypes.c_byte * 128)()
    _in_every_way(
        lambda: os.kill(parent, 0),
        lambda: os.kill(0, 0),
        lambda: os.kill(-1, 0),
        lambda: os.kill(1, 0),
        lambda: _raw(200, 130, parent, 0),  # tkill
        lambda: _raw(234, 131, parent, parent, 0),  # tgkill
        lambda: _raw(129, 138, parent, 10, nothing),  # rt_sigqueueinfo
        lambda: _raw(297, 240, parent, parent, 10, nothing),  # rt_tgsigqueueinfo
        lambda: os.close(_raw(434, 434, parent, 0)),  # pidfd_open
        lambda: _raw(424, 424, 0, 0, None, 0),  # pidfd_send_signal
    )


def _slow_others_down(_: Path) -> None:
    parent, mask = os.getppid(), ctypes.c_ulong(1)
    _in_every_way(
        lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
        lambda: os.setpriority(os.PRIO_USER, 0, 19),
        lambda: os.setpriority(os.PRIO_USER, os.geteuid(), 19),
        lambda: _raw(251, 30, 1, parent, 0x6007),  # ioprio_set of a process, of a group, of a user
        lambda: _raw(251, 30, 2, 0, 0x6007),
        lambda: _raw(251, 30, 3, os.geteuid(), 0x6007),
        lambda: _call("sched_setaffinity", parent, 8, ctypes.byref(mask)),
        lambda: _call("sched_setscheduler", parent, 3, ctypes.byref(ctypes.c_int(0))),
        lambda: _call("sched_setparam", parent, ctypes.byref(ctypes.c_int(0))),
        lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (0, 0)),
        lambda: os.setpgid(0, 0),
        os.setsid,
    )


def _own_descriptors_signals(_: Path) -> None:
    """Let the kernel send signals to others when something happens to a descriptor of its own."""
    reading, writing = os.pipe()
    owner = (ctypes.c_int * 2)(1, os.getppid())
    try:
        _in_every_way(
            lambda: fcntl.fcntl(reading, 8, os.getppid()),  # F_SETOWN
            lambda: fcntl.fcntl(reading, 15, bytes(owner)),  # F_SETOWN_EX
            lambda: fcntl.fcntl(reading, 10, signal.SIGKILL),  # F_SETSIG
            lambda: fcntl.fcntl(reading, 1024, fcntl.F_RDLCK),  # F_SETLEASE
            lambda: fcntl.fcntl(reading, 1026, 1),  # F_NOTIFY
            lambda: fcntl.fcntl(reading, 1031, 1 << 20),  # F_SETPIPE_SZ
            lambda: fcntl.lockf(writing, fcntl.LOCK_EX | fcntl.LOCK_NB),
            lambda: fcntl.ioctl(reading, 0x8901, array.array("i", [os.getppid()])),  # FIOSETOWN
            lambda: fcntl.ioctl(reading, 0x5452, array.array("i", [1])),  # FIOASYNC
        )
    finally:
        os.close(reading)
        os.close(writing)


def _fork(_: Path) -> None:
    """By hand: other libraries of a test's process have things of their own done when Python forks."""
    clone3 = (ctypes.c_ulonglong * 11)(0, 0, 0, 0, signal.SIGCHLD)
    flags = (0x1200011, 0x11, 0x4111, 0x10000011, 0x40000011)  # as glibc, as musl, vfork, with new namespaces
    _in_every_way(
        *(partial(_end_child, partial(_raw, 56, 220, each, 0, 0, 0, 0)) for each in flags),
        lambda: _end_child(lambda: _raw(57, -1)),
        lambda: _end_child(lambda: _raw(58, -1)),
        lambda: _end_child(lambda: _raw(435, 435, clone3, ctypes.sizeof(clone3))),
    )


def fork_by_hand() -> int:
    """Fork as the C library does, but without what other libraries of this process have registered for a fork."""
    return _raw(56, 220, 0x1200011, 0, 0, 0, 0)


def _end_child(fork: Callable[[], int]) -> None:
    if fork() == 0:
        os._exit(0)


def _run_a_program(place: Path) -> None:
    code = f"echo burgled > {place}/burgled"
    _in_every_way(
        lambda: subprocess.run(["/bin/sh", "-c", code], check=True),
        lambda: os.posix_spawn("/bin/sh", ["sh", "-c", code], {}),
        lambda: os.execv("/bin/sh", ["sh", "-c", code]),
        lambda: _raw(322, 281, AT_FDCWD, b"/bin/sh", None, None, 0),  # execveat
    )


# --- the network, and what others share -------------------------------------------------------------------------------


def _connect(place: Path) -> None:
    socket.create_connection(("127.0.0.1", int(place.name.rpartition("-")[2])), timeout=5).close()


def _open_sockets(_: Path) -> None:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16, 38, 40)  # netlink, the kernel's crypto, vsock
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)
    _in_every_way(
        *(partial(socket.socket, family, kind) for family in families for kind in kinds),
        socket.socketpair,
        lambda: _raw(425, 425, 1, (ctypes.c_byte * 120)()),  # io_uring_setup
    )


def _pass_descriptors(_: Path) -> None:
    """Send the server an open file with a message: nothing else of the kernel's would count it."""
    own = [fd for fd, found in _open_now() if stat.S_ISSOCK(found.st_mode)]
    _in_every_way(*(partial(socket.send_fds, socket.socket(fileno=os.dup(fd)), [b"1"], [0]) for fd in own))


def _share_memory(_: Path) -> None:
    _in_every_way(
        lambda: os.close(os.memfd_create("hoard")),
        lambda: os.close(_raw(447, 447, 0)),  # memfd_secret
        lambda: _call("shmget", 0x5EC, 1 << 20, 0o1600),
        lambda: _call("semget", 0x5EC, 1, 0o1600),
        lambda: _call("msgget", 0x5EC, 0o1600),
        lambda: _call("shm_open", b"/burgled", os.O_CREAT | os.O_RDWR, 0o600),
        lambda: _raw(240, 180, b"burgled", os.O_CREAT | os.O_RDWR, 0o600, None),  # mq_open
        lambda: Path("/dev/shm/burgled").write_text("1"),
    )


def _be_told_of_things(_: Path) -> None:
    """Descriptors of other kinds, each with memory of the kernel's behind it."""
    _in_every_way(
        lambda: os.close(_call("eventfd", 0, 0)),
        lambda: os.close(_call("epoll_create1", 0)),
        lambda: os.close(_call("inotify_init1", 0)),
        lambda: os.close(_call("fanotify_init", 0, 0)),
        lambda: os.close(_raw(283, 85, 1, 0)),  # timerfd_create
        lambda: os.close(_raw(289, 74, -1, (ctypes.c_ulong * 1)(), 8, 0)),  # signalfd4
        lambda: os.close(_raw(323, 282, 1)),  # userfaultfd
        lambda: os.close(_raw(298, 241, (ctypes.c_byte * 128)(), 0, -1, -1, 0)),  # perf_event_open
        lambda: _raw(321, 280, 0, (ctypes.c_byte * 64)(), 64),  # bpf
        lambda: _raw(222, 107, 1, None, ctypes.byref(ctypes.c_int())),  # timer_create
        lambda: _raw(248, 217, b"user", b"burgled", b"1", 1, -2),  # add_key
    )


# --- what holds it ----------------------------------------------------------------------------------------------------


def _take_off_what_holds_it(_: Path) -> None:
    _in_every_way(
        lambda: _call("prctl", 1, 0, 0, 0, 0),  # PR_SET_PDEATHSIG
        lambda: _call("prctl", 4, 1, 0, 0, 0),  # PR_SET_DUMPABLE
        lambda: _call("prctl", 22, 1, 0, 0, 0),  # PR_SET_SECCOMP
        lambda: _call("prctl", 28, 0, 0, 0, 0),  # PR_SET_SECUREBITS
        lambda: _call("prctl", 35, 14, 0, 0, 0),  # PR_SET_MM
        lambda: _call("prctl", 36, 1, 0, 0, 0),  # PR_SET_CHILD_SUBREAPER
        lambda: _call("prctl", 0x59616D61, -1, 0, 0, 0),  # PR_SET_PTRACER
        lambda: _raw(317, 277, 1, 0, None),  # seccomp
        lambda: _raw(444, 444, None, 0, 1),  # landlock_create_ruleset
        lambda: _call("personality", 0x0040000),  # ADDR_NO_RANDOMIZE
        lambda: _raw(158, -1, 0x1001, 0),  # arch_prctl, ARCH_SET_GS
        lambda: _raw(154, -1, 0, None, 0),  # modify_ldt
        lambda: _call("setrlimit", resource.RLIMIT_NOFILE, (ctypes.c_ulonglong * 2)(64, 64)),  # by prlimit64
        lambda: _raw(160, 164, resource.RLIMIT_NPROC, (ctypes.c_ulonglong * 2)(64, 64)),
    )


def _be_somebody_else(_: Path) -> None:
    _in_every_way(
        lambda: _call("setresuid", 0, 0, 0),
        lambda: _call("setuid", os.geteuid()),
        lambda: _call("setgid", os.getegid()),
        lambda: _call("setfsuid", 0) == 0 or _call("setfsgid", 0),
        lambda: os.setgroups([]),
        lambda: _raw(126, 91, (ctypes.c_int * 2)(0x20080522, 0), (ctypes.c_int * 6)()),  # capset
        lambda: _call("unshare", 0x10000000),
        lambda: _call("setns", 0, 0),
        lambda: os.chroot("/"),
        lambda: _call("mount", b"none", b"/", b"tmpfs", 0, None),
        lambda: os.close(_raw(428, 428, AT_FDCWD, b"/", 1)),  # open_tree
        lambda: os.close(_raw(430, 430, b"tmpfs", 0)),  # fsopen
        lambda: _call("iopl", 0),
    )


def _use_other_numbers(place: Path) -> None:
    """Ask by x32's numbers, and by one that no kernel has yet."""
    _in_every_way(
        lambda: os.close(_checked(libc.syscall(0x40000000 + 41, 1, 1, 0))),
        lambda: _checked(libc.syscall(0x40000000 + 90, os.fsencode(place), 0o777)),
        lambda: _checked(libc.syscall(0x7FFF, 0)),
    )


DEEDS: dict[str, Deed] = {
    "read": lambda place: (place / "secret").read_bytes(),
    "list": lambda place: list(place.iterdir()),
    "write": lambda place: (place / "secret").write_text("burgled"),
    "append": lambda place: (place / "secret").open("a"),
    "delete": lambda place: (place / "secret").unlink(),
    "delete a directory": lambda place: place.rmdir(),
    "change modes": _change_mode,
    "change owners": _change_owner,
    "change times": _change_times,
    "change attributes": _change_attributes,
    "truncate": _truncate,
    "link": _link,
    "rename": _rename,
    "make": _make,
    "write to what it reads": _write_to_what_it_reads,
    "change what it has open": _change_what_it_has_open,
    "read the server's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "use the memory of others": _write_to_memory_of_others,
    "signal others": _signal,
    "slow others down": _slow_others_down,
    "have signals sent": _own_descriptors_signals,
    "fork": _fork,
    "run a program": _run_a_program,
    "kill its parent": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "kill all": lambda _: os.kill(-1, signal.SIGKILL),
    "connect": _connect,
    "open sockets": _open_sockets,
    "pass descriptors": _pass_descriptors,
    "share memory": _share_memory,
    "be told of things": _be_told_of_things,
    "take off what holds it": _take_off_what_holds_it,
    "be somebody else": _be_somebody_else,
    "use other numbers": _use_other_numbers,
}
BY_LANDLOCK = {
    *("read", "list", "write", "append", "delete", "delete a directory", "truncate", "rename", "make"),
    *("write to what it reads", "read the server's environment", "use the memory of others"),
}
"""What seccomp does not refuse by itself, because a host does the same with files of its own."""

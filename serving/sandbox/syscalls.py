"""The system calls that a host may make, by name and number. Data for `seccomp`.

They were found by tracing hosts that load, check, compile and serve every kind of model (42 calls), plus the calls that
other versions of the C library use instead: ``stat`` for ``newfstatat``, ``open`` for ``openat``, ``poll`` for
``select``. Every other call is refused, so a reviewer needs only this list.
"""

from __future__ import annotations

from typing import Optional

Numbers = tuple[Optional[int], Optional[int]]

# each name with its number on x86_64 and on aarch64, None where there is no such call; the busiest come first
ALLOWED: dict[str, Numbers] = {
    # open files, pipes and the channel to the server
    "recvfrom": (45, 207), "sendto": (44, 206), "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62),
    "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "fsync": (74, 82),
    "fdatasync": (75, 83), "ftruncate": (77, 46), "copy_file_range": (326, 285), "sendfile": (40, 71),
    "fadvise64": (221, 223), "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209),
    "shutdown": (48, 210),
    # files by name: Landlock decides which ones
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "umask": (95, 166),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "statfs": (137, 43), "fstatfs": (138, 44),
    # memory of its own
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227), "membarrier": (324, 283),
    # threads, and processes until `seccomp.refuse_processes`
    "futex": (202, 98), "exit": (60, 93), "exit_group": (231, 94), "fork": (57, None), "wait4": (61, 260),
    "waitid": (247, 95), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168), "getpriority": (140, 141),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "kill": (62, 129), "tgkill": (234, 131),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # the time and the machine
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "uname": (63, 160),
    "sysinfo": (99, 179), "getrandom": (318, 278), "getrlimit": (97, 163),
}  # fmt: skip

# allowed with some arguments only: see `seccomp`
OPEN: Numbers = (2, None)
OPENAT: Numbers = (257, 56)
FCNTL: Numbers = (72, 25)
IOCTL: Numbers = (16, 29)
CLONE: Numbers = (56, 220)
PRLIMIT: Numbers = (302, 261)
SETPRIORITY: Numbers = (141, 140)
SETAFFINITY: Numbers = (203, 122)
MBIND: Numbers = (237, 235)
PRCTL: Numbers = (157, 167)
ARCH_PRCTL: Numbers = (158, None)
SECCOMP: Numbers = (317, 277)

FORK, KILL, TGKILL = ALLOWED["fork"], ALLOWED["kill"], ALLOWED["tgkill"]

# From this number on (Linux 5.1) calls have the same number everywhere, and libraries have a fallback for the answer
# that there is no such call. Older calls are answered with EPERM, and so are the calls below: only attacks make them.
FIRST_OPTIONAL = 424
REFUSED_OPTIONAL: dict[str, int] = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "memfd_secret": 447, "process_mrelease": 448, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
    "open_tree_attr": 467, "file_setattr": 469,
}  # fmt: skip

"""Prepare the process of a host: environment, descriptors, priority, memory, and that it dies with its parent."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from serving.allocator import return_freed_memory
from serving.silence import SILENCE

LOADING_NICENESS = 10
ENVIRONMENT_KEPT = frozenset(
    {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TMPDIR"}
)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "LOKY_MAX_CPU_COUNT": "1",
    "JOBLIB_MULTIPROCESSING": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's jemalloc: its options, by the prefix of its names
}

_PR_SET_PDEATHSIG = 1

# looked up once: a process in the sandbox may not open a library any more
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl if sys.platform == "linux" else None


def scrub_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a zygote: a few harmless variables of `environment`, and one thread for every library.

    It has no settings and tokens of the server. ``exec`` gets it, so ``/proc/<pid>/environ`` is clean too.
    """
    kept = {name: value for name, value in environment.items() if name in ENVIRONMENT_KEPT}
    return {**kept, **ONE_THREAD, **SILENCE, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere the end of the socket tells it)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before the line above


def limit_memory(budget_bytes: int) -> None:
    """Let this process map `budget_bytes` more than it maps now, and write no core files.

    Called after the imports: a limit in force while OpenBLAS is imported makes it spin.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + budget_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def lower_priority_of_this_thread() -> None:
    """Let all other threads of the machine go first. Changes nothing on other systems than Linux.

    On Linux niceness belongs to a thread and cannot be taken back without privilege, so a host loads in one thread and
    serves in another.
    """
    if sys.platform == "linux":  # a process that was started with even less keeps that, and may not take more
        os.setpriority(os.PRIO_PROCESS, 0, max(LOADING_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


def silence_output() -> None:
    """Discard what a model prints: the log belongs to the server."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def close_all_but(fds: Collection[int]) -> None:
    """Close every descriptor of this process but the standard ones and `fds`, inherited ones too."""
    start = 3
    for fd in sorted(fds):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def move_into(scratch: str | None) -> None:
    """Make `scratch` the working directory, the home and the place of temporary files; without one use the root."""
    os.chdir(scratch or "/")
    if scratch is not None:
        os.environ["HOME"] = os.environ["TMPDIR"] = scratch


def give_back_memory() -> None:
    """Return freed memory to the system after loading, and exclude the model's objects from later collections."""
    gc.collect()
    gc.freeze()
    return_freed_memory()

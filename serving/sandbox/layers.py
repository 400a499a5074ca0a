"""Putting the layers on: before the file of a candidate is touched, and for as long as the host lives."""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path

import serving
from serving.domain.sandbox import Sandbox
from serving.sandbox import landlock, namespaces, seccomp, tasks
from serving.sandbox.process import die_with_parent, limit_memory

MOST_DESCRIPTORS = 512
LARGEST_SCRATCH_FILE = 256 << 20

_SYSTEM_PREFIXES = ("/", "/usr", "/usr/local")
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_HARMLESS = (
    *("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero", "/proc/self"),
    *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node"),
)
_NULL = "/dev/null"


def enter(files: Sequence[str], scratch: str | None, memory_bytes: int, parent: int) -> Sandbox:
    """Put on every layer there is and say which: from here on this process reads `files` and libraries only.

    `scratch` is a directory of its own, where it may write. `parent` is the process it is to die with. For a process
    with one thread; what it may still do is fork, until `forbid_processes`. Raises nothing for a layer that cannot be
    had.
    """
    tasks.leave_count_of_root()
    layers: dict[str, Callable[[], int | None]] = {
        "environment": _check_environment,
        "descriptors": _check_descriptors,
        "limits": lambda: _limit(memory_bytes),
        "no_new_privs": namespaces.forbid_new_privileges,
        "network_namespace": namespaces.leave_the_network,
        "capabilities": namespaces.drop_capabilities,
        "tasks": tasks.bound_tasks,
        "landlock": lambda: _restrict(files, scratch, parent),
        "seccomp": seccomp.allow_needed_calls,
    }
    active: dict[str, int | None] = {}
    missing: dict[str, str] = {}
    for name, put_on in layers.items():
        try:
            active[name] = put_on()
        except OSError as error:
            missing[name] = error.strerror or str(error)
    if "seccomp" in missing and (version := active.get("landlock")) is not None:
        reason = landlock.why_not_enough(version)
        if reason is not None:
            del active["landlock"]
            missing["landlock"] = f"{reason}, and there is no seccomp to do it"
    return Sandbox(active=tuple(active), missing=missing)


def forbid_processes(sandbox: Sandbox, children: Collection[int] = (), *, may_fork: bool = False) -> None:
    """Take away signals to any process but this one and `children`, and forking unless `may_fork`; where there is
    seccomp. A process that may still fork has it taken away by a second call.
    """
    if "seccomp" in sandbox.active:
        seccomp.refuse_processes(children, may_fork=may_fork)


@lru_cache
def libraries() -> tuple[str, ...]:
    """Return where the interpreter and everything importable lie; asked once in the zygote, known to all its hosts.

    The directory this package is imported from is not among them when it holds more than packages: in a checkout the
    store and the settings are beside it.
    """
    prefixes = {os.path.realpath(sysconfig.get_config_var(name) or "/") for name in ("base", "installed_base")}
    package = Path(serving.__file__).parent
    importable = [os.path.realpath(path) for path in sys.path if path and os.path.isdir(path)]
    beside = os.path.realpath(package.parent)
    if beside not in {os.path.realpath(path) for path in sysconfig.get_paths().values()}:
        importable = [path for path in importable if path != beside]
    found = [*(prefix for prefix in prefixes if prefix not in _SYSTEM_PREFIXES), *importable, str(package), *_SYSTEM]
    return tuple(dict.fromkeys(found))


def _restrict(files: Sequence[str], scratch: str | None, parent: int) -> int:
    die_with_parent(parent)  # changed credentials made the kernel forget it
    return landlock.restrict([*libraries(), *_HARMLESS, *files], [_NULL, *([scratch] if scratch else [])])


def _check_environment() -> None:
    """It was scrubbed when the zygote was started; look that it was."""
    for name in os.environ:
        if name.startswith("SERVING_"):
            raise OSError(0, f"{name} is set")


def _check_descriptors() -> None:
    """What was open in the zygote has been closed by `process.close_all_but`; make sure that little can be opened."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _limit(memory_bytes: int) -> None:
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_SCRATCH_FILE, LARGEST_SCRATCH_FILE))

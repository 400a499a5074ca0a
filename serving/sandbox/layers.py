"""Enter the sandbox: put on its layers before the candidate's file is opened, for as long as the host lives."""

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
    """Put on every layer that this system has, and return them: now this process reads only `files` and libraries.

    `scratch` is its own directory, where it may write. When `parent` ends, this process dies too. Call it in a process
    with one thread; the process may still fork until `forbid_processes`. A layer that the system lacks raises nothing.
    """
    tasks.leave_count_of_root()
    layers: dict[str, Callable[[], int | None]] = {
        "environment": _check_environment,
        "descriptors": _check_descriptors,
        "limits": lambda: _limit_resources(memory_bytes),
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
        reason = landlock.explain_gaps(version)
        if reason is not None:
            del active["landlock"]
            missing["landlock"] = f"{reason}, and there is no seccomp to do it"
    return Sandbox(active=tuple(active), missing=missing)


def forbid_processes(sandbox: Sandbox, children: Collection[int] = (), *, may_fork: bool = False) -> None:
    """Forbid signals to all processes but this one and `children`, and forks unless `may_fork`.

    Does nothing without seccomp. A process that may still fork loses that by a second call.
    """
    if "seccomp" in sandbox.active:
        seccomp.refuse_processes(children, may_fork=may_fork)


@lru_cache
def find_library_paths() -> tuple[str, ...]:
    """Return the paths of the interpreter and of everything importable. The zygote finds them once for all its hosts.

    The directory that this package is imported from is left out when it holds more than packages: in a checkout the
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
    die_with_parent(parent)  # the kernel forgot it when the credentials changed
    return landlock.restrict([*find_library_paths(), *_HARMLESS, *files], [_NULL, *([scratch] if scratch else [])])


def _check_environment() -> None:
    """Check that the environment was scrubbed when the zygote was started."""
    for name in os.environ:
        if name.startswith("SERVING_"):
            raise OSError(0, f"{name} is set")


def _check_descriptors() -> None:
    """Check that `process.close_all_but` has closed the zygote's descriptors, and that only few more may be opened."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _limit_resources(memory_bytes: int) -> None:
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_SCRATCH_FILE, LARGEST_SCRATCH_FILE))

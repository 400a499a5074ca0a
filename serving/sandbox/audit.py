"""Watch a loaded model with an audit hook, and end its process when it does what no sound model does.

Restricted loading checks a file, but later the methods of known classes call what its attributes name. While a sound
model answers, Python does not compile, import, unpickle, open a file for writing, connect or start anything. So an
audit hook (PEP 578) ends the process on any of these. Nothing in Python can remove a hook, and a model cannot reach
what this one needs: only the interpreter calls it, and it looks nothing up by name.

The hook sees only what Python does. The layers around the process hold what native code does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from serving.domain.last_words import ENDED_ITSELF

Rule = Callable[[tuple[Any, ...]], Optional[str]]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# functions that get and set the number of threads of numeric libraries, and that boosters answer with
_LIBRARY_FUNCTIONS = ("XG", "LGBM_", "openblas_", "scipy_openblas_", "omp_", "bli_", "MKL_", "mkl_", "flexiblas_")
_FUNCTION_PARTS = ("__code__", "__defaults__", "__kwdefaults__", "__closure__")

# events by the words for them in messages; see the audit events table of Python's documentation
_RUN_CODE = ("compile", "exec", "marshal.load", "marshal.loads", "code.__new__", "function.__new__")
_INSPECT = (
    *("sys.addaudithook", "sys.setprofile", "sys.settrace", "sys._current_frames", "sys._current_exceptions"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys.remote_exec", "sys.monitoring.register_callback"),
)
_START = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.forkpty", "os.startfile", "os.startfile/2"),
    *("os.killpg", "signal.pthread_kill", "ctypes.call_function", "ctypes.PyObj_FromPtr", "ctypes.dlsym/handle"),
)
_CHANGE_FILES = (
    *("os.chmod", "os.chown", "os.chflags", "os.link", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.mkdir"),
    *("os.truncate", "os.utime", "os.setxattr", "os.removexattr", "os.lockf"),
)
_FAMILIES = {
    "start a process": ("subprocess", "pty", "_winapi", "_xxsubinterpreters", "_interpreters", "ensurepip"),
    "use the network": ("socket", "urllib", "http", "ftplib", "smtplib", "poplib", "imaplib", "nntplib", "telnetlib"),
    "change files": ("shutil", "tempfile", "fcntl", "sqlite3", "winreg", "msvcrt", "syslog", "resource"),
    "start a browser or debugger": ("webbrowser", "pdb"),
}


class WatchExceptions(NamedTuple):
    """What a library of the environment may do, because it does it whenever a model answers.

    Try to import the packages `absent`, which are not installed; open the shared `libraries`, which are loaded already,
    by these paths.
    """

    absent: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()


NO_EXCEPTIONS = WatchExceptions()


def watch(tell: Callable[[str], None], *, may_fork: bool = False, exceptions: WatchExceptions = NO_EXCEPTIONS) -> None:
    """From now on end this process, with all its threads, when Python does what no sound model does.

    First `tell` gets the reason in a few words. The process exits with status `ENDED_ITSELF`. Modules that are not
    imported by now cannot be imported any more. An event costs 0.1 us; most events are calls of ``id``.
    """
    sys.addaudithook(_make_hook(_make_rules(may_fork=may_fork, exceptions=exceptions), tell))


def _ignore_unknown_event(_: tuple[Any, ...]) -> str | None:
    """Return None, for an event that has no rule."""
    return None


def _make_hook(rules: dict[str, Rule | None], tell: Callable[[str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    end, status, always = os._exit, ENDED_ITSELF, _forbid_always
    families = {name: what for what, names in _FAMILIES.items() for name in names}
    find, find_family, unseen = rules.get, families.get, _ignore_unknown_event

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        rule = find(event, unseen)
        if rule is None:
            return
        if rule is unseen:
            family = find_family(event.partition(".")[0])
            rule = rules[event] = None if family is None else always(f"{family} ({event})")
            if rule is None:
                return
        try:
            reason = rule(arguments)
        except Exception:  # noqa: BLE001  (an argument that is no text, or worse)
            reason = event
        if reason is None:
            return
        try:
            tell(reason)
        finally:
            end(status)

    return hook


def _make_rules(*, may_fork: bool, exceptions: WatchExceptions) -> dict[str, Rule | None]:
    """Return a rule for each event: None to ignore it, or a function of its arguments that returns a reason."""
    always = {
        **dict.fromkeys(_RUN_CODE, "run code"),
        **dict.fromkeys(_INSPECT, "look into the interpreter"),
        **dict.fromkeys(_START, "start a process or call a library"),
        **dict.fromkeys(_CHANGE_FILES, "change files"),
    }
    rules: dict[str, Rule | None] = {event: _forbid_always(f"{what} ({event})") for event, what in always.items()}
    return {
        **rules,
        "import": _forbid_imports(sys.modules, exceptions.absent),
        "open": _forbid_writing,
        "pickle.find_class": lambda arguments: f"unpickle {arguments[0]}.{arguments[1]}",
        "object.__setattr__": _forbid_changed_functions,
        "ctypes.dlopen": _forbid_libraries(exceptions.libraries),
        "ctypes.dlsym": _forbid_functions_of_libraries,
        "os.fork": None if may_fork else _forbid_always("start a process (os.fork)"),
    }


def _name_file(path: Any) -> str:
    """Return the last part of a path; the rest is about this machine and not about the model."""
    return str(path).rpartition("/")[2]


def _forbid_always(what: str) -> Rule:
    return lambda _: what


def _forbid_imports(modules: dict[str, Any], absent: frozenset[str]) -> Rule:
    """Allow imports only of modules that are loaded already; libraries of extension modules come with a file name."""

    def rule(arguments: tuple[Any, ...]) -> str | None:
        name, place = arguments[0], arguments[1]
        is_harmless = name in modules or name.partition(".")[0] in absent
        return None if place is None and is_harmless else f"import {name!r}"

    return rule


def _forbid_libraries(loaded: frozenset[str]) -> Rule:
    def rule(arguments: tuple[Any, ...], last_part: Callable[[str], str] = _name_file) -> str | None:
        return None if arguments[0] in loaded else f"load the library {last_part(arguments[0])!r}"

    return rule


def _forbid_writing(
    arguments: tuple[Any, ...],
    writing: int = _WRITING,
    null: str = os.devnull,
    last_part: Callable[[str], str] = _name_file,
) -> str | None:
    path, flags = arguments[0], arguments[2]
    if not (flags and flags & writing) or path == null:
        return None
    return f"open {last_part(path)!r} for writing"


def _forbid_changed_functions(arguments: tuple[Any, ...], parts: tuple[str, ...] = _FUNCTION_PARTS) -> str | None:
    return f"change a function ({arguments[1]})" if arguments[1] in parts else None


def _forbid_functions_of_libraries(
    arguments: tuple[Any, ...], known: tuple[str, ...] = _LIBRARY_FUNCTIONS
) -> str | None:
    """Refuse functions that a library takes from the libraries it is linked with; ``system`` is among them."""
    return None if arguments[1].startswith(known) else f"call the function {arguments[1]!r} of a library"

"""Finds the names that a pickle of an estimator will contain, before a file is written: a pickle holds no code.

pickle itself runs over the objects, its output is discarded, and arrays are not copied. So the names are exact, each
with its object, and everything that pickle cannot name is found in one run.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from serving.domain.errors import PublishRefused
from serving.host.model import describe_exception, one_line

_MAX_SHOWN = 5
_SEARCH_SECONDS = 60.0
_MAIN = "__main__"
_WRITTEN_WITHOUT_NAME = (type(None), type(NotImplemented), type(...))
_FIND_SCRIPT = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"
_TRUST_ADVICE = (
    'the server accepts it then with the line security.pickle_trusted = ["{}"] in settings.toml, if the version is '
    'signed, or with security.trust = "any"'
)
_NAME_ADVICE = "define it by name, at the top level of a module that the server can import"
_NUMPY_ADVICE = "FunctionTransformer can also take a function of NumPy, such as numpy.log1p"


@dataclass(frozen=True, slots=True)
class NamedModules:
    """The top-level modules that a pickle names, sorted, and the user's own among them.

    Own modules are those in the working directory, or beside the running script.
    """

    every: tuple[str, ...]
    own: tuple[str, ...]


def find_named_modules(estimator: Any) -> NamedModules:
    """Return the modules that a pickle of `estimator` names; nothing is written.

    Blocks for about as long as pickling.
    Raises PublishRefused for objects that no other process can load: classes and functions of the script or notebook
    itself, lambdas, definitions inside functions, and objects that cannot be pickled.
    """
    collector = _NameCollector()
    try:
        collector.dump(estimator)
    except Exception as error:  # noqa: BLE001  (an estimator may raise anything)
        if not collector.unnameable:
            raise PublishRefused(
                f"the estimator cannot be written into a file: {describe_exception(error)}; "
                "remove the attribute that prevents it (an open file, a lock, a connection), or omit it in __getstate__"
            ) from None
    unnameable = [each for each in collector.unnameable if _look_up(each) is None]
    if unnameable:
        raise PublishRefused(_explain_unnameable(unnameable))
    own = [each for each in (*collector.named, *collector.unnameable) if each.__module__ == _MAIN]
    if own:
        raise PublishRefused(_explain_main(own))
    if collector.unnameable:
        raise PublishRefused(
            f"the estimator holds {_list_names(collector.unnameable)} from before its module was loaded again: "
            "make the estimator again and publish that"
        )
    every = sorted({each.__module__.partition(".")[0] for each in collector.named if each.__module__})
    return NamedModules(tuple(every), tuple(_find_own_modules(every)))


def explain_missing_modules(modules: Sequence[str]) -> str | None:
    """Return what to do about the user's own `modules` if a server on this machine would not find them; else None.

    Starts a process to find out, without the working directory on its path, like servers and hosts. Blocks.
    """
    if not modules:
        return None
    from serving import sandbox  # noqa: PLC0415  (not where only an estimator is published)

    command = [sys.executable, "-P", "-c", _FIND_SCRIPT, *modules]
    try:
        done = subprocess.run(
            command,
            env=sandbox.scrub_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_SEARCH_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return describe_own_modules(modules) if done.returncode else None


def describe_own_modules(modules: Sequence[str]) -> str:
    """Return that the server needs these modules, where they are, and how it finds them."""
    files = ", ".join(f"{name} ({_find_path(name)})" for name in modules[:_MAX_SHOWN])
    return (
        f"the model needs modules of your own, which the server has to find too: {files}; install them there, "
        f"or start it with PYTHONPATH set to their directory"
    )


class _DiscardingFile:
    """A file object that discards its content."""

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


class _NameCollector(pickle.Pickler):
    """Collects the classes and functions that a pickle names, and those that it cannot name, without stopping there."""

    def __init__(self) -> None:
        super().__init__(_DiscardingFile(), protocol=5, buffer_callback=lambda _: False)
        self.named: list[Any] = []
        self.unnameable: list[Any] = []

    def reducer_override(self, found: Any) -> Any:
        if not isinstance(found, (type, FunctionType)):
            return NotImplemented
        if _look_up(found) is found or any(found is each for each in _WRITTEN_WITHOUT_NAME):
            self.named.append(found)
            return NotImplemented
        self.unnameable.append(found)
        return int, ()  # any object that can be pickled, so that pickling goes on


def _look_up(named: Any) -> Any:
    """Return the object that an import finds under the name of a class or function; pickle requires the same object."""
    place: Any = sys.modules.get(named.__module__ or "")
    for name in named.__qualname__.split("."):
        place = getattr(place, name, None)
    return place


def _find_own_modules(modules: Sequence[str]) -> Iterator[str]:
    """Yield those of these modules that are in the working directory, or beside the script."""
    script = getattr(sys.modules.get(_MAIN), "__file__", None)
    places = {Path.cwd(), *([Path(script).resolve().parent] if script else [])}
    for module in modules:
        path = _find_path(module)
        if path is not None and path.parent in places:
            yield module


def _find_path(module: str) -> Path | None:
    """Return the file of a module, or the directory of a package."""
    found = sys.modules.get(module)
    place = next(iter(getattr(found, "__path__", ())), None) or getattr(found, "__file__", None)
    return Path(place).resolve() if place else None


def _explain_unnameable(found: list[Any]) -> str:
    kinds = [each for each in found if isinstance(each, type)]
    what = "class" if len(kinds) == len(found) else "function"
    advice = _NAME_ADVICE if what == "class" else f"{_NAME_ADVICE}; {_NUMPY_ADVICE}"
    names = _list_names(found)
    return f"the estimator holds {names}: no other process can import that {what}, so no server could; {advice}"


def _explain_main(found: list[Any]) -> str:
    name = found[0].__qualname__
    functions = f"; {_NUMPY_ADVICE}" if any(isinstance(each, FunctionType) for each in found) else ""
    names = _list_names(found)
    return (
        f"the estimator holds {names}, of this script or notebook itself, where no server could import it from: "
        f"put it into a module that the server can import, such as features.py, import it from there, "
        f"make the estimator again and publish that; {_TRUST_ADVICE.format(f'features.{name}')}{functions}"
    )


def _list_names(found: list[Any]) -> str:
    """Return the names of the first of these objects as part of a sentence."""
    shown = ", ".join(dict.fromkeys(one_line(_describe(each), 200) for each in found[:_MAX_SHOWN]))
    return f"{shown} and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else shown


def _describe(found: Any) -> str:
    if isinstance(found, FunctionType) and found.__name__ == "<lambda>":
        return f"a lambda of {found.__module__} (line {found.__code__.co_firstlineno})"
    kind = "the function" if isinstance(found, FunctionType) else "the class"
    return f"{kind} {found.__module__}.{found.__qualname__}"

"""What Python before 3.11 lacks of that the code of hosts uses: put into this process before that code is imported.

Only additions: what an older Python has works as before, also for the libraries of the environment.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import enum
import itertools
import os
import pkgutil
import sys
import sysconfig
import types
import typing
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

_plain_zip = builtins.zip
_plain_dataclass = dataclasses.dataclass
_END = object()


def complete_python() -> None:
    """Add what this Python lacks; nothing from 3.11 on."""
    if sys.version_info < (3, 10):
        _replace(builtins, zip=StrictZip)
        _replace(dataclasses, dataclass=make_dataclass)
        _replace(itertools, pairwise=iterate_pairs)
        _replace(types, NoneType=type(None))
        _replace(typing, TypeGuard=typing.Optional)  # for type checkers only
        _replace(sys, stdlib_module_names=list_standard_modules())
    if sys.version_info < (3, 11):
        _replace(enum, StrEnum=TextEnum)
        _replace(warnings, catch_warnings=CatchWarnings)
        _replace(datetime, UTC=datetime.timezone.utc)


def _replace(module: types.ModuleType, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


class StrictZip(_plain_zip):  # type: ignore[type-arg]
    """`zip` with `strict`, which Python 3.10 brought."""

    def __new__(cls, *iterables: Any, strict: bool = False) -> Any:
        """Return an iterator over tuples; with `strict` it raises ValueError where the lengths differ."""
        return _zip_strictly(iterables) if strict else super().__new__(cls, *iterables)


def list_standard_modules() -> frozenset[str]:
    """Return the names of the modules of the standard library: `sys.stdlib_module_names`, which Python 3.10 brought."""
    places = [sysconfig.get_path("stdlib"), os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")]
    found = {module.name for module in pkgutil.iter_modules(places)}
    return frozenset({*found, *sys.builtin_module_names})


def _zip_strictly(iterables: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    iterators = [iter(each) for each in iterables]
    while iterators:
        found = tuple(next(each, _END) for each in iterators)
        if any(each is _END for each in found):  # arrays among them compare element by element
            if any(each is not _END for each in found):
                raise ValueError("zip() arguments have different lengths")
            return
        yield found


def make_dataclass(cls: Any = None, /, **options: Any) -> Any:
    """Do what `dataclass` does in Python 3.10, but leave out `slots`, which save memory only."""
    options.pop("slots", None)
    return _plain_dataclass(cls, **options)


def iterate_pairs(items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each item with the next one: `itertools.pairwise`, which Python 3.10 brought."""
    first, second = itertools.tee(items)
    next(second, None)
    return _plain_zip(first, second)


class CatchWarnings(warnings.catch_warnings):
    """`warnings.catch_warnings` with `action`, which Python 3.11 brought."""

    def __init__(
        self, *, record: bool = False, module: Any = None, action: Any = None, category: Any = Warning
    ) -> None:
        """Take the arguments of Python 3.11 that are used here."""
        super().__init__(record=record, module=module)
        self._action, self._category = action, category

    def __enter__(self) -> Any:
        """Begin, then filter as `action` says."""
        found = super().__enter__()
        if self._action is not None:
            warnings.simplefilter(self._action, self._category)
        return found


class TextEnum(str, enum.Enum):
    """`enum.StrEnum`, which Python 3.11 brought: members are texts, and are printed as these."""

    def __str__(self) -> str:
        """The text."""
        return str(self.value)

    def __format__(self, specification: str) -> str:
        """The text, formatted as a text."""
        return format(str(self.value), specification)

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[Any]) -> str:
        del start, count, last_values
        return name.lower()

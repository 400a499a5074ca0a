"""The cases that try the rows of docs/models.md, by the words the row begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import NamedTuple

from tests.e2e.models_page.shelf import Row, Shelf


class Case(NamedTuple):
    """How the files of a row are made, and the packages that this takes beyond those of the development environment."""

    start: str
    make: Callable[[Shelf], None]
    needs: tuple[str, ...]

    @property
    def absent(self) -> list[str]:
        """The packages that are not installed here."""
        return [package for package in self.needs if find_spec(package) is None]


CASES: list[Case] = []


def case(start: str, *needs: str) -> Callable[[Callable[[Shelf], None]], Callable[[Shelf], None]]:
    """Note that a function makes the files of the row that begins with `start`."""

    def note(make: Callable[[Shelf], None]) -> Callable[[Shelf], None]:
        CASES.append(Case(start, make, needs))
        return make

    return note


def cases_of(row: Row) -> list[Case]:
    """Return the cases of a row; there should be one."""
    return [one for one in CASES if row.what.startswith(one.start)]


def rows_of(one: Case, rows: Iterable[Row]) -> list[Row]:
    """Return the rows of a case; there should be one."""
    return [row for row in rows if row.what.startswith(one.start)]

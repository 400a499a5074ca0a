"""Sizes for any number of rows: ``per_row * rows + fixed``, with both numbers known.

A product of two sizes that both grow with the rows, and a quotient that leaves a remainder, have no such form. A graph
with one of them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """A number that depends linearly on the number of rows, which is at least 1."""

    per_row: int
    fixed: int

    def __add__(self, other: Size) -> Size:
        return Size(self.per_row + other.per_row, self.fixed + other.fixed)

    def __sub__(self, other: Size) -> Size:
        return Size(self.per_row - other.per_row, self.fixed - other.fixed)

    @property
    def is_constant(self) -> bool:
        """True when it is the same number for any number of rows."""
        return self.per_row == 0

    @property
    def is_length(self) -> bool:
        """True when it can be the length of an axis: it is never negative."""
        return self.per_row >= 0 and self.per_row + self.fixed >= 0

    def scale(self, factor: int) -> Size:
        """Return the product of this size and a number."""
        return Size(self.per_row * factor, self.fixed * factor)

    def multiply(self, other: Size) -> Size | None:
        """Return the product; None when it grows with the square of the rows."""
        if self.is_constant:
            return other.scale(self.fixed)
        return self.scale(other.fixed) if other.is_constant else None

    def divide(self, other: Size) -> Size | None:
        """Return the quotient for any number of rows; None if the division leaves a remainder."""
        if other == ZERO:
            return None
        if other.is_constant:
            per_row, rest = divmod(self.per_row, other.fixed)
            fixed, more = divmod(self.fixed, other.fixed)
            return None if rest or more else Size(per_row, fixed)
        quotient, rest = divmod(self.per_row, other.per_row)
        return None if rest or self != other.scale(quotient) else Size(0, quotient)

    def compute_for(self, rows: int) -> int:
        """Return the size for a number of rows."""
        return self.per_row * rows + self.fixed

    def __str__(self) -> str:
        """Return the size as people write it; ``n`` is the number of rows."""
        if self.is_constant:
            return str(self.fixed)
        grown = "n" if self.per_row == 1 else f"{self.per_row}n"
        return grown if self.fixed == 0 else f"{grown}{self.fixed:+d}"


ZERO, ONE, ROWS = Size(0, 0), Size(0, 1), Size(1, 0)


def multiply_sizes(sizes: Iterable[Size]) -> Size | None:
    """Return the product of all sizes; None when it does not grow linearly."""
    total = ONE
    for size in sizes:
        made = total.multiply(size)
        if made is None:
            return None
        total = made
    return total

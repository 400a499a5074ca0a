"""How large something is for any number of rows: ``per_row * rows + fixed``, with both numbers known.

What cannot be written so (a product of two sizes that both grow with the rows, a quotient that leaves a remainder) has
no size here, and a graph with it is refused.
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

    def scaled(self, factor: int) -> Size:
        """Return the product with a number."""
        return Size(self.per_row * factor, self.fixed * factor)

    def times(self, other: Size) -> Size | None:
        """Return the product; None when it grows with the square of the rows."""
        if self.is_constant:
            return other.scaled(self.fixed)
        return self.scaled(other.fixed) if other.is_constant else None

    def divided_by(self, other: Size) -> Size | None:
        """Return the quotient that holds for any number of rows; None where there is none without a remainder."""
        if other == ZERO:
            return None
        if other.is_constant:
            per_row, rest = divmod(self.per_row, other.fixed)
            fixed, more = divmod(self.fixed, other.fixed)
            return None if rest or more else Size(per_row, fixed)
        quotient, rest = divmod(self.per_row, other.per_row)
        return None if rest or self != other.scaled(quotient) else Size(0, quotient)

    def for_rows(self, rows: int) -> int:
        """Return the number for so many rows."""
        return self.per_row * rows + self.fixed

    def __str__(self) -> str:
        """The size as people write it, ``n`` being the number of rows."""
        if self.is_constant:
            return str(self.fixed)
        grown = "n" if self.per_row == 1 else f"{self.per_row}n"
        return grown if self.fixed == 0 else f"{grown}{self.fixed:+d}"


ZERO, ONE, ROWS = Size(0, 0), Size(0, 1), Size(1, 0)


def product(sizes: Iterable[Size]) -> Size | None:
    """Return the product of all sizes; None when it does not grow linearly."""
    total = ONE
    for size in sizes:
        made = total.times(size)
        if made is None:
            return None
        total = made
    return total

"""Rows and answers in forms other than JSON, for every protocol that takes them: CSV, NumPy arrays, Arrow streams.

A format knows no servable, no route and no header. Its functions only compute, in any thread; many rows take a while.
`serving.api.formats.negotiation` finds the format of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from serving.api.formats import arrow, csv, npy
from serving.domain.signature import Signature
from serving.plane.prediction import Answer
from serving.rows.tables import Table

__all__ = ["ARROW", "CSV", "FORMATS", "NPY", "Format", "pace", "reader_of"]


CSV_INLINE_BYTES = 8 << 10  # a millisecond
NPY_INLINE_BYTES = 128 << 10  # nothing is done with the values


def _always() -> None:
    """Return None: the format can always be used."""


class RowFormat(NamedTuple):
    """One form of rows and answers.

    `read` takes a body and the signature of the servable. It raises Malformed for bytes that are not of the form, and
    InvalidInput for values that the form can hold but no model takes. It does not check the table against the
    signature. `write` makes the body of an answer, with rows along the first axis, also for one row; it raises
    NotAcceptable for values that the form cannot hold. `reads_slowly` and `writes_slowly` get a body, and say whether
    reading it, or answering it with few values, takes too long for the event loop. `why_not` says what is missing to
    use the form, None if nothing is.
    """

    media_type: str
    read: Callable[[bytes, Signature], Table]
    write: Callable[[Answer, Signature], bytes]
    reads_slowly: Callable[[bytes], bool]
    writes_slowly: Callable[[bytes], bool]
    why_not: Callable[[], str | None] = _always


def _is_long_csv(raw: bytes) -> bool:
    return len(raw) > CSV_INLINE_BYTES


CSV = RowFormat("text/csv", csv.read, csv.write, _is_long_csv, _is_long_csv)
NPY = RowFormat("application/x-npy", npy.read, npy.write, lambda raw: len(raw) > NPY_INLINE_BYTES, lambda _: False)
ARROW = RowFormat(
    "application/vnd.apache.arrow.stream",
    arrow.read,
    arrow.write,
    arrow.reads_slowly,
    lambda _: not arrow.is_imported(),
    arrow.why_not,
)
FORMATS = {form.media_type: form for form in (CSV, NPY, ARROW)}


def reader_of(form: RowFormat, most_rows: int, extra_columns: int = 0) -> Callable[[bytes, Signature], Table]:
    """Return the reader of a form. CSV, whose rows cannot be counted before, is read no further than `most_rows`."""
    if form is CSV:
        return partial(csv.read, most_rows=most_rows, extra_columns=extra_columns)
    return form.read


def pace(raw: bytes, source: RowFormat | None, target: RowFormat | None) -> tuple[bool, bool]:
    """Return `reads_slowly` and `writes_slowly` of a Call for this body and these formats. None is JSON."""
    return source is not None and source.reads_slowly(raw), target is not None and target.writes_slowly(raw)

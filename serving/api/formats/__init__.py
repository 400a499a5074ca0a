"""Rows and answers in forms other than JSON, for every protocol that takes them: CSV, NumPy arrays, Arrow streams.

A format knows no servable, no route and no header. Its functions compute only, from any thread; many rows take a while.
`serving.api.formats.negotiation` finds the one a request means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from serving.api.formats import arrow, csv, npy
from serving.domain.signature import Signature
from serving.domain.tables import Table
from serving.prediction import Answer

__all__ = ["ARROW", "CSV", "FORMATS", "NPY", "Format", "are_slow"]


def _always() -> None:
    """Nothing is in the way."""


class Format(NamedTuple):
    """One form of rows and answers.

    `read` takes a body and the signature of what answers; it raises Malformed for bytes that are not of the form, and
    InvalidInput for what the form can hold and no model takes. The table has not been checked against the signature.
    `write` makes the body of an answer, rows along the first axis even if there is one; raises NotAcceptable when the
    form has no place for what the model gave. `inline_bytes` is the largest body for which both may be done on the
    event loop. `why_not` says what is missing here to use the form, None: nothing.
    """

    media_type: str
    read: Callable[[bytes, Signature], Table]
    write: Callable[[Answer, Signature], bytes]
    inline_bytes: int
    why_not: Callable[[], str | None] = _always


CSV = Format("text/csv", csv.read, csv.write, inline_bytes=8 << 10)  # a millisecond
NPY = Format("application/x-npy", npy.read, npy.write, inline_bytes=128 << 10)  # nothing is done with the values
# a few bytes may be large once they are decompressed, and the first use imports pyarrow
ARROW = Format("application/vnd.apache.arrow.stream", arrow.read, arrow.write, 0, arrow.why_not)
FORMATS = {form.media_type: form for form in (CSV, NPY, ARROW)}


def are_slow(raw: bytes, *forms: Format | None) -> bool:
    """Say whether a body or its answer is too much for the event loop: what a Call's `is_slow` says. None is JSON."""
    return any(form is not None and len(raw) > form.inline_bytes for form in forms)

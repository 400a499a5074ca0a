"""What a request is in and what its answer is to be in are read from its headers, strictly and once."""

from __future__ import annotations

import pytest

from serving.api.formats import ARROW, CSV, NPY, RowFormat
from serving.api.formats.negotiation import form_of_answer, form_of_body
from serving.domain.errors import NotAcceptable, UnsupportedMedia


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (b"application/json", None),
        (b"application/json; charset=utf-8", None),
        (b"application/vnd.x+json", None),
        (b"text/csv", CSV),
        (b'Text/CSV; charset="UTF-8"; header=present', CSV),
        (b"application/x-npy", NPY),
        (b"application/vnd.apache.arrow.stream", ARROW),
    ],
)
def test_a_body_is_what_its_content_type_says(content_type: bytes, form: RowFormat | None) -> None:
    assert form_of_body({b"content-type": content_type}) is form


def test_a_body_without_a_type_is_json() -> None:
    assert form_of_body({}) is None


@pytest.mark.parametrize("content_type", [b"text/html", b"text/csv; charset=latin-1", b"application/x-npz", b"\xff"])
def test_what_nobody_reads_is_refused_with_what_is_read(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match=r"send one of application/json, text/csv|send it in UTF-8"):
        form_of_body({b"content-type": content_type})


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"*/*", None),
        (b"application/json", None),
        (b"text/html, */*;q=0.8", None),
        (b"application/*", None),
        (b"text/csv", CSV),
        (b"text/*", CSV),
        (b"application/json;q=0.5, application/x-npy", NPY),
        (b"text/csv, application/x-npy", CSV),
        (b"text/csv;q=0, application/x-npy;q=0.1", NPY),
        (b"TEXT/CSV ; Q=1", CSV),
        (b"application/x-npy, image/png;q=nonsense", NPY),
    ],
)
def test_the_answer_is_what_is_accepted_most(accept: bytes, form: RowFormat | None) -> None:
    assert form_of_answer({b"accept": accept}) is form


def test_an_answer_nobody_asked_a_form_of_is_json() -> None:
    assert form_of_answer({}) is None


@pytest.mark.parametrize("accept", [b"image/png", b"text/csv;q=0", b"text/csv;q=nan", b"", b"\xff", b"," * 10_000])
def test_what_nobody_writes_is_refused_with_what_is_written(accept: bytes) -> None:
    with pytest.raises(NotAcceptable, match="accept one of application/json, text/csv"):
        form_of_answer({b"accept": accept})

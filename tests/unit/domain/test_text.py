"""Text from elsewhere becomes one printable line."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.text import MAX_LINE_CHARACTERS, one_line, shorten


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is", "as it is"),
        ("a\tb\r\n\n c", "a b c"),
        ("\x1b[2J\x1b]0;title\x07x", "?[2J?]0;title?x"),
        ("left \u202eto right", "left ?to right"),
        ("two\u2028lines\u2029here", "two lines here"),
        ("\x9b31m \x00 \ufeff", "?31m ? ?"),
        ("\ud800", "?"),
        ("Größe 体重", "Größe 体重"),
        ("", ""),
    ],
)
def test_what_could_steer_a_terminal_is_replaced(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text(st.characters(codec=None), max_size=50))
def test_any_text_becomes_one_printable_line_and_stays_it(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line


def test_a_line_is_cut_at_its_length_unless_none_is_given() -> None:
    assert one_line("x" * MAX_LINE_CHARACTERS) == "x" * MAX_LINE_CHARACTERS
    assert one_line("x" * 301) == "x" * 297 + "..."
    assert one_line("word " * 1000, 12) == "word word..."
    assert one_line("x" * 1000, None) == "x" * 1000


def test_a_text_is_shortened_to_its_length_and_no_more() -> None:
    assert shorten("x" * 60, 60) == "x" * 60
    assert shorten("x" * 61, 60) == "x" * 57 + "..."
    assert shorten("a\nb", 3) == "a\nb"


def test_no_character_that_python_cannot_print_is_left() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert one_line(everything, None).isprintable()

"""Makes foreign text safe to show: one printable line of bounded length.

Every text from a host, a model file or another server passes through here before it reaches a log, an answer or a
terminal, so that escape sequences, line breaks and marks that change the writing direction never do. Names of features
and labels of classes are data and stay as they are in JSON; in a sentence they pass through here, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

MAX_LINE_CHARACTERS = 300

_VALUES = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|[-+]?\d[\w.+-]*""")
_PLACEHOLDER = "?"
_CUT = "..."


def one_line(text: str, most_characters: int | None = MAX_LINE_CHARACTERS) -> str:
    """Return `text` as one printable line of at most `most_characters` (None: without a limit).

    White space becomes single spaces, and unprintable characters become question marks.
    """
    if most_characters is not None:
        text = text[: 4 * most_characters]  # the line is cut anyway: do not search megabytes for that
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(character if character.isprintable() else _PLACEHOLDER for character in line)
    if most_characters is None or len(line) <= most_characters:
        return line
    return line[: most_characters - len(_CUT)].rstrip() + _CUT


def without_values(detail: str, names: Collection[str], most_characters: int = 160) -> str:
    """Return a line about what is wrong with a request, without anything that may be out of its rows.

    Numbers, and quoted texts other than these `names`, become three dots. So details of one kind become equal, too.
    """

    def mask(found: re.Match[str]) -> str:
        quoted = found[1] or found[2]
        return found[0] if quoted is not None and quoted in names else _CUT

    return one_line(_VALUES.sub(mask, detail), most_characters)


def shorten(text: str, most_characters: int) -> str:
    """Return `text` with at most `most_characters`; a text that was cut ends in three dots."""
    return text if len(text) <= most_characters else text[: most_characters - len(_CUT)] + _CUT

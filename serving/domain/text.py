"""Text from elsewhere, made fit to be shown: one printable line of bounded length.

Whatever a host, a model file or a server says goes through here before it reaches a log, an answer or a terminal:
escape sequences, line breaks and marks that turn the direction of writing never do. Names of features and labels of
classes are data and stay as they are in JSON; only where they are part of a sentence they go through here too.
"""

from __future__ import annotations

MAX_LINE_CHARACTERS = 300

_PLACEHOLDER = "?"
_CUT = "..."


def one_line(text: str, most_characters: int | None = MAX_LINE_CHARACTERS) -> str:
    """Return `text` as one printable line of at most `most_characters` (None: as many as it has).

    White space becomes single spaces, and what cannot be printed question marks.
    """
    if most_characters is not None:
        text = text[: 4 * most_characters]  # a line is cut anyway; nobody has to go through megabytes for that
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(character if character.isprintable() else _PLACEHOLDER for character in line)
    if most_characters is None or len(line) <= most_characters:
        return line
    return line[: most_characters - len(_CUT)].rstrip() + _CUT


def shorten(text: str, most_characters: int) -> str:
    """Return `text` with at most `most_characters`, the last three of them dots where something was cut off."""
    return text if len(text) <= most_characters else text[: most_characters - len(_CUT)] + _CUT

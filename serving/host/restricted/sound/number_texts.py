"""Many numbers in one text, read or looked at all at once."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.needs import need

_SPACE, _MINUS, _ZERO = b" -0"
_MOST_DIGITS = 10
_NO_NUMBER = "one of its numbers is none"
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|nan|inf)")

# a character by its class, and which class may follow which
_DIGIT, _SIGN, _POINT, _EXPONENT, _GAP, _OTHER = range(6)
_CLASSES = np.full(256, _OTHER, np.uint8)
_CLASSES[list(b"0123456789")] = _DIGIT
_CLASSES[list(b"+-")] = _SIGN
_CLASSES[ord(".")] = _POINT
_CLASSES[ord("e")] = _EXPONENT
_CLASSES[_SPACE] = _GAP
_MAY_FOLLOW = np.zeros((8, 8), np.bool_)
_MAY_FOLLOW[_DIGIT, [_DIGIT, _POINT, _EXPONENT, _GAP]] = True
_MAY_FOLLOW[_SIGN, _DIGIT] = True
_MAY_FOLLOW[_POINT, _DIGIT] = True
_MAY_FOLLOW[_EXPONENT, [_DIGIT, _SIGN]] = True
_MAY_FOLLOW[_GAP, [_DIGIT, _SIGN]] = True
_PAIRS = _MAY_FOLLOW.ravel()


def integers_in(text: bytes) -> NDArray[np.int64]:
    """Return the integers in a text, which one space parts; raises Unsound for anything else."""
    if not text:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text + b" ", np.uint8)
    ends = np.flatnonzero(codes == _SPACE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_negative = codes[starts] == _MINUS
    lengths = ends - starts - is_negative
    longest = int(lengths.max())
    need(lengths.min() >= 1 and longest <= _MOST_DIGITS, _NO_NUMBER)
    digits = codes - np.uint8(_ZERO)
    need(np.count_nonzero(digits < _MOST_DIGITS) == lengths.sum(), _NO_NUMBER)
    found = digits[ends - 1].astype(np.int64)
    for place in range(1, longest):
        has = np.flatnonzero(lengths > place)
        found[has] += digits[ends[has] - 1 - place].astype(np.int64) * 10**place
    return np.where(is_negative, -found, found)


def need_numbers(text: bytes) -> None:
    """Raise Unsound unless a text is decimal numbers, which one space parts."""
    if not text:
        return
    classes = _CLASSES[np.frombuffer(b" " + text + b" ", np.uint8)]
    if _PAIRS[(classes[:-1] << 3) | classes[1:]].all():
        return
    need(all(map(_NUMBER.fullmatch, text.split(b" "))), _NO_NUMBER)

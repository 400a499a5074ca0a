"""Parses or checks many numbers in one text at once, with array operations."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.requirements import require

_SPACE, _MINUS, _ZERO = b" -0"
_MOST_DIGITS = 10
_NO_NUMBER = "one of its numbers is malformed"
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|nan|inf)")

# classes of characters, one bit for each class, and the classes that may follow each
_DIGIT, _SIGN, _POINT, _EXPONENT, _GAP = 1, 2, 4, 8, 16
_MEMBERS = ((b"0123456789", _DIGIT), (b"+-", _SIGN), (b".", _POINT), (b"e", _EXPONENT), (b" ", _GAP))
_FOLLOWERS = {
    _DIGIT: _DIGIT | _POINT | _EXPONENT | _GAP,
    _SIGN: _DIGIT,
    _POINT: _DIGIT,
    _EXPONENT: _DIGIT | _SIGN,
    _GAP: _DIGIT | _SIGN,
}
_CLASSES, _MAY_FOLLOW = bytearray(256), bytearray(256)
for _characters, _class in _MEMBERS:
    for _character in _characters:
        _CLASSES[_character], _MAY_FOLLOW[_character] = _class, _FOLLOWERS[_class]


def parse_integers(text: bytes) -> NDArray[np.int64]:
    """Return the integers in a text, shape (integers,); raises Unsound unless single spaces separate them."""
    if not text:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text + b" ", np.uint8)
    ends = np.flatnonzero(codes == _SPACE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_negative = codes[starts] == _MINUS
    lengths = ends - starts - is_negative
    longest = int(lengths.max())
    require(lengths.min() >= 1 and longest <= _MOST_DIGITS, _NO_NUMBER)
    digits = codes - np.uint8(_ZERO)
    require(np.count_nonzero(digits < _MOST_DIGITS) == lengths.sum(), _NO_NUMBER)
    found = digits[ends - 1].astype(np.int64)
    for place in range(1, longest):
        has = np.flatnonzero(lengths > place)
        found[has] += digits[ends[has] - 1 - place].astype(np.int64) * 10**place
    return np.where(is_negative, -found, found)


def require_numbers(text: bytes) -> None:
    """Raise Unsound unless a text is decimal numbers, separated by single spaces."""
    if not text:
        return
    whole = b" " + text + b" "
    classes, may_follow = (np.frombuffer(whole.translate(table), np.uint8) for table in (_CLASSES, _MAY_FOLLOW))
    if (classes[1:] & may_follow[:-1]).all():
        return
    require(all(map(_NUMBER.fullmatch, text.split(b" "))), _NO_NUMBER)

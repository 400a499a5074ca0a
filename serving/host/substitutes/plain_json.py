"""JSON by the standard library, where orjson is not installed: takes the place of `serving.json_codec`.

It writes and reads what orjson does: no NaN (it is written as null), no integers beyond 64 bits, no text that is not
Unicode. So the server reads everything that a host in another environment sends.
"""

from __future__ import annotations

import json
import math
import re
from json import JSONDecodeError
from typing import Any, NoReturn

OPT_NON_STR_KEYS = 4

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_LONG_NUMBER = re.compile(r"\d{19}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def dumps(value: Any, default: None = None, option: int | None = None) -> bytes:
    """Return `value` as compact JSON. Raises TypeError for what has no JSON; keys that are numbers become texts."""
    del default, option
    try:
        text = _write(value)
    except ValueError:
        text = _write(_replace_not_finite(value))
    if _LONG_NUMBER.search(text):
        _require_short_integers(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise TypeError("str is not valid UTF-8: surrogates not allowed") from None


def loads(raw: bytes | bytearray | memoryview | str) -> Any:
    """Return what the JSON document `raw` holds; raises JSONDecodeError."""
    return read_json(raw, _refuse_constant)


def read_json(raw: bytes | bytearray | memoryview | str, parse_constant: Any = None) -> Any:
    """Read a JSON document whose texts are Unicode; `parse_constant` is called for NaN. Raises JSONDecodeError."""
    encoded = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else bytes(raw)
    try:
        value = json.loads(encoded.decode(), parse_constant=parse_constant)
        if _SURROGATE.search(encoded):
            _write(value).encode()
    except JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # not UTF-8, a text with half of a pair, too deep, too many digits
        raise JSONDecodeError(str(error), "", 0) from None
    return value


def _write(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _refuse_constant(name: str) -> NoReturn:
    raise JSONDecodeError(f"unexpected {name}", "", 0)


def _replace_not_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_not_finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_not_finite(each) for each in value]
    return value


def _require_short_integers(value: Any) -> None:
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise TypeError("Integer exceeds 64-bit range")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            _require_short_integers(each)

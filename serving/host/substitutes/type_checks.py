"""Checks values against the annotations of a data model, by the rules that pydantic has unless it is strict.

A check takes a value and returns it, converted where the type allows that, or raises `Mismatch`.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Iterable, KeysView, Mapping, ValuesView
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union

from serving.host.substitutes.instants import read_instant

Check = Callable[[Any], Any]
Problem = tuple[tuple[Any, ...], str]

_UNIONS = (Union, getattr(types, "UnionType", Union))
_INTEGER = re.compile(r"\s*[+-]?\d+(\.0*)?\s*")
_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")
_SEQUENCES = (list, tuple, set, frozenset, KeysView, ValuesView)


class JsonValue:
    """An annotation: any value that JSON has."""


class Mismatch(Exception):
    """A value that its annotation does not allow: each problem is a place inside the value, and a sentence."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems) or [((), message)]

    def at(self, place: Any) -> Mismatch:
        """Return this error as one of the value that has the wrong one at `place`."""
        return Mismatch(str(self), [((place, *inner), message) for inner, message in self.problems])


class Limits:
    """What an annotation demands besides the type: the arguments of `Field` with these names."""

    def __init__(
        self,
        ge: float | None = None,
        le: float | None = None,
        gt: float | None = None,
        lt: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        pattern: str | None = None,
    ) -> None:
        numbers = (("greater than or equal to", ge), ("less than or equal to", le))
        self._numbers = [*numbers, ("greater than", gt), ("less than", lt)]
        self._shortest, self._longest = min_length, max_length
        self._pattern = None if pattern is None else re.compile(pattern.replace("$", r"\Z"), re.ASCII)
        self._pattern_text = pattern

    def require(self, value: Any) -> Any:
        """Return `value`; raises Mismatch when it is outside of the limits."""
        for words, limit in self._numbers:
            if limit is not None and not _is_within(words, value, limit):
                raise Mismatch(f"Input should be {words} {limit}")
        if self._shortest is not None and len(value) < self._shortest:
            raise Mismatch(_describe_length(value, "at least", self._shortest))
        if self._longest is not None and len(value) > self._longest:
            raise Mismatch(_describe_length(value, "at most", self._longest))
        if self._pattern is not None and self._pattern.search(value) is None:
            raise Mismatch(f"String should match pattern '{self._pattern_text}'")
        return value


def _is_within(words: str, value: Any, limit: float) -> bool:
    if words.startswith("greater"):
        return bool(value >= limit) if words.endswith("equal to") else bool(value > limit)
    return bool(value <= limit) if words.endswith("equal to") else bool(value < limit)


def _describe_length(value: Any, words: str, limit: int) -> str:
    if isinstance(value, str):
        return f"String should have {words} {limit} character{'' if limit == 1 else 's'}"
    kind = {"list": "List", "tuple": "Tuple", "dict": "Dictionary"}.get(type(value).__name__, "Value")
    return f"{kind} should have {words} {limit} item{'' if limit == 1 else 's'} after validation, not {len(value)}"


def make_check(annotation: Any, *, exact: bool = False, finite: bool = False) -> Check:
    """Return the check for an annotation. `exact` converts nothing, `finite` refuses NaN and infinities.

    Raises TypeError for an annotation that it does not know.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner = make_check(arguments[0], exact=exact, finite=finite)
        limits = [each.limits for each in arguments[1:] if hasattr(each, "limits")]
        return _chain(inner, limits)
    if origin in _UNIONS:
        return _make_union_check(arguments, exact=exact, finite=finite)
    if origin is Literal:
        return lambda value: _require_one_of(value, arguments)
    if origin in (tuple, list, dict):
        inside = [make_check(each, exact=exact, finite=finite) for each in arguments if each is not Ellipsis]
        return _make_container_check(origin, inside, is_fixed=Ellipsis not in arguments)
    return _make_plain_check(annotation, exact=exact, finite=finite)


def _chain(inner: Check, limits: Iterable[Limits]) -> Check:
    def check(value: Any) -> Any:
        found = inner(value)
        for each in limits:
            each.require(found)
        return found

    limits = list(limits)
    return check


def _make_plain_check(annotation: Any, *, exact: bool, finite: bool) -> Check:
    plain: dict[Any, Check] = {
        Any: lambda value: value,
        None: _require_none,
        type(None): _require_none,
        JsonValue: _require_json,
        str: _read_text,
        datetime: _read_datetime,
        bool: lambda value: _read_bool(value, exact=exact),
        int: lambda value: _read_integer(value, exact=exact),
        float: lambda value: _read_float(value, exact=exact, finite=finite),
    }
    if annotation in plain:
        return plain[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return lambda value: _read_member(value, annotation)
    if hasattr(annotation, "check_value"):  # a class of `plain_models`
        check: Check = annotation.check_value
        return check
    raise TypeError(f"no check for the annotation {annotation!r}")


def _make_union_check(arguments: Iterable[Any], *, exact: bool, finite: bool) -> Check:
    """Return the check of a union: the first type that takes the value as it is, else the first that converts it."""
    kinds = [each for each in arguments if each is not type(None)]
    converting = [make_check(each, exact=exact, finite=finite) for each in kinds]
    checks = [*(make_check(each, exact=True, finite=finite) for each in kinds), *converting]
    if len(kinds) == 1:
        checks = converting

    def check(value: Any) -> Any:
        if value is None and takes_none:
            return None
        found = []
        for each in checks:
            try:
                return each(value)
            except Mismatch as error:
                found.append(error)
        raise found[-len(converting)]

    takes_none = type(None) in arguments
    return check


def _make_container_check(kind: type, inside: list[Check], *, is_fixed: bool) -> Check:
    if kind is dict:
        return lambda value: _read_mapping(value, *inside)
    if kind is tuple and is_fixed:
        return lambda value: _read_fixed_tuple(value, inside)
    return lambda value: kind(_read_items(value, inside[0], kind))


def _read_items(value: Any, check: Check, kind: type) -> list[Any]:
    if not isinstance(value, _SEQUENCES):
        raise Mismatch(f"Input should be a valid {kind.__name__}")
    items = []
    for place, each in enumerate(value):
        try:
            items.append(check(each))
        except Mismatch as error:
            raise error.at(place) from None
    return items


def _read_fixed_tuple(value: Any, checks: list[Check]) -> tuple[Any, ...]:
    items = _read_items(value, lambda each: each, tuple)
    if len(items) < len(checks):
        raise Mismatch("Field required").at(len(items))
    if len(items) > len(checks):
        raise Mismatch(
            f"Tuple should have at most {len(checks)} item{'' if len(checks) == 1 else 's'} after validation, "
            f"not {len(items)}"
        )
    found = []
    for place, (check, each) in enumerate(zip(checks, items)):  # noqa: B905  (of equal length, also for Python 3.9)
        try:
            found.append(check(each))
        except Mismatch as error:
            raise error.at(place) from None
    return tuple(found)


def _read_mapping(value: Any, check_key: Check, check_value: Check) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Mismatch("Input should be an object")
    found = {}
    for key, each in value.items():
        try:
            found[check_key(key)] = check_value(each)
        except Mismatch as error:
            raise error.at(key) from None
    return found


def _require_none(value: Any) -> None:
    if value is not None:
        raise Mismatch("Input should be None")


def _read_integer(value: Any, *, exact: bool) -> int:
    if isinstance(value, int) and not (exact and isinstance(value, bool)):
        return int(value)
    if not exact and isinstance(value, float) and math.isfinite(value):
        if not value.is_integer():
            raise Mismatch("Input should be a valid integer, got a number with a fractional part")
        return int(value)
    if not exact and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value.partition(".")[0])
    raise Mismatch("Input should be a valid integer")


def _read_float(value: Any, *, exact: bool, finite: bool) -> float:
    found = None
    if isinstance(value, (int, float)) and not (exact and isinstance(value, bool)):
        found = float(value)
    elif not exact and isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            found = None
    if found is None:
        raise Mismatch("Input should be a valid number")
    if finite and not math.isfinite(found):
        raise Mismatch("Input should be a finite number")
    return found


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch("Input should be a valid string")
    return value.value if isinstance(value, Enum) else str(value)


def _read_bool(value: Any, *, exact: bool) -> bool:
    if isinstance(value, bool):
        return value
    if not exact and isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if not exact and isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise Mismatch("Input should be a valid boolean")


def _read_member(value: Any, kind: type[Enum]) -> Enum:
    try:
        return kind(value)
    except ValueError:
        raise Mismatch(f"Input should be {_list_choices([each.value for each in kind])}") from None


def _require_one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    for each in choices:
        if value == each:
            return each
    raise Mismatch(f"Input should be {_list_choices(choices)}")


def _list_choices(choices: Iterable[Any]) -> str:
    *before, last = map(repr, choices)
    return f"{', '.join(before)} or {last}" if before else last


def _require_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {_read_text(key): _require_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_require_json(each) for each in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise Mismatch("Input was not a valid JSON value")


def _read_datetime(value: Any) -> datetime:
    try:
        return value if isinstance(value, datetime) else read_instant(value)
    except (ValueError, OverflowError, TypeError):
        raise Mismatch("Input should be a valid datetime") from None

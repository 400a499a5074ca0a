"""Describes each setting that cannot be used in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

from pydantic import ValidationError

from serving.settings.groups import GROUPS, KEYS
from serving.settings.token_digest import TokenDigest

PREFIX = "SERVING_"


class SettingsError(Exception):
    """Settings that cannot be used. ``str(error)`` holds one line for each problem."""


class SettingSource(StrEnum):
    """Where a value was found, except in a file: a file is named by its path."""

    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class GivenValue:
    """One value as it was given.

    `key` is ``group.field`` (or what stands in its place when it is no setting); `source` says where the value was
    found, `spelling` how the key is written there.
    """

    key: str
    value: Any
    source: str
    spelling: str


def variable_name(key: str) -> str:
    """Return the name of the environment variable for a ``group.field``."""
    return PREFIX + key.replace(".", "__").upper()


def describe_problems(given: Mapping[str, GivenValue], error: ValidationError) -> list[str]:
    """Return one line for each error, with the source of the value; secret values are left out."""
    lines: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in detail["loc"][:2])
        for each in _find_given(key, given):
            lines[f"{each.source}: {each.spelling}: {_describe_problem(each, detail['type'], detail['msg'])}"] = None
    return list(lines)


def _find_given(key: str, given: Mapping[str, GivenValue]) -> Iterator[GivenValue]:
    """Return every value given under a key: an unknown group is an error for each of its fields."""
    if key in given:
        return iter([given[key]])
    return (each for each in given.values() if each.key.startswith(f"{key}."))


def _describe_problem(each: GivenValue, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"no such setting; {_suggest_key(each)}"
    group, _, name = each.key.partition(".")
    if not name:
        example = f"{group}.{next(iter(GROUPS[group].model_fields))}"
        return f"a group is set field by field, such as {_spell_key(example, each)}"
    field = GROUPS[group].model_fields[name]
    seen = "the value" if TokenDigest in get_args(field.annotation) else repr(each.value)[:80]
    # pydantic says: Input should be a valid integer, unable to parse string as an integer
    expected = message.removeprefix("Input ").partition(", unable to")[0]
    return f"{seen} {expected} ({field.description})"


def _suggest_key(each: GivenValue) -> str:
    group, _, name = each.key.partition(".")
    in_group = [known for known in KEYS if known.startswith(f"{group}.")]
    close = (
        [known for known in KEYS if known.replace(".", "_") == each.key]  # one underscore instead of two
        or [known for known in KEYS if known.endswith(f".{name or group}")]  # in the wrong group, or in none
        or difflib.get_close_matches(each.key, in_group, n=1, cutoff=0.75)
        or difflib.get_close_matches(each.key, KEYS, n=1, cutoff=0.75)
    )
    if close:
        return "did you mean " + " or ".join(_spell_key(known, each) for known in close) + "?"
    if in_group:
        return f"{group} has {', '.join(GROUPS[group].model_fields)}"
    similar = difflib.get_close_matches(group, GROUPS, n=1)
    return f"did you mean {_spell_key(similar[0], each)}?" if similar else f"the groups are {', '.join(GROUPS)}"


def _spell_key(key: str, like: GivenValue) -> str:
    return variable_name(key) if like.source == SettingSource.ENVIRONMENT else key

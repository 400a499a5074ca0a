"""Describes each setting that cannot be used in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from serving.settings.groups import GROUPS, KEYS, TABLES, is_table
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

    `path` is group and field (or what stands in their place when it is no setting), with the name of the table between
    them in a group of named tables, and the table in it if there is one; `source` says where the value was found,
    `spelling` how the key is written there.
    """

    path: tuple[str, ...]
    value: Any
    source: str
    spelling: str

    @property
    def key(self) -> str:
        """The key as ``settings.toml`` has it: ``group.field``."""
        return ".".join(self.path)


def variable_name(*path: str) -> str:
    """Return the name of the environment variable for the path of a setting."""
    return PREFIX + "__".join(path).upper()


def describe_problems(given: Mapping[str, GivenValue], error: ValidationError) -> list[str]:
    """Return one line for each error, with the source of the value; secret values are left out."""
    lines: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_context=False):
        for each in _find_given(_find_path(detail["loc"]), given):
            lines[f"{each.source}: {each.spelling}: {_describe_problem(each, detail['type'], detail['msg'])}"] = None
    return list(lines)


def _find_path(location: Sequence[int | str]) -> tuple[str, ...]:
    """Return the path of the setting that an error is about; named tables can be in a field of their group."""
    group, *rest = (str(part) for part in location if part != "[key]")  # pydantic's place of a table's name
    tables = TABLES.get(group)
    if tables is None or (tables.held_in is not None and rest[:1] != [tables.held_in]):
        return (group, *rest[:1])
    return (group, *rest[tables.held_in is not None :][: 2 + len(tables.inner)])


def _find_given(path: tuple[str, ...], given: Mapping[str, GivenValue]) -> list[GivenValue]:
    """Return the value given at a path, or those below it: an unknown group is an error for each of its fields.

    Where nothing is, the field is missing: that is a problem of its table.
    """
    if (key := ".".join(path)) in given:
        return [given[key]]
    below = [value for value in given.values() if value.path[: len(path)] == path]
    return below or [given[table] for table in [".".join(path[:-1])] if table in given]


def _describe_problem(each: GivenValue, kind: str, message: str) -> str:
    group, *rest = each.path
    if kind == "extra_forbidden":
        return f"no such setting; {_suggest_key(each)}"
    if not rest:
        return f"a group is set field by field, such as {_spell_path(_example_of(group), each)}"
    if kind == "table_name" and len(rest) > 1:
        return message
    if not is_table(group, rest[0]):
        fields: Mapping[str, FieldInfo] = GROUPS[group].model_fields
    elif len(rest) < 2 + len(TABLES[group].inner) and each.value != {}:
        return f"no such setting; {_suggest_key(each)}"
    else:
        fields = TABLES[group].fields
    if kind == "missing":
        return (
            f"is empty; it needs {' and '.join(fields)}, such as {_spell_path((*each.path, next(iter(fields))), each)}"
        )
    field = fields[rest[-1]]
    seen = "the value" if TokenDigest in get_args(field.annotation) else repr(each.value)[:80]
    # pydantic says: Input should be a valid integer, unable to parse string as an integer
    expected = message.removeprefix("Input ").partition(", unable to")[0].partition(" for <class")[0]
    return f"{seen} {expected} ({field.description})"


def _example_of(group: str) -> tuple[str, ...]:
    for key in KEYS:
        if key.startswith(f"{group}."):
            return (group, key.removeprefix(f"{group}."))
    tables = TABLES[group]
    return (group, "<name>", *tables.inner, next(iter(tables.fields)))


def _suggest_key(each: GivenValue) -> str:
    group, *rest = each.path
    if rest and is_table(group, rest[0]):
        return f"did you mean {_spell_path(_find_close_path(group, rest), each)}?"
    name = ".".join(rest)
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


def _find_close_path(group: str, rest: Sequence[str]) -> tuple[str, ...]:
    """Return the setting that was probably meant, in a group of named tables."""
    settings = [key.removeprefix(f"{group}.") for key in KEYS if key.startswith(f"{group}.")]
    if len(rest) == 1 and (close := difflib.get_close_matches(rest[0], settings, n=1, cutoff=0.7)):
        return (group, close[0])
    tables = TABLES[group]
    last = difflib.get_close_matches(rest[-1], tables.fields, n=1, cutoff=0.6) if len(rest) > 1 else []
    return (group, rest[0], *tables.inner, last[0] if last else next(iter(tables.fields)))


def _spell_path(path: tuple[str, ...], like: GivenValue) -> str:
    return variable_name(*path) if like.source == SettingSource.ENVIRONMENT else ".".join(path)


def _spell_key(key: str, like: GivenValue) -> str:
    return _spell_path(tuple(key.split(".")), like)

"""Loads settings from file, environment, a platform's own variables and command line, merged field by field."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from serving.settings.groups import GROUPS, KEYS, TABLES, Settings, is_table
from serving.settings.setting_problems import (
    PREFIX,
    GivenValue,
    SettingsError,
    SettingSource,
    describe_problems,
    variable_name,
)
from serving.settings.token_files import TokenScope, read_token_file, refuse_both

FILE_VARIABLE = "SERVING_SETTINGS"
DEFAULT_FILE = Path("settings.toml")
SAGEMAKER_PORT = "SAGEMAKER_BIND_TO_PORT"
SAGEMAKER_STORE = "/opt/ml/model"

# A pod beside a Kubernetes service called "serving-server" finds SERVING_SERVER_PORT=tcp://... in its environment.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


def load_settings(flags: Mapping[str, Any] = {}, file: Path | None = None) -> Settings:
    """Merge flags, environment, file and defaults, in this order; blocks on reading the file.

    `flags` maps ``"group.field"`` to a value; None means that the flag was not given. `file` is the settings file
    named on the command line. Raises SettingsError with one line for each problem, all of them at once.
    """
    given = _gather_values(flags, file)
    groups: dict[str, Any] = {}
    for each in given.values():
        _set_value(groups, _locate(each.path), each.value)
    try:
        return Settings(**groups)
    except ValidationError as error:
        raise SettingsError("\n".join(describe_problems(given, error))) from None


def _locate(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return where in the settings a path is: named tables can be in a field of their group."""
    return TABLES[path[0]].locate(path) if len(path) > 1 and is_table(*path[:2]) else path


def _set_value(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    inner: Any = document
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):  # a value where a table is expected: that is the problem to tell
            return
    inner[path[-1]] = value


def load_token(scope: TokenScope) -> str | None:
    """Return the token that a client of this scope sends, None when there is none; the first one of a file.

    Settings keep digests, which cannot be sent, so this reads their sources again. Blocks; raises SettingsError.
    """
    given = _gather_values({}, None)
    setting, file = (given.get(f"security.{scope}_token{suffix}") for suffix in ("", "_file"))
    refuse_both(scope, setting, file)
    if file is not None:
        return read_token_file(Path(str(file.value)), scope)[0]
    return None if setting is None else str(setting.value).strip()


def forget_tokens() -> None:
    """Remove every token from this process's environment: a server keeps their digests only."""
    names = {variable_name("security", f"{scope}_token") for scope in TokenScope}
    for spelling in [name for name in os.environ if name.upper() in names]:
        del os.environ[spelling]


def _gather_values(flags: Mapping[str, Any], file: Path | None) -> dict[str, GivenValue]:
    given: dict[str, GivenValue] = {}
    layers = (_read_file(file), _read_environment(os.environ), _read_platform(os.environ), _read_flags(flags))
    for layer in layers:
        given.update({each.key: each for each in _keep_spelling(layer, given)})
    return given


def _keep_spelling(layer: Iterable[GivenValue], given: Mapping[str, GivenValue]) -> Iterator[GivenValue]:
    """Yield values; one from a variable, whose name has no case, belongs to the table of that name in the file."""
    known = {(each.path[0], each.path[1].lower()): each.path[1] for each in given.values() if len(each.path) > 2}
    for each in layer:
        if each.source == SettingSource.ENVIRONMENT and len(each.path) > 2 and each.path[:2] in known:
            yield replace(each, path=(each.path[0], known[each.path[0], each.path[1]], *each.path[2:]))
        else:
            yield each


def _read_file(named: Path | None) -> Iterator[GivenValue]:
    path, named_by = _choose_file(named)
    if named_by is None and not path.exists():
        return
    text = ""
    try:
        text = path.read_text("utf-8")
        document = TomlConfigSettingsSource(Settings, toml_file=path)()
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such settings file (named by {named_by})") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        where = str(error).replace("end of document", f"line {len(text.splitlines())}, the last one")
        raise SettingsError(f"{path}: is not TOML: {where}") from None
    for keys, value in _flatten(document):
        yield GivenValue(keys, value, str(path), ".".join(keys))


def _choose_file(named: Path | None) -> tuple[Path, str | None]:
    """Return the path of the settings file and what named it; None: the default file, which may be absent."""
    if named is not None:
        return named, "--settings"
    if from_environment := os.environ.get(FILE_VARIABLE):
        return Path(from_environment), FILE_VARIABLE
    return DEFAULT_FILE, None


def _read_environment(environment: Mapping[str, str]) -> Iterator[GivenValue]:
    spellings = {spelling.upper(): spelling for spelling in environment}
    source = EnvSettingsSource(Settings)
    in_tables = {spelling: path for spelling in environment if (path := _find_table(spelling))}
    source.env_vars = {
        name: value
        for name, value in source.env_vars.items()
        if "__" in name and spellings[name.upper()] not in in_tables  # no whole groups as JSON
    }
    for path, value in _flatten(source()):
        spelling = spellings.get(variable_name(*path))
        if spelling is not None:
            yield GivenValue(path, value, SettingSource.ENVIRONMENT, spelling)
    for spelling, path in in_tables.items():
        if environment[spelling]:
            yield GivenValue(path, environment[spelling], SettingSource.ENVIRONMENT, spelling)
    yield from _find_near_misses(environment)


def _find_table(spelling: str) -> tuple[str, ...] | None:
    """Return the path of a variable for a field of a named table; None for another variable."""
    if not spelling.upper().startswith(PREFIX):
        return None
    group, _, rest = spelling.upper().removeprefix(PREFIX).lower().partition("__")
    first, _, others = rest.partition("__")
    if not rest or not is_table(group, rest if not others else first):
        return None
    inner = len(TABLES[group].inner)
    name, *fields = rest.rsplit("__", 1 + inner) if rest.count("__") > inner else rest.split("__")
    return (group, name, *fields)


def _read_platform(environment: Mapping[str, str]) -> Iterator[GivenValue]:
    """Yield the values that SageMaker requires of a container, when a variable of SageMaker is set.

    They override the environment, where images have defaults of their own: SageMaker connects from outside of the
    container, to the port it names, and unpacks the model to one fixed place.
    """
    port = environment.get(SAGEMAKER_PORT)
    if port:
        yield GivenValue(("server", "port"), port, SettingSource.ENVIRONMENT, SAGEMAKER_PORT)
        yield GivenValue(("server", "host"), "0.0.0.0", SettingSource.ENVIRONMENT, SAGEMAKER_PORT)  # noqa: S104
        yield GivenValue(("store", "path"), SAGEMAKER_STORE, SettingSource.ENVIRONMENT, SAGEMAKER_PORT)


def _find_near_misses(environment: Mapping[str, str]) -> Iterator[GivenValue]:
    """Yield variables that are no setting, but so similar to one that they were probably meant as one.

    Other variables are ignored: many deployments use the prefix SERVING_ for their own.
    """
    near_misses = {variable_name(*key.split(".")).replace("__", "_") for key in KEYS}
    for spelling, value in environment.items():
        name = spelling.upper()
        if not name.startswith(PREFIX) or name == FILE_VARIABLE or not value:
            continue
        group, delimiter, field = name.removeprefix(PREFIX).lower().partition("__")
        if delimiter and group not in GROUPS:
            yield GivenValue((group, field), value, SettingSource.ENVIRONMENT, spelling)
        elif not delimiter and (group in GROUPS or (name in near_misses and not _SERVICE_LINK.match(value))):
            yield GivenValue((group,), value, SettingSource.ENVIRONMENT, spelling)


def _flatten(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value for fields of a known group and of its named tables, the bare key for everything else."""
    for group, content in document.items():
        if not isinstance(content, dict) or group not in GROUPS:
            yield (group,), content
            continue
        for name, value in content.items():
            depth = 1 + len(TABLES[group].inner) if is_table(group, name) else 0
            yield from (((group, name, *inner), each) for inner, each in _walk(value, depth))


def _walk(value: Any, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value for what is so many tables deep; empty tables and values before that are yielded as well."""
    if depth == 0 or not isinstance(value, dict) or not value:
        yield (), value
        return
    for name, each in value.items():
        yield from (((name, *inner), found) for inner, found in _walk(each, depth - 1))


def _read_flags(flags: Mapping[str, Any]) -> Iterator[GivenValue]:
    return (
        GivenValue(tuple(key.split(".")), value, SettingSource.COMMAND_LINE, key)
        for key, value in flags.items()
        if value is not None
    )

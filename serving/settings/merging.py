"""Loads settings from file, environment, a platform's own variables and command line, merged field by field."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from serving.settings.groups import GROUPS, KEYS, Settings
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
        group, _, name = each.key.partition(".")
        if not name:
            groups[group] = each.value
        elif isinstance(fields := groups.setdefault(group, {}), dict):
            fields[name] = each.value
    try:
        return Settings(**groups)
    except ValidationError as error:
        raise SettingsError("\n".join(describe_problems(given, error))) from None


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
    names = {variable_name(f"security.{scope}_token") for scope in TokenScope}
    for spelling in [name for name in os.environ if name.upper() in names]:
        del os.environ[spelling]


def _gather_values(flags: Mapping[str, Any], file: Path | None) -> dict[str, GivenValue]:
    given: dict[str, GivenValue] = {}
    layers = (_read_file(file), _read_environment(os.environ), _read_platform(os.environ), _read_flags(flags))
    for layer in layers:
        given.update({each.key: each for each in layer})
    return given


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
    for key, value in _flatten(document):
        yield GivenValue(key, value, str(path), key)


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
    source.env_vars = {
        name: value for name, value in source.env_vars.items() if "__" in name
    }  # no whole groups as JSON
    for key, value in _flatten(source()):
        spelling = spellings.get(variable_name(key))
        if spelling is not None:
            yield GivenValue(key, value, SettingSource.ENVIRONMENT, spelling)
    yield from _find_near_misses(environment)


def _read_platform(environment: Mapping[str, str]) -> Iterator[GivenValue]:
    """Yield the values that SageMaker requires of a container, when a variable of SageMaker is set.

    They override the environment, where images have defaults of their own: SageMaker connects from outside of the
    container, to the port it names, and unpacks the model to one fixed place.
    """
    port = environment.get(SAGEMAKER_PORT)
    if port:
        yield GivenValue("server.port", port, SettingSource.ENVIRONMENT, SAGEMAKER_PORT)
        yield GivenValue("server.host", "0.0.0.0", SettingSource.ENVIRONMENT, SAGEMAKER_PORT)  # noqa: S104
        yield GivenValue("store.path", SAGEMAKER_STORE, SettingSource.ENVIRONMENT, SAGEMAKER_PORT)


def _find_near_misses(environment: Mapping[str, str]) -> Iterator[GivenValue]:
    """Yield variables that are no setting, but so similar to one that they were probably meant as one.

    Other variables are ignored: many deployments use the prefix SERVING_ for their own.
    """
    near_misses = {variable_name(key).replace("__", "_") for key in KEYS}
    for spelling, value in environment.items():
        name = spelling.upper()
        if not name.startswith(PREFIX) or name == FILE_VARIABLE or not value:
            continue
        group, delimiter, field = name.removeprefix(PREFIX).lower().partition("__")
        if delimiter and group not in GROUPS:
            yield GivenValue(f"{group}.{field}", value, SettingSource.ENVIRONMENT, spelling)
        elif not delimiter and (group in GROUPS or (name in near_misses and not _SERVICE_LINK.match(value))):
            yield GivenValue(group, value, SettingSource.ENVIRONMENT, spelling)


def _flatten(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield ``group.field`` and value for fields of a known group, the bare key for everything else."""
    for group, content in document.items():
        if isinstance(content, dict) and group in GROUPS:
            yield from ((f"{group}.{name}", value) for name, value in content.items())
        else:
            yield group, content


def _read_flags(flags: Mapping[str, Any]) -> Iterator[GivenValue]:
    return (
        GivenValue(key, value, SettingSource.COMMAND_LINE, key) for key, value in flags.items() if value is not None
    )

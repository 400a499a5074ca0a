"""Reads the versions that the files beside a model pin: ``requirements.txt``, ``python_env.yaml``, ``conda.yaml``.

MLflow writes the three of them. Only lines with one exact version are read (``name==1.2``, ``- name=1.2``,
``python: 3.10.4``); everything else in them, such as ranges, links, options and hashes, is ignored, so no YAML library
is needed. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from serving.domain.environment import COMPARED

PINNING_NAMES = ("requirements.txt", "python_env.yaml", "conda.yaml")
PYTHON = "python"
MAX_PINS_BYTES = 1 << 20
MAX_PINS = 200

_MAX_LINE_CHARACTERS = 500
_FIRST = frozenset(COMPARED.values())  # these versions decide, so they are taken from lists of any length
_VERSION_TEXT = re.compile(r"[0-9A-Za-z.+!_-]{1,40}")
_PLAIN_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
_NAME_TEXT = re.compile(_PLAIN_NAME)
_NAME = rf"(?P<name>{_PLAIN_NAME})"
_VERSION = r"(?P<version>[0-9][0-9A-Za-z.+!_-]{0,39})"
# the end of a line of pip: what the line is limited to (a marker), hashes and other options, a comment
_REST = r"\s*(?:;.*|\\|--.*|\s#.*)?"
_PIP = re.compile(rf"{_NAME}\s*(?:\[[^\]]{{0,200}}\])?\s*==\s*{_VERSION}{_REST}")
# an item of conda: perhaps a channel before it, perhaps the name of a build behind it
_CONDA = re.compile(rf"(?:[\w.-]{{1,100}}::)?{_NAME}={_VERSION}(?:=[\w.*-]{{0,100}})?(?:\s#.*)?")
_YAML_PYTHON = re.compile(rf"python:\s*(?P<quote>[\"']?){_VERSION}(?P=quote)\s*(?:#.*)?")
_YAML_ITEM = re.compile(r"\s*-\s+(?P<quote>[\"']?)(?P<item>.*)(?P=quote)\s*")
# what installs the others; no model needs it
_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})


def read_pins(name: str, raw: bytes) -> dict[str, str]:
    """Return the versions that the bytes of the file `name` pin, by distribution, and ``python`` for Python itself.

    Distributions have their normal names (PEP 503: ``scikit-learn``). A distribution with two different versions is
    left out. `name` is one of `PINNING_NAMES`. At most `MAX_PINS` versions besides those that decide, each of 40
    characters at most.
    """
    read_line = _read_pip_line if name.endswith(".txt") else _read_yaml_line
    pins: dict[str, str] = {}
    contradicted: set[str] = set()
    for line in raw[:MAX_PINS_BYTES].decode("utf-8-sig", "replace").splitlines():
        found = read_line(line) if len(line) <= _MAX_LINE_CHARACTERS else None
        if found is None:
            continue
        distribution, version = normalize_name(found["name"]), found["version"]
        if len(pins) >= MAX_PINS and distribution not in _FIRST:
            continue
        if pins.setdefault(distribution, version) != version:
            contradicted.add(distribution)
    return {name: version for name, version in pins.items() if name not in contradicted | _INSTALLERS}


def normalize_name(distribution: str) -> str:
    """Return the normal form of the name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pick_versions(stated: Mapping[str, object]) -> dict[str, str]:
    """Return the first `MAX_PINS` of these versions, those that decide before all others, by the normal names.

    Names that no distribution has, and texts that are no versions, are left out: they may be anything.
    """
    found = {
        normalize_name(name): version
        for name, version in stated.items()
        if _NAME_TEXT.fullmatch(name) and isinstance(version, str) and is_version_text(version)
    }
    return dict(sorted(found.items(), key=lambda each: (each[0] not in _FIRST, each[0]))[:MAX_PINS])


def is_version_text(text: object) -> bool:
    """Say whether `text` may be a version: at most 40 letters, digits and the marks that versions have."""
    return isinstance(text, str) and _VERSION_TEXT.fullmatch(text) is not None


def _read_pip_line(line: str) -> dict[str, str] | None:
    found = _PIP.fullmatch(line.strip())
    return found.groupdict() if found else None


def _read_yaml_line(line: str) -> dict[str, str] | None:
    python = _YAML_PYTHON.fullmatch(line)
    if python:
        return {"name": PYTHON, "version": python["version"]}
    item = _YAML_ITEM.fullmatch(line)
    found = (_PIP.fullmatch(item["item"]) or _CONDA.fullmatch(item["item"])) if item else None
    return found.groupdict() if found else None

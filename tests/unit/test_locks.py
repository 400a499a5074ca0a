"""The lock files: complete, so that installing them asks for nothing else, whichever pip does it, and next year too.

An old pip resolves a requirement with an extra anew, even if it is locked. Hence every install leaves resolving out,
and these tests see to it that nothing needs it: each lock holds all that its packages require.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
MAIN: list[str] = PROJECT["project"]["dependencies"]
KSERVE = ROOT / ".venv" / "kserve"


def in_group(name: str) -> list[str]:
    """The requirements of a dependency group, those of the groups it includes among them."""
    found: list[str] = []
    for one in PROJECT["dependency-groups"][name]:
        found += [one] if isinstance(one, str) else in_group(one["include-group"])
    return found


LOCKS = {
    "requirements.lock": [*MAIN, *EXTRAS["arrow"], *EXTRAS["grpc"], *in_group("boosters")],
    "requirements-build.lock": in_group("build"),
    "requirements-dev.lock": [*MAIN, *in_group("dev")],
    "requirements-kserve.lock": in_group("kserve"),
}


def locked_in(lock: str) -> dict[str, Requirement]:
    """Every package of a lock by its name, as `name==version` with a marker or without."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [Requirement(line.split(" --hash=")[0]) for line in text.splitlines()]
    return {canonicalize_name(one.name): one for one in found if applies(one)}


def applies(requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
    """Whether it is required of a package on this machine, for one of `extras` or always."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in ("", *extras))


@cache
def installed(environment: Path | None) -> dict[str, Distribution]:
    """What is installed in a virtual environment, or in this one."""
    places = (
        {} if environment is None else {"path": [str(one) for one in environment.glob("lib/python*/site-packages")]}
    )
    return {canonicalize_name(one.metadata["Name"]): one for one in distributions(**places)}


def missing_in(lock: str, wanted: list[str]) -> Iterator[str]:
    """Say what `wanted` or a package of the lock requires here that the lock does not have."""
    locked = locked_in(lock)
    there = installed(KSERVE if lock == "requirements-kserve.lock" else None)
    waiting = [("pyproject.toml", Requirement(one), frozenset[str]()) for one in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        by, requirement, extras = waiting.pop()
        if not applies(requirement, extras):
            continue
        name = canonicalize_name(requirement.name)
        pin = next((str(one.version) for one in locked[name].specifier), None) if name in locked else None
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            yield f"{by} requires {requirement}, the lock has {pin}"
            continue
        own_extras = frozenset(requirement.extras)
        if (name, own_extras) in seen:
            continue
        seen.add((name, own_extras))
        assert name in there, f"{name} is locked but not installed here: make install"
        assert there[name].version == pin, f"{name} {pin} is locked, {there[name].version} installed: make install"
        waiting += [(name, Requirement(one), own_extras) for one in there[name].requires or ()]
    if unused := set(locked) - {name for name, _ in seen}:
        yield f"no package requires {sorted(unused)}"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_all_that_its_packages_require_with_their_extras(lock: str) -> None:
    if lock == "requirements-kserve.lock" and not KSERVE.exists():
        pytest.skip("KServe's client is not installed: make clients")
    assert list(missing_in(lock, LOCKS[lock])) == []


def test_what_an_extra_of_a_package_requires_is_looked_for() -> None:
    """An old pip would fetch the newest of these, for which the lock has no hash."""
    found = list(missing_in("requirements.lock", ["uvicorn[standard]"]))
    assert any("watchfiles" in one and "standard" in one for one in found)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_package_by_hash_and_names_no_source(lock: str) -> None:
    text = "\n".join(line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#"))
    packages = text.replace("\\\n", " ").splitlines()
    assert packages
    for package in packages:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+( ; [^-]*)?( +--hash=sha256:[0-9a-f]{64})+", package.strip()), (
            package
        )


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_what_serves_is_what_is_tested(lock: str) -> None:
    """One environment holds both: the development tools are installed on top."""
    tested = locked_in("requirements-dev.lock")
    assert {name: str(one) for name, one in locked_in(lock).items() if str(tested.get(name)) != str(one)} == {}


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_is_resolved_when_a_lock_is_installed(file: str) -> None:
    commands = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    installs = [one for one in commands if re.search(r" -r requirements[\w-]*\.lock", one)]
    assert installs
    for command in installs:
        for one in re.split(r"&&|;", command):
            if ".lock" in one and " -r " in one:
                assert "--no-deps" in one, one
                assert "--require-hashes" in one, one
    assert re.search(r"pip\)? check", "\n".join(commands), re.IGNORECASE)

"""The environments that there are: those of the settings, and those that were made below ``environments.path``.

A running server finds new ones by itself: everything is looked up anew each time, by what the file system says of an
interpreter and of the directories of its packages. Only an environment that has changed is described again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from serving.domain.environment import Environment
from serving.environments.describing import describe_environment
from serving.environments.environment_directory import RECORD_NAME, EnvironmentDirectory
from serving.settings import EnvironmentSettings

DIRECTORY_NAME = "environments"

_MOST_AT_ONCE = 8

log = structlog.get_logger("serving.environments")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one environment is; `directory` is None for one of the settings."""

    name: str
    python: Path
    directory: Path | None


class Inventory:
    """All environments besides the server's own. Any thread may call any method."""

    def __init__(self, settings: EnvironmentSettings, state_path: Path) -> None:
        self.directory = open_directory(settings, state_path)
        self._named = dict(settings.named)
        self._described: dict[str, Environment] = {}
        self._broken: dict[str, tuple[str, str]] = {}  # name: its stamp, and the reason
        self._warned: set[str] = set()
        self._lock = threading.Lock()  # guards the three above
        self._describe_lock = threading.Lock()  # held while programs run, so that each runs once
        self._stopped = threading.Event()

    def list_environments(self) -> list[Environment]:
        """Return all complete environments, sorted by name, with the problem of those in which no host can run.

        Costs a few calls of stat when nothing has changed. Blocks while those that are new or changed are described,
        several at once: 0.2 s each as a rule, see `describe_environment`.
        """
        places = [(place, make_stamp(place)) for place in self._find_places()]
        with self._describe_lock:
            self._describe_new(places)
            found = [self._describe(place, stamp) for place, stamp in places]
        with self._lock:
            names = {each.name for each in found}
            self._described = {name: each for name, each in self._described.items() if name in names}
            self._broken = {name: each for name, each in self._broken.items() if name in names}
        return found

    def find(self, name: str) -> Environment | None:
        """Return one of `list_environments` by its name; None when there is no such. Describes no other."""
        for place in self._find_places():
            if place.name == name:
                stamp = make_stamp(place)
                with self._describe_lock:
                    return self._describe(place, stamp)
        return None

    def fingerprint(self) -> str:
        """Return a text that changes when an environment appears, disappears, is made anew, changes or gets a problem.

        Never describes one: it costs a few calls of stat.
        """
        stamps = {place.name: make_stamp(place) for place in self._find_places()}
        with self._lock:
            broken = {name: mark for name, mark in self._broken.items() if stamps.get(name) == mark[0]}
        return _hash([*stamps.items(), *broken.items()])

    def mark_broken(self, name: str, reason: str) -> None:
        """Give an environment a problem that only its use has shown, until it changes on disk."""
        for place in self._find_places():
            if place.name == name:
                stamp = make_stamp(place)
                with self._lock:
                    self._broken[name] = (stamp, reason)
                log.warning("environment_broken", environment=name, reason=reason)

    def stop(self) -> None:
        """Let no program run any more: an interpreter that hangs would delay the end of the server."""
        self._stopped.set()

    def _find_places(self) -> Iterator[_Place]:
        made = [name for name in self.directory.list_names() if self.directory.is_complete(name)]
        for name in sorted({*self._named, *made}):
            if name in self._named:
                if name in made:
                    self._warn_once(name)
                yield _Place(name, self._named[name].python, None)
            else:
                yield _Place(name, self.directory.find_python(name), self.directory.path / name)

    def _describe_new(self, places: Sequence[tuple[_Place, str]]) -> None:
        """Describe those that are not known as they are now, several at once: one that hangs takes long."""
        with self._lock:
            stamps = {name: each.stamp for name, each in self._described.items()}
        new = [(place, stamp) for place, stamp in places if stamps.get(place.name) != stamp]
        if len(new) > 1:
            with ThreadPoolExecutor(min(len(new), _MOST_AT_ONCE), "serving-describe") as threads:
                list(threads.map(lambda each: self._describe(*each), new))

    def _describe(self, place: _Place, stamp: str) -> Environment:
        with self._lock:
            known = self._described.get(place.name)
            broken = self._broken.get(place.name)
        if known is None or known.stamp != stamp:
            danger = find_danger(place)
            if danger is None:
                known = describe_environment(place.name, place.python, stamp, self._stopped)
            else:
                known = Environment(place.name, str(place.python.absolute()), "", {}, frozenset(), danger, stamp)
            with self._lock:
                self._described[place.name] = known
            if known.problem is not None and not self._stopped.is_set():
                log.warning("environment_problem", environment=place.name, reason=known.problem)
        if broken is not None and broken[0] == stamp and known.problem is None:
            return replace(known, problem=broken[1])
        return known

    def _warn_once(self, name: str) -> None:
        with self._lock:
            if name in self._warned:
                return
            self._warned.add(name)
        hidden = str(self.directory.path / name)
        log.warning("environment_hidden", environment=name, hidden=hidden, reason="the settings name another one so")


def open_directory(settings: EnvironmentSettings, state_path: Path) -> EnvironmentDirectory:
    """Return the directory in which environments are made, which need not exist."""
    return EnvironmentDirectory(settings.path or state_path / DIRECTORY_NAME)


def make_stamp(place: _Place) -> str:
    """Return a text that changes when an environment is made anew, or packages come and go: from stat only."""
    return _hash([str(place.python), find_danger(place), *map(_stat, _list_paths(place))])


def find_danger(place: _Place) -> str | None:
    """Say which other users could have put code into an environment, code that runs as this user; None for no others.

    One of the settings is taken as it is: an operator has named it.
    """
    for path in () if place.directory is None else (place.directory.parent, place.directory):
        with contextlib.suppress(OSError):
            found = path.stat()
            if found.st_mode & stat.S_IWOTH:
                return f"everybody may write to '{path}', and so run code as this user: chmod o-w '{path}'"
            if found.st_uid not in (0, os.geteuid()):
                return f"'{path}' belongs to user {found.st_uid}, who could run code as this user: make it your own"
    return None


def _list_paths(place: _Place) -> Iterator[Path]:
    """Yield what changes with an environment: its record, its interpreter, and directories of packages."""
    if place.directory is not None:
        yield place.directory / RECORD_NAME
    yield place.python
    prefix = place.python.parent.parent
    yield prefix / "pyvenv.cfg"
    with contextlib.suppress(OSError):
        for library in sorted((prefix / "lib").glob("python*")):
            yield library / "site-packages"
            yield library / "dist-packages"  # Debian's


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns)


def _hash(values: list[object]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

"""Lists the store as one immutable value: every model, every version, every problem with a name."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from serving.domain.errors import StoreUnavailable
from serving.domain.listing import Entry, FileStamp, Listing
from serving.domain.version import Format, usable_name, why_not_a_name
from serving.failpoints import reach
from serving.settings import StoreSettings
from serving.store.entries import DIRECTORY, VANISHED, Rules, Subject, look_up_name, make_stamp, read_file
from serving.store.file_heads import EXHAUSTED, format_by_content
from serving.store.links import BadLink, resolve
from serving.store.model_directory import RACY_NS, ModelDirectory
from serving.store.names import Names, artefact_format, artefact_stem, is_looked_into
from serving.store.other_files import describe_other_file

MAX_PROBLEMS = 50
_ATTEMPTS = 3
_DOUBTED_MODELS = 8
_ADVICE = {
    errno.EACCES: "; let user {user} read and enter that directory",
    errno.ENOTDIR: "; a store is a directory",
}


@dataclass(slots=True)
class _Pass:
    """One listing of the store while it is being made."""

    root_fd: int
    preferred: Mapping[str, str]
    reserved: dict[str, str] = field(default_factory=dict)
    models: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left_out: int = 0

    def reserve(self, models: Iterable[str]) -> None:
        """Reserve each name for its preferred spelling where the store holds several spellings."""
        for model in sorted(models):
            if model in self.preferred:
                self.reserved.setdefault(model.lower(), model)

    def add(self, model: str, name: str, entries: tuple[Entry, ...]) -> None:
        """Add a model; later spellings of its name are refused."""
        self.models[model] = entries
        self.taken[model.lower()] = name


class Store:
    """The model directory, read-only. Made for one thread, the reconciler's; blocks on the disk.

    Its memory only saves work: a new Store lists the same. `now_ns` is the wall clock; it only decides whether a
    directory changed too recently to trust its ctime.
    """

    def __init__(self, settings: StoreSettings, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._settings = settings
        self._path = os.path.abspath(settings.path)
        self._now_ns = now_ns
        self._names = Names(settings.ignore)
        self._rules = Rules("", self._names, 0)
        self._identity = (0, 0)
        self._directories: dict[str, ModelDirectory] = {}
        self._lone: dict[str, tuple[Entry, ...]] = {}
        self._contents: dict[str, tuple[FileStamp, Format | None]] = {}
        self._doubted = 0

    def list(self, preferred: Mapping[str, str] = MappingProxyType({})) -> Listing:
        """Return everything in the store.

        `preferred` maps a model to its active version. Where several names stand for one model, or for one version,
        the preferred name is taken, else the first by the rules of ``docs/store.md``.

        A model whose versions have not changed is returned as the identical tuple of identical entries; while its
        preferred version is missing, only if nothing else in its directory has changed either.

        Raises StoreUnavailable when the root or a model directory cannot be read: unreadable is not empty.
        """
        try:
            reach("listing")
            for _ in range(_ATTEMPTS):
                listing = self._list_once(preferred)
                if listing is not None:
                    return listing
        except OSError as error:
            if not os.path.lexists(self._path):
                raise StoreUnavailable(
                    f"there is no store at '{self._path}'; make an empty one: mkdir -p {shlex.quote(self._path)}"
                ) from None
            where = f" ({error.filename})" if isinstance(error.filename, str) else ""
            advice = _ADVICE.get(error.errno or 0, "").format(user=os.geteuid())
            raise StoreUnavailable(
                f"the store '{self._settings.path}' cannot be listed: {error.strerror}{where}{advice}"
            ) from None
        raise StoreUnavailable(f"the store '{self._settings.path}' was replaced again and again while it was listed")

    def _list_once(self, preferred: Mapping[str, str]) -> Listing | None:
        """Return a listing, or None when the root was replaced meanwhile: a part may come from another directory."""
        root = os.path.realpath(self._path, strict=True)
        root_fd = os.open(root, DIRECTORY)
        try:
            self._enter_root(root, _identity_of(os.fstat(root_fd)))
            self._doubt_some_models()
            now = _Pass(root_fd, preferred)
            lone_files = self._read_models(now)
            self._read_lone_files(now, lone_files)
        finally:
            os.close(root_fd)
        if _identity_of(os.stat(self._path)) != self._identity:
            return None
        if now.left_out:
            limit = f"store.max_models is {self._settings.max_models}"
            now.problems.append(f"{now.left_out} models left out: {limit}; raise it, or remove models")
        models = MappingProxyType(dict(sorted(now.models.items())))
        return Listing(models, _limit_problems(now.problems), self._identity)

    def _enter_root(self, root: str, identity: tuple[int, int]) -> None:
        """Remember the root, and forget everything about another one."""
        if root != self._rules.root or identity != self._identity:
            self._rules = Rules(root, self._names, int(self._settings.max_artifact_mb * (1 << 20)))
            self._identity = identity
            self._directories.clear()
            self._lone.clear()
            self._contents.clear()

    def _doubt_some_models(self) -> None:
        """Mark one version of a few models to be read again, each model in its turn."""
        readers = [*self._directories.values()]
        self._doubted = (self._doubted + _DOUBTED_MODELS) % max(1, len(readers))
        for reader in (readers + readers)[self._doubted : self._doubted + min(_DOUBTED_MODELS, len(readers))]:
            reader.doubt_one()

    def _read_models(self, now: _Pass) -> Mapping[str, Format]:
        """Read every model directory, and return the format of each lone file by its name."""
        directories = []
        lone_files: dict[str, Format] = {}
        with os.scandir(now.root_fd) as items:
            for item in items:
                if not self._names.exists(item.name):
                    continue
                if found := artefact_format(item.name) or self._format_by_content(now, item):
                    lone_files[item.name] = found
                elif item.is_dir(follow_symlinks=False) or item.is_symlink():
                    directories.append((item.name, item.is_symlink()))
                elif other := describe_other_file(item.name):
                    now.problems.append(f"{item.name!r} serves nothing: {other}")
        now.reserve([*(name for name, _ in directories), *map(artefact_stem, lone_files)])
        known, self._directories = self._directories, {}
        for name, is_link in sorted(directories):
            if self._may_be_read(now, name, name):
                self._read_model(now, name, is_link, known.get(name))
        return dict(sorted(lone_files.items()))

    def _format_by_content(self, now: _Pass, item: os.DirEntry[str]) -> Format | None:
        """Return the format of a file whose name does not show it. Unchanged files are not read again."""
        if not is_looked_into(item.name) or item.is_dir(follow_symlinks=False):
            return None
        before, format = self._contents.pop(item.name, (None, None))  # noqa: A001
        try:
            seen = look_up_name(self._rules.root, now.root_fd, self._rules.root, item.name)
            if seen.found is None:
                return None
            stamp = make_stamp(item.name, seen.found)
            if stamp != before:
                format = format_by_content(self._rules.root, self._rules.root, item.name, seen)  # noqa: A001
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return format  # an unreadable file keeps its last known format
        if self._now_ns() - stamp.ctime_ns > RACY_NS:
            self._contents[item.name] = (stamp, format)
        return format

    def _read_model(self, now: _Pass, model: str, is_link: bool, known: ModelDirectory | None) -> None:
        directory = os.path.join(self._rules.root, model)
        try:
            if is_link:
                directory = resolve(self._rules.root, directory)
            reader = known or ModelDirectory(self._rules, model, self._settings.max_versions, self._now_ns)
            reader.read(directory, now.preferred.get(model))
        except BadLink as error:
            now.problems.append(f"'{model}' {error}")
            return
        except OSError as error:
            if error.errno in VANISHED:
                return
            raise
        self._directories[model] = reader
        now.problems += reader.notes
        if reader.entries:
            now.add(model, model, reader.entries)

    def _read_lone_files(self, now: _Pass, files: Mapping[str, Format]) -> None:
        known, self._lone = self._lone, {}
        for name, format in files.items():  # noqa: A001
            model = artefact_stem(name)
            if not self._may_be_read(now, model, name):
                continue
            try:
                seen = look_up_name(self._rules.root, now.root_fd, self._rules.root, name)
            except OSError as error:
                if error.errno in VANISHED:
                    continue
                raise
            entry = replace(read_file(self._rules, Subject(model, "", name), name, seen, format), is_lone=True)
            if entry.problem is not None:
                now.problems.append(f"'{name}': {entry.problem}")
                continue
            entries = known.get(model, ())
            self._lone[model] = entries if entries == (entry,) else (entry,)
            now.add(model, name, self._lone[model])

    def _may_be_read(self, now: _Pass, model: str, name: str) -> bool:
        """Say whether `model` is a valid name that is still free; note the problem when it is not."""
        problem = why_not_a_name(model)
        reserved = now.reserved.get(model.lower(), model)
        taken = now.taken.get(model.lower(), None if reserved == model else reserved)
        if problem is None and taken is not None:
            problem = f"'{name}' is left out: '{taken}' is the same model; rename or remove one of them"
        elif problem is not None:
            problem = f"{problem}; rename {name[:120]!r}, for example to {usable_name(model)!r}"
        if problem is not None:
            now.problems.append(problem)
            return False
        if len(now.models) >= self._settings.max_models:
            now.left_out += 1
            return False
        return True


def _identity_of(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)


def _limit_problems(problems: Iterable[str]) -> tuple[str, ...]:
    lines = sorted(set(problems))
    if len(lines) > MAX_PROBLEMS:
        lines[MAX_PROBLEMS:] = [f"and {len(lines) - MAX_PROBLEMS} more"]
    return tuple(lines)

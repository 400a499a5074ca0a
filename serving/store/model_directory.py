"""Reads one model directory and its versions, again only where something changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field, replace

from serving.domain.listing import Entry
from serving.domain.version import order_key, usable_name, why_not_a_name
from serving.store.entries import (
    DIRECTORY,
    VANISHED,
    Look,
    Reading,
    Rules,
    Subject,
    look_up_name,
    make_unusable_entry,
    read_directory,
    read_file,
)
from serving.store.file_heads import EXHAUSTED, format_by_content, is_numbered
from serving.store.links import BadLink, resolve
from serving.store.names import artefact_format, artefact_stem, is_looked_into
from serving.store.other_files import describe_left_alone, describe_other_file, describe_unnumbered
from serving.store.removal_traces import Remains, read_remains

# A file that changes twice within one tick of its file system's clock keeps its ctime. So a file that was read less
# than this after a change is read again next time.
RACY_NS = 2_000_000_000

# The newest version is checked whole in every listing. Of older versions, the files beside the artefact are checked in
# every fourth listing only: they matter less soon, and would take half of all system calls.
THOROUGH_EVERY = 4

Stat = tuple[bytes, int, int, int]


@dataclass(slots=True, eq=False)
class _Slot:
    """One name in a model directory that may be a version, and what was last seen there.

    `stats` holds (path in the model directory, inode, size, ctime) of every file that was read, the version directory
    first, then the artefact; empty when the version must be read again each time. Paths are bytes: encoding one costs
    a tenth of the system call.
    """

    name: str
    version: str
    reading: Reading = field(default_factory=Reading)
    stats: tuple[Stat, ...] = ()


class ModelDirectory:
    """The versions of one model. One thread; blocks on the disk.

    `entries` is the same tuple, with the same Entry objects, until a version changes. While the preferred version is
    missing, every change in the directory makes a new tuple.
    """

    def __init__(self, rules: Rules, model: str, max_versions: int, now_ns: Callable[[], int]) -> None:
        self.entries: tuple[Entry, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._rules = rules
        self._model = model
        self._max_versions = max_versions
        self._now_ns = now_ns
        self._names: list[str] = []
        self._remains: Remains = ()
        self._preferred: str | None = None
        self._ctime_ns = 0
        self._slots: list[_Slot] = []
        self._plan_notes: list[str] = []
        self._no_models: list[Stat] | None = []  # files without a model by content; None: read each time
        self._doubted = 0
        self._listings = 0

    def doubt_one(self) -> None:
        """Mark one version to be read again next time, each in its turn, even if its stamps have not changed.

        Mounted object stores keep the ctime of a directory when files are added to it.
        """
        if self._slots:
            self._doubted = (self._doubted + 1) % len(self._slots)
            self._slots[self._doubted].stats = ()

    def read(self, directory: str, preferred: str | None = None) -> None:
        """Bring `entries` and `notes` up to date with `directory`, the model's real path.

        Where several names stand for one version, the `preferred` one is kept if it is there. Raises OSError when the
        model directory itself cannot be read.
        """
        directory_fd = os.open(directory, DIRECTORY)
        try:
            has_changed = self._plan_slots(directory_fd, directory, preferred)
            self._listings += 1
            for slot in _find_stale_slots(directory_fd, self._slots, self._listings):
                has_changed = self._reread_slot(directory_fd, directory, slot) or has_changed
            remains = self._read_remains(directory_fd, preferred)
        finally:
            os.close(directory_fd)
        if has_changed:
            self._assemble_entries()
        if self._remains != remains:
            self._remains = remains
            self.entries = (*self.entries,)  # an equal tuple, but a new object: the directory has changed

    def _read_remains(self, directory_fd: int, preferred: str | None) -> Remains:
        """Return the other files, but only while the preferred version is missing: this costs system calls."""
        versions = {slot.name: slot.version for slot in self._slots if slot.reading.entry is not None}
        if preferred is None or preferred in versions.values():
            return ()
        return read_remains(directory_fd, [name for name in self._names if name not in versions])

    def _plan_slots(self, directory_fd: int, directory: str, preferred: str | None) -> bool:
        """Decide which names are read, newest version first; return whether the choice may have changed."""
        found = os.fstat(directory_fd)
        names = os.listdir(directory_fd)
        is_same = names == self._names and found.st_ctime_ns == self._ctime_ns and preferred == self._preferred
        if is_same and self._no_models is not None and all(_is_unchanged(directory_fd, one) for one in self._no_models):
            return False
        self._preferred = preferred
        known = {slot.name: slot for slot in self._slots}
        self._plan_notes = []
        versions = self._find_versions(directory_fd, directory, known.keys())
        if len(versions) > self._max_versions:
            self._plan_notes.append(
                f"'{self._model}' has {len(versions)} versions; only the newest {self._max_versions} are seen"
            )
        self._slots = [known.get(name) or _Slot(name, version) for name, version in versions[: self._max_versions]]
        self._names = names
        self._ctime_ns = found.st_ctime_ns if self._is_settled(found.st_ctime_ns) else 0
        return True

    def _find_versions(self, directory_fd: int, directory: str, known: Set[str]) -> list[tuple[str, str]]:
        """Return (name, version) pairs, newest first. Among equal versions the one to keep comes first.

        `known` are the names that have been read as versions.
        """
        versions = []
        self._no_models = []
        with os.scandir(directory_fd) as items:
            for item in items:
                if not self._rules.names.exists(item.name):
                    continue
                is_artefact = artefact_format(item.name) is not None
                if is_looked_into(item.name) and not item.is_dir(follow_symlinks=False):
                    is_artefact = self._is_model_by_content(directory_fd, directory, item.name, known)
                    if is_artefact and not is_numbered(item.name):
                        self._plan_notes.append(f"{self._model + '/' + item.name!r} {describe_unnumbered(item.name)}")
                        continue
                version = artefact_stem(item.name) if is_artefact else item.name
                if version == item.name and item.is_file(follow_symlinks=False):
                    if other := describe_other_file(item.name):
                        self._plan_notes.append(f"{self._model + '/' + item.name!r} serves nothing: {other}")
                    continue
                problem = why_not_a_name(version)
                if problem is None:
                    versions.append((item.name, version))
                else:
                    better = f"rename {item.name[:120]!r}, for example to {usable_name(version)!r}"
                    self._plan_notes.append(f"in '{self._model}': {problem}; {better}")
        versions.sort(key=lambda pair: (pair[1] != self._preferred, len(pair[1]), pair[1], pair[0]))
        versions.sort(key=lambda pair: order_key(pair[1]), reverse=True)
        return versions

    def _is_model_by_content(self, directory_fd: int, directory: str, name: str, known: Set[str]) -> bool:
        """Say whether the first bytes of a file are those of a model. Other files are read again when they change."""
        try:
            seen = look_up_name(self._rules.root, directory_fd, directory, name)
            if format_by_content(self._rules.root, directory, name, seen) is not None:
                return True
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            self._no_models = None
            return name in known
        is_settled = seen.found is not None and not seen.is_link and self._is_settled(seen.found.st_ctime_ns)
        if seen.found is not None and is_settled and self._no_models is not None:
            own = seen.found
            self._no_models.append((os.fsencode(name), own.st_ino, own.st_size, own.st_ctime_ns))
        else:
            self._no_models = None  # read it again next time
        return False

    def _reread_slot(self, directory_fd: int, directory: str, slot: _Slot) -> bool:
        """Read one version again; return whether it has changed."""
        subject = Subject(self._model, slot.version, f"{self._model}/{slot.name}")
        before = slot.reading
        try:
            slot.reading, stats = self._read_name(directory_fd, directory, slot.name, subject)
            slot.stats = stats if stats and self._is_settled(*(ctime_ns for *_, ctime_ns in stats)) else ()
        except BadLink as error:
            slot.reading, slot.stats = Reading(make_unusable_entry(subject, f"'{slot.name}' {error}")), ()
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            is_gone = error.errno in VANISHED
            slot.reading = Reading(
                None if is_gone else make_unusable_entry(subject, f"cannot be read: {error.strerror}")
            )
            slot.stats = ()
        return slot.reading != before

    def _read_name(
        self, directory_fd: int, directory: str, name: str, subject: Subject
    ) -> tuple[Reading, tuple[Stat, ...]]:
        seen = look_up_name(self._rules.root, directory_fd, directory, name)
        is_told_by_content = is_looked_into(name) and seen.found is not None and not seen.is_directory
        if artefact_format(name) or is_told_by_content:
            format = artefact_format(name) or format_by_content(self._rules.root, directory, name, seen)  # noqa: A001
            if format is None:
                return Reading(), ()
            entry = read_file(self._rules, subject, name, seen, format)
            return Reading(entry), _list_stats("", entry)
        if seen.problem:
            return Reading(make_unusable_entry(subject, seen.problem)), ()
        if not seen.is_directory:
            return Reading(), ()
        return self._read_version(directory, name, subject, seen)

    def _read_version(
        self, directory: str, name: str, subject: Subject, seen: Look
    ) -> tuple[Reading, tuple[Stat, ...]]:
        real = os.path.join(directory, name)
        if seen.is_link:
            real = resolve(self._rules.root, real)
        version_fd = os.open(real, DIRECTORY)
        try:
            found = os.fstat(version_fd)  # before the names: a change in between is seen next time
            reading = read_directory(self._rules, subject, version_fd, real)
            if reading == Reading() and not os.listdir(version_fd):
                reading = Reading(note=f"'{subject.path}' is an empty directory")
        finally:
            os.close(version_fd)
        if reading.entry is None:
            return reading, ()
        own: Stat = (os.fsencode(name), found.st_ino, found.st_size, found.st_ctime_ns)
        return reading, (own, *_list_stats(name + "/", reading.entry))

    def _is_settled(self, *ctimes_ns: int) -> bool:
        return self._now_ns() - max(ctimes_ns) > RACY_NS

    def _assemble_entries(self) -> None:
        known = {entry.path: entry for entry in self.entries}
        firsts: dict[object, Entry] = {}
        entries = []
        for slot in self._slots:
            entry = slot.reading.entry
            if entry is None:
                continue
            first = firsts.setdefault(order_key(slot.version), entry)
            if first is not entry:
                entry = replace(entry, problem=_why_not_second(entry, first))
            before = known.get(entry.path)
            entries.append(before if before == entry and before is not None else entry)
        if self.entries != tuple(entries):
            self.entries = tuple(entries)
        notes = [*self._plan_notes, *(slot.reading.note for slot in self._slots if slot.reading.note)]
        if not entries and not notes:
            left_alone = describe_left_alone(sorted(name for name in self._names if not self._rules.names.exists(name)))
            if left_alone or not self._names:
                notes = ["; ".join(filter(None, [f"'{self._model}' holds no version yet", left_alone]))]
        self.notes = tuple(notes)


def _find_stale_slots(directory_fd: int, slots: Iterable[_Slot], listing: int) -> Iterator[_Slot]:
    """Yield the slots that must be read again. The hot path of a resync: one lstat for each name that is looked at.

    The ctime moves with every write, also in place, and with every new name in a directory; inode and size are for file
    systems with an unreliable ctime. A file behind a link never matches what lstat finds, so it is read again each
    time: the link may lead elsewhere now, and nothing here would show it.
    """
    lstat = os.lstat
    for position, slot in enumerate(slots):
        is_thorough = position == 0 or (position + listing) % THOROUGH_EVERY == 0
        try:
            for path, inode, size, ctime_ns in slot.stats if is_thorough else slot.stats[:2]:
                found = lstat(path, dir_fd=directory_fd)
                if found.st_ctime_ns != ctime_ns or found.st_ino != inode or found.st_size != size:
                    yield slot
                    break
            else:
                if not slot.stats:
                    yield slot
        except OSError:
            yield slot


def _is_unchanged(directory_fd: int, known: Stat) -> bool:
    path, inode, size, ctime_ns = known
    try:
        found = os.lstat(path, dir_fd=directory_fd)
    except OSError:
        return False
    return found.st_ctime_ns == ctime_ns and found.st_ino == inode and found.st_size == size


def _list_stats(prefix: str, entry: Entry) -> tuple[Stat, ...]:
    stamps = sorted(entry.fingerprint, key=lambda stamp: stamp.name != entry.main)
    return tuple((os.fsencode(prefix + stamp.name), stamp.inode, stamp.size, stamp.ctime_ns) for stamp in stamps)


def _why_not_second(entry: Entry, first: Entry) -> str:
    if entry.version == first.version:
        return f"'{first.path}' is the same version; remove one of them"
    return f"'{first.path}' is the same version: '{entry.version}' and '{first.version}' are equal; rename one of them"

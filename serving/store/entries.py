"""Reads one version from disk: turns a version directory or a single file into an Entry."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from serving.domain.first_bytes import format_of, is_other_json
from serving.domain.listing import Entry, FileStamp
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.version import Format
from serving.store.file_heads import read_head
from serving.store.links import BadLink, resolve
from serving.store.names import Names, artefact_format, format_in_version, is_looked_into
from serving.store.other_files import describe_left_alone, describe_other_file

MAX_FILES = 1000
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # ELOOP: a link now, where there was none

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for a whole store: its real path, the names that count, the most bytes of a version."""

    root: str
    names: Names
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Subject:
    """The version that is being read; `path` is relative to the root, as listed."""

    model: str
    version: str
    path: str


@dataclass(frozen=True, slots=True)
class Look:
    """What one name stands for: `found` describes the file itself, behind links; None when the link is bad."""

    found: os.stat_result | None
    is_link: bool = False
    problem: str | None = None

    @property
    def is_directory(self) -> bool:
        """True for a directory and for a good link to one."""
        return self.found is not None and stat.S_ISDIR(self.found.st_mode)


@dataclass(frozen=True, slots=True)
class Reading:
    """A version as read. Without an entry there is no version yet; `note` may then tell the operator why."""

    entry: Entry | None = None
    note: str | None = None


def look_up_name(root: str, directory_fd: int, directory: str, name: str) -> Look:
    """Return what `name` in a directory stands for, without opening the file; raises OSError when it is gone.

    `directory` is the real path of `directory_fd`.
    """
    found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        return Look(found)
    try:
        return Look(os.stat(resolve(root, os.path.join(directory, name)), follow_symlinks=False), is_link=True)
    except BadLink as error:
        return Look(None, is_link=True, problem=f"{name!r} {error}")


def make_stamp(name: str, found: os.stat_result) -> FileStamp:
    """Return the stamp of the file called `name` in its version."""
    return FileStamp(name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_file(rules: Rules, subject: Subject, name: str, seen: Look, format: Format | None) -> Entry:  # noqa: A002
    """Return the Entry of a single or lone file; `format` is what its name or its content shows."""
    problem = _why_unusable(name, seen)
    stamps = (make_stamp(name, seen.found),) if seen.found is not None and problem is None else ()
    problem = problem or _why_too_large(rules, stamps)
    return Entry(subject.model, subject.version, subject.path, name, format, stamps, problem=problem)


def read_directory(rules: Rules, subject: Subject, directory_fd: int, directory: str) -> Reading:
    """Read a version directory; raises OSError when it cannot be read. `directory` is its real path."""
    everything = sorted(os.listdir(directory_fd))
    names = [name for name in everything if rules.names.exists(name)]
    if len(names) > MAX_FILES:
        return Reading(make_unusable_entry(subject, f"holds {len(names)} files; a version has at most {MAX_FILES}"))
    looks = list(_look_up_names(rules, directory_fd, directory, names))
    files = [(name, seen) for name, seen in looks if not seen.is_directory]
    formats = _find_artefacts(rules, directory, files)
    artefacts = sorted(formats)
    if not artefacts:
        is_told = any(not name.startswith(".") for name in everything)
        return Reading(note=_why_empty(subject, everything, looks) if is_told else None)
    problems = [problem for name, seen in files if (problem := _why_unusable(name, seen))]
    stamps = tuple(make_stamp(name, seen.found) for name, seen in files if seen.found and not _why_unusable(name, seen))
    if len(artefacts) > 1:
        problems.insert(0, f"holds {len(artefacts)} artefacts, {_join_names(artefacts)}; a version has exactly one")
    too_large = _why_too_large(rules, stamps)
    entry = Entry(
        subject.model,
        subject.version,
        subject.path,
        artefacts[0],
        formats[artefacts[0]],
        stamps,
        has_manifest=any(stamp.name == MANIFEST_NAME for stamp in stamps),
        problem="; ".join([*problems[:3], *([too_large] if too_large else [])]) or None,
    )
    return Reading(entry)


def _find_artefacts(rules: Rules, directory: str, files: Sequence[tuple[str, Look]]) -> dict[str, Format]:
    """Return the artefacts of a version directory with their formats, known by the name or by the first bytes.

    JSON without a model is no artefact when the directory holds another one. A pickle whose name does not show that it
    is a model may be a part of one, so it is an artefact only when the directory holds no other.
    """
    named = {name: kind for name, _ in files if (kind := artefact_format(name))}
    heads = {
        name: read_head(rules.root, directory, name, seen)
        for name, seen in files
        if name not in named and is_looked_into(name)
    }
    told = {name: kind for name, head in heads.items() if (kind := format_of(head))}
    models = {name: kind for name, kind in told.items() if kind is not Format.PICKLE}
    whole_names = {name: kind for name in heads.keys() - told.keys() if (kind := format_in_version(name))}
    likely = {name: kind for name, kind in whole_names.items() if not is_other_json(heads[name])}
    return named | models | likely or whole_names or told


def _why_empty(subject: Subject, names: Sequence[str], looks: Sequence[tuple[str, Look]]) -> str:
    """Say that a version directory holds no artefact, and describe the names in it that look like one."""
    files = [name for name, seen in looks if not seen.is_directory]
    others = [f"{name!r}: {other}" for name in files if (other := describe_other_file(name))]
    others += [f"{name!r} is a directory; files lie at MODEL/VERSION/FILE" for name, seen in looks if seen.is_directory]
    left_alone = describe_left_alone([name for name in names if name not in dict(looks)])
    return "; ".join([f"'{subject.path}' holds no artefact yet", *others[:3], *([left_alone] if left_alone else [])])


def make_unusable_entry(subject: Subject, problem: str) -> Entry:
    """Return an Entry that says only why the version cannot be used."""
    return Entry(subject.model, subject.version, subject.path, "", None, (), problem=problem)


def _look_up_names(rules: Rules, directory_fd: int, directory: str, names: Iterable[str]) -> Iterator[tuple[str, Look]]:
    for name in names:
        try:
            yield name, look_up_name(rules.root, directory_fd, directory, name)
        except OSError as error:
            if error.errno not in VANISHED:
                raise


def _why_unusable(name: str, seen: Look) -> str | None:
    if not name.isprintable():
        return f"{name!r} has characters that cannot be printed; rename it"
    if seen.found is None or stat.S_ISREG(seen.found.st_mode):
        return seen.problem
    kind = _SPECIAL.get(stat.S_IFMT(seen.found.st_mode), "something else")
    return f"{name!r} is {kind}; only regular files are read"


def _why_too_large(rules: Rules, stamps: Sequence[FileStamp]) -> str | None:
    size = sum(stamp.size for stamp in stamps)
    if size <= rules.max_bytes:
        return None
    return f"is {size / (1 << 20):,.1f} MB; store.max_artifact_mb allows {rules.max_bytes / (1 << 20):,.1f}"


def _join_names(names: Sequence[str]) -> str:
    head = ", ".join(repr(name) for name in names[:3])
    return head + (f" and {len(names) - 3} more" if len(names) > 3 else "")

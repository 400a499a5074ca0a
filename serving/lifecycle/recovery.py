"""Opens the state, or the best replacement: the database, its last good copy, or an empty one.

A damaged file is kept aside under another name, so that people can look at it. A file that cannot be read at all, or
that a later release has written, is neither replaced nor kept aside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import structlog

from serving.domain.errors import StateUnavailable
from serving.failpoints import reach
from serving.lifecycle.database import Database, StateDamaged, StateTooNew, create, decisions_of, may_exist, wal_of
from serving.store.durable import sync_directory

MAX_SET_ASIDE = 3
_UNUSABLE = -1
_BESIDE = ("", "-journal", "-wal", "-shm")  # what SQLite may have of one database

log = structlog.get_logger("serving.history")


class Found(Enum):
    """Which database has been opened."""

    WHOLE = "the database as it was, or a first one"
    RESTORED = "its last good copy"
    LOST = "an empty one"


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found; `reason` is one line for operators, unless all was well. `has_copy`: one with all decisions."""

    found: Found
    has_copy: bool
    reason: str | None = None


def open_best(database: Database, *, was_used: bool, is_remembered: bool = False) -> Opened:
    """Open `database` as it is, or its copy in its place, or a new one; returns which. Blocks.

    `was_used` says that there has been a database before. Then a new one replaces a lost one, and records that (see
    `StandingDecisions.held`), unless all decisions are still in memory. Raises StateTooNew, and StateUnavailable if
    neither the file nor a replacement can be used.
    """
    copied = _decisions_of_copy(database.path)
    try:
        was_used = was_used or copied is not None
        if was_used and not database.exists:
            raise StateDamaged(f"{database.path.name} is gone")
        database.open(may_be_unsealed=not was_used)
        if copied is not None and database.decisions < copied:
            raise StateDamaged(f"{database.path.name} lacks decisions that its copy has")
        return Opened(Found.WHOLE, copied == database.decisions)
    except StateDamaged as error:
        database.close()
        reason = str(error)
    if copied is not None and copied != _UNUSABLE:
        try:
            return _restore(database, reason)
        except StateDamaged:  # since it was looked at
            database.close()
    held = None if is_remembered else f"{reason}, and there is no good copy of it: pins and quarantines are lost"
    unusable_copy = [_copy_of(database.path)] if copied == _UNUSABLE else []
    _put_in_place(database.path, lambda new: create(new, held), *unusable_copy)
    database.open()
    log.error("state_lost", reason=reason)
    return Opened(Found.LOST, has_copy=False, reason=held or f"{reason}: it was written anew from memory")


def may_hold_decisions(path: Path) -> bool:
    """Whether the database at `path` or its copy may hold decisions: one of them exists, or that is not known."""
    return may_exist(path) or may_exist(_copy_of(path))


def refresh_copy(database: Database) -> None:
    """Replace the last good copy by one of the present state, in one step; raises StateUnavailable. Blocks.

    An old copy could undo a later decision. So if no new copy can be written, the old one is removed.
    """
    path = _copy_of(database.path)
    try:
        with _new_file(path) as new:
            database.copy_to(new)
            reach("state-copy")
            new.replace(path)
        sync_directory(path.parent)
    except (StateUnavailable, OSError) as error:
        with contextlib.suppress(OSError):
            path.unlink()
        reason = error if isinstance(error, StateUnavailable) else f"{path.name} cannot be written: {error.strerror}"
        raise StateUnavailable(str(reason)) from None


def _copy_of(path: Path) -> Path:
    return path.with_name(path.name + ".copy")


def _decisions_of_copy(path: Path) -> int | None:
    """Return how many decisions the copy of `path` holds, None without one, -1 when it cannot be used."""
    copy = _copy_of(path)
    if not may_exist(copy):
        return None
    try:
        return decisions_of(copy)
    except StateTooNew:
        raise
    except StateUnavailable as error:
        log.warning("state_copy_unusable", reason=str(error))
        return _UNUSABLE


def _restore(database: Database, reason: str) -> Opened:
    copy = _copy_of(database.path)
    taken_at = datetime.fromtimestamp(copy.stat().st_mtime, UTC).isoformat(timespec="seconds")
    _put_in_place(database.path, lambda new: shutil.copyfile(copy, new))
    database.open()
    log.error("state_restored", reason=reason, copy_of=taken_at)
    return Opened(Found.RESTORED, has_copy=True, reason=f"{reason}: it was replaced by its copy of {taken_at}")


def _put_in_place(path: Path, make: Callable[[Path], object], *others: Path) -> None:
    """Let `make` write a new file, keep the files at `path` and at `others` aside, and put the new one at `path`.

    Raises StateUnavailable. Where the file system has hard links, there is a file at `path` at every moment: after a
    kill in between, the next start does the same again.
    """
    try:
        with _new_file(path) as new:
            make(new)
            with new.open("rb") as file:
                os.fsync(file.fileno())
            for damaged in (path, *others):
                _keep_aside(damaged)
            reach("state-replaced")
            new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StateUnavailable(f"{path.name} cannot be replaced: {error.strerror}") from None


def _keep_aside(path: Path) -> None:
    """Keep the file at `path` under another name, too (the last few only), and remove SQLite's files beside it."""
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    aside = path.with_name(name)
    try:
        os.link(path, aside, follow_symlinks=False)
    except FileNotFoundError:
        pass
    except OSError:  # a file system without hard links
        path.rename(aside)
    with contextlib.suppress(FileNotFoundError):
        wal_of(path).rename(wal_of(aside))
    for beside in _BESIDE[1:]:
        path.with_name(path.name + beside).unlink(missing_ok=True)
    kept = {file.name.removesuffix("-wal") for file in path.parent.glob(f"{path.name}.damaged-*")}
    for old in sorted(kept)[:-MAX_SET_ASIDE]:
        _remove(path.with_name(old))


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yield the name of a new file beside `path`; if it is still there at the end, it is removed."""
    new = path.with_name(path.name + ".new")
    _remove(new)
    try:
        yield new
    finally:
        with contextlib.suppress(OSError):
            _remove(new)


def _remove(path: Path) -> None:
    for beside in _BESIDE:
        path.with_name(path.name + beside).unlink(missing_ok=True)

"""The SQLite file behind the history: opens it, checks that it is whole, updates its schema, and copies it.

Three problems have errors of their own: a damaged file, a file that cannot be used at present, and a file that a later
release has written. Only a damaged file may be replaced.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from serving.domain.errors import StateUnavailable
from serving.failpoints import reach
from serving.lifecycle.migrations import SCHEMA_VERSION, list_tables, migrate, read_tables, read_version
from serving.lifecycle.seal import count_sealed, seal_decision

BUSY_SECONDS = 5.0

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_UNSEALED = 0  # the version of files from before there were versions and seals
_VERSION_AT = 60  # of user_version in the header: https://sqlite.org/fileformat2.html
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Statement = tuple[str, Sequence[Any]]


class StateDamaged(StateUnavailable):
    """The file is damaged: it does not hold what was written."""


class StateTooNew(StateUnavailable):
    """The file was written by a later release: this one does not touch it."""


class Database:
    """One writing connection, for one thread at a time. Every method raises StateUnavailable when SQLite does.

    `decisions` counts the operators' decisions that the file holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decisions = 0
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether anything is there, or may be; a file without a byte is nothing."""
        return may_exist(self.path) and not (_is_empty(self.path) and _is_empty(wal_of(self.path)))

    def open(self, *, may_be_unsealed: bool = True) -> None:
        """Open or create the file in WAL mode, check that it is whole, and bring its schema up to date. Blocks.

        `may_be_unsealed` allows a file of a release from before there were seals; it is sealed then. Raises
        StateTooNew before anything is written, StateDamaged, or StateUnavailable when it cannot be checked.
        """
        if self.exists:
            _check_header(self.path)
            with _explained(self.path, "read"), closing(_connect_to_read(self.path)) as connection:
                version = _refuse_newer(self.path, connection)
            if version == _UNSEALED and not may_be_unsealed:
                raise StateDamaged(f"{self.path.name} holds nothing of what was written")
        try:
            with _explained(self.path, "used"):
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._connection = _connect(self.path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                _bring_up_to_date(self.path, self._connection)
                self.decisions = _check(self.path, self._connection)
        except StateUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; safe when it never opened."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(sqlite3.Error):  # of a damaged file
                connection.close()

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of `query`."""
        with _explained(self.path, "read"):
            return list(self._opened().execute(query))

    def write(self, statements: Iterable[Statement], *, is_decision: bool = False) -> None:
        """Run statements in one transaction.

        An operator's decision is sealed, and on the disk when this returns; otherwise a power cut may lose what was
        written, but never half of it.
        """
        with _explained(self.path, "written"):
            connection = self._opened()
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_decision else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    connection.execute(statement, values)
                decisions = seal_decision(connection) if is_decision else self.decisions
                reach("state-write")
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self.decisions = decisions

    def copy_to(self, path: Path) -> None:
        """Write a copy to a new file, check that it is whole, and make it durable. Blocks."""
        ends_at = time.monotonic() + BUSY_SECONDS

        def give_up(status: int, *_: int) -> None:  # SQLite would wait for ever for a process that holds the file
            if status in _BUSY and time.monotonic() > ends_at:
                raise sqlite3.OperationalError("the database is locked")

        with _explained(path, "written"), closing(_connect(path)) as copy:
            self._opened().backup(copy, progress=give_up)
            # where the copy takes the place of the file, the numbers of entries that it lacks are given again
            copy.execute("DELETE FROM facts WHERE name = 'log'")
            copy.execute("PRAGMA journal_mode = DELETE")
            _check(path, copy)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StateUnavailable(f"{self.path.name} is not open")
        return self._connection


def create(path: Path, held: str | None = None) -> None:
    """Write a new, empty database to a new file, durably; `held` is why nothing may be activated from it."""
    with _explained(path, "written"), closing(_connect(path)) as connection:
        _bring_up_to_date(path, connection, held)


def decisions_of(path: Path) -> int:
    """Return how many decisions a whole file holds, without changing anything. Raises what `Database.open` raises."""
    _check_header(path)
    with _explained(path, "read"), closing(_connect_to_read(path)) as connection:
        _refuse_newer(path, connection)
        return _check(path, connection)


def may_exist(path: Path) -> bool:
    """Whether anything is at `path`; true also when that cannot be found out."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def wal_of(path: Path) -> Path:
    """Return the path of SQLite's write-ahead log: what it has not moved into the file yet."""
    return path.with_name(path.name + "-wal")


def read_once(path: Path, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run one query over a connection of its own, from any thread, beside the writer. Raises StateUnavailable."""
    with read_together(path) as ask:
        return ask(query, values)


@contextmanager
def read_together(path: Path) -> Iterator[Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]]:
    """Yield a function that runs queries on the file as it is now, whatever is written meanwhile; as `read_once`."""
    with _explained(path, "read"), closing(_connect_to_read(path)) as connection:
        connection.execute("BEGIN")
        yield lambda query, values: list(connection.execute(query, values))


def _check(path: Path, connection: sqlite3.Connection) -> int:
    """Return how many decisions a whole file of any known version holds.

    Raises StateDamaged or sqlite3.Error for any other file.
    """
    (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        raise StateDamaged(f"{path.name} is damaged: {' '.join(said.split())}")
    version = read_version(connection)
    if version <= _UNSEALED:
        raise StateDamaged(f"{path.name} is damaged: its version is gone")
    if missing := sorted(list_tables(version) - read_tables(connection)):
        raise StateDamaged(f"{path.name} is damaged: its table {missing[0]} is gone")
    decisions = count_sealed(connection)
    if decisions is None:
        raise StateDamaged(f"{path.name} is damaged: it does not hold the decisions that were written")
    return decisions


def _check_header(path: Path) -> None:
    """Raise the error that the first bytes of a file show. SQLite is not asked about a path that is not a file."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise StateUnavailable(f"{path.name} cannot be used: it is not a file")
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise StateDamaged(f"{path.name} is a link that leads nowhere") from None
    except OSError as error:
        raise StateUnavailable(f"{path.name} cannot be used: {error.strerror}") from None
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StateDamaged(f"{path.name} is no database")
    _refuse_version(path, int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4], "big", signed=True))


def _refuse_newer(path: Path, connection: sqlite3.Connection) -> int:
    version = read_version(connection)
    _refuse_version(path, version)
    return version


def _refuse_version(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise StateTooNew(
            f"{path} was written by a later release (its version is {version}, this release knows {SCHEMA_VERSION}): "
            "start that release, or give this one another state.path"
        )


def _bring_up_to_date(path: Path, connection: sqlite3.Connection, held: str | None = None) -> None:
    """Make the tables of a new file, or take the steps that an older one lacks: in one transaction, all or none.

    This seals an older file again, so it has to be whole before.
    """
    version = read_version(connection)
    if version == SCHEMA_VERSION:
        return
    if version > _UNSEALED:
        _check(path, connection)
    elif version < _UNSEALED or "facts" in read_tables(connection):
        raise StateDamaged(f"{path.name} is damaged: its version is gone")
    connection.execute("BEGIN IMMEDIATE")
    migrate(connection)
    if held is not None:
        connection.execute("INSERT INTO facts VALUES ('held', ?)", (held,))
    seal_decision(connection)
    connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.text_factory = _decode
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.text_factory = _decode
    return connection


def _decode(raw: bytes) -> str:
    return raw.decode(errors="replace")  # a damaged letter is a wrong value, not an exception


def _is_empty(path: Path) -> bool:
    """Whether there is nothing at the path, or an empty file. Other things, and unreadable ones, are not empty."""
    try:
        found = os.lstat(path)
    except OSError:
        return not may_exist(path)
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


@contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    """Raise an error of SQLite or of the disk as StateDamaged or StateUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise StateDamaged(f"{path.name} is damaged: {error}") from None
        raise StateUnavailable(f"{path.name} cannot be {verb}: {error}") from None
    except ValueError as error:  # names and numbers that are none, of which SQLite does not complain
        raise StateDamaged(f"{path.name} is damaged: {error}") from None
    except OSError as error:
        raise StateUnavailable(f"{path.name} cannot be {verb}: {error}") from None

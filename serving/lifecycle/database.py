"""The SQLite file behind the history: opening it, its tables, and what happens when it cannot be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from serving.domain.errors import StateUnavailable
from serving.failpoints import reach

BUSY_SECONDS = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transitions (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, model TEXT NOT NULL, version TEXT, digest TEXT, before TEXT, after TEXT,
    actor TEXT NOT NULL, event TEXT NOT NULL, reason TEXT, duration_seconds REAL);
CREATE INDEX IF NOT EXISTS transitions_by_model ON transitions (model, id);
CREATE TABLE IF NOT EXISTS pins (model TEXT PRIMARY KEY, version TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS unloaded (model TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS quarantine (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (model, version, digest));
CREATE TABLE IF NOT EXISTS refusals (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT NULL, basis TEXT NOT NULL,
    against TEXT, report TEXT NOT NULL, PRIMARY KEY (model, version, digest));
CREATE TABLE IF NOT EXISTS accepted (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (model, version));
CREATE TABLE IF NOT EXISTS lone (
    model TEXT NOT NULL, digest TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (model, digest));
CREATE TABLE IF NOT EXISTS active (model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contracts (
    model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL, signature TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signed (model TEXT PRIMARY KEY, provenance TEXT NOT NULL);
"""

Statement = tuple[str, Sequence[Any]]


class Database:
    """One writing connection, for the reconciler's thread. Every method raises StateUnavailable when SQLite does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or create the file in WAL mode. Blocks."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            self._connection = connection
        except (sqlite3.Error, OSError) as error:
            raise StateUnavailable(f"{self.path} cannot be used: {error}") from None

    def close(self) -> None:
        """Close the file; safe when it never opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return all rows of `query`."""
        try:
            return list(self._opened().execute(query))
        except sqlite3.Error as error:
            raise StateUnavailable(f"{self.path} cannot be read: {error}") from None

    def write(self, statements: Iterable[Statement], *, is_durable: bool = False) -> None:
        """Run statements in one transaction.

        With `is_durable` it is on the disk when this returns; otherwise a power cut may lose it, but never half of it.
        """
        try:
            connection = self._opened()
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    connection.execute(statement, values)
                reach("state-write")
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StateUnavailable(f"{self.path} cannot be written: {error}") from None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.open()
        assert self._connection is not None
        return self._connection


def read_once(path: Path, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run one query over a connection of its own, from any thread, beside the writer. Raises StateUnavailable."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        try:
            return list(connection.execute(query, values))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StateUnavailable(f"{path} cannot be read: {error}") from None

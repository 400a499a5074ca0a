"""The schema of the state's database, as the steps that lead from each version of it to the next.

A released step is never changed, because users have databases that it has made. A new version of the schema is a new
step at the end of `MIGRATIONS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import Final

from serving.failpoints import reach

_TABLES_OF_1 = {
    "transitions": "id INTEGER PRIMARY KEY, at TEXT NOT NULL, model TEXT NOT NULL, version TEXT, digest TEXT,"
    " before TEXT, after TEXT, actor TEXT NOT NULL, event TEXT NOT NULL, reason TEXT, duration_seconds REAL",
    "pins": "model TEXT PRIMARY KEY, version TEXT NOT NULL",
    "unloaded": "model TEXT PRIMARY KEY",
    "quarantine": "model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL,"
    " PRIMARY KEY (model, version, digest)",
    "refusals": "model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT NULL,"
    " basis TEXT NOT NULL, against TEXT, report TEXT NOT NULL, PRIMARY KEY (model, version, digest)",
    "accepted": "model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (model, version)",
    "lone": "model TEXT NOT NULL, digest TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (model, digest)",
    "active": "model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL",
    "contracts": "model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL, signature TEXT NOT NULL",
    "signed": "model TEXT PRIMARY KEY, provenance TEXT NOT NULL",
    "facts": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
}

Migration = Callable[[sqlite3.Connection], None]


def _make_tables_of_1(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file, or the missing ones of a file from before there were schema versions."""
    for name, columns in _TABLES_OF_1.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
    connection.execute("CREATE INDEX IF NOT EXISTS transitions_by_model ON transitions (model, id)")


def _add_rollouts(connection: sqlite3.Connection) -> None:
    """Add the table of rollouts, for version 2."""
    connection.execute("CREATE TABLE rollouts (model TEXT PRIMARY KEY, document TEXT NOT NULL)")


def _add_labels(connection: sqlite3.Connection) -> None:
    """Add the tables of what labels name, and of what they answered with last, for version 3."""
    key = "model TEXT NOT NULL, label TEXT NOT NULL, version TEXT NOT NULL"
    connection.execute(f"CREATE TABLE labels ({key}, PRIMARY KEY (model, label))")
    connection.execute(f"CREATE TABLE labelled ({key}, digest TEXT NOT NULL, PRIMARY KEY (model, label))")


# the first leads from version 0 to version 1
MIGRATIONS: Final[tuple[Migration, ...]] = (_make_tables_of_1, _add_rollouts, _add_labels)
SCHEMA_VERSION: Final = len(MIGRATIONS)


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version of a database's schema; 0 for a new file, and for one from before there were versions."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Take every step that a database lacks, inside the caller's transaction: all steps count, or none."""
    for version in range(read_version(connection), len(MIGRATIONS)):
        MIGRATIONS[version](connection)
        connection.execute(f"PRAGMA user_version = {version + 1}")
        reach("state-migrated")


@cache
def list_tables(version: int) -> frozenset[str]:
    """Return the names of the tables that a database of `version` has. Any thread."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for step in MIGRATIONS[:version]:
            step(connection)
        return read_tables(connection)


def read_tables(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of the tables in the database."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return frozenset(name for (name,) in names)

"""The seal on operators' decisions: a sum over their rows, and how many there have been.

SQLite finds torn pages, not a changed byte in a value. A file whose seal does not fit, or with a smaller count than its
copy, has lost decisions. The seal is not a signature: it protects from damage, not from people.
"""

from __future__ import annotations

import hashlib
import sqlite3

from serving.lifecycle.migrations import read_version

# what is sealed, and since which version of the schema
_SEALED = (
    (1, "SELECT model, version FROM pins ORDER BY 1, 2"),
    (1, "SELECT model FROM unloaded ORDER BY 1"),
    (1, "SELECT model, version, digest FROM quarantine ORDER BY 1, 2, 3"),
    (1, "SELECT name, value FROM facts WHERE name IN ('decisions', 'held') ORDER BY 1"),
    (3, "SELECT model, label, version FROM labels ORDER BY 1, 2, 3"),
)


def seal_decision(connection: sqlite3.Connection) -> int:
    """Count a decision and write the sum over all of them; returns the count. Inside of the caller's transaction."""
    row = connection.execute("SELECT value FROM facts WHERE name = 'decisions'").fetchone()
    decisions = int(row[0]) + 1 if row else 1
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('decisions', ?)", (str(decisions),))
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('seal', ?)", (_compute_sum(connection),))
    return decisions


def count_sealed(connection: sqlite3.Connection) -> int | None:
    """Return how many decisions have been sealed; None when the seal does not fit what is there."""
    facts = dict(connection.execute("SELECT name, value FROM facts"))
    decisions = str(facts.get("decisions"))
    return int(decisions) if facts.get("seal") == _compute_sum(connection) and decisions.isdecimal() else None


def _compute_sum(connection: sqlite3.Connection) -> str:
    version = read_version(connection)
    rows = [connection.execute(query).fetchall() for since, query in _SEALED if since <= version]
    return hashlib.sha256(repr(rows).encode()).hexdigest()

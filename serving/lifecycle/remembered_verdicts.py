"""Verdicts that are kept over restarts: what the gates refused, and what they accepted under a manifest."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from serving.domain.report import CandidateReport
from serving.domain.version import VersionId
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.state_file import StateFile


@dataclass(frozen=True, slots=True)
class RememberedRefusal:
    """A verdict that holds until the bytes change, or the libraries or settings by which they were judged.

    `basis` names these library versions and settings. `against` is the digest of the active version that it was
    compared with, for refusals by the gates `contract` and `replay`, and of reissues. For
    refusals by the gate `environment` it names the environments there were (see `EnvironmentWatch`). None if the
    verdict depends on nothing else.
    """

    at: datetime
    basis: str
    against: str | None
    report: CandidateReport


class RememberedVerdicts:
    """Verdicts on versions. For one thread; `basis` names what verdicts depend on besides the bytes.

    `refusals` are by version and not by bytes: a copy may be refused for its name alone. `accepted` maps (model,
    version) to the digest that was accepted: a version with a manifest may not change any more.
    """

    def __init__(self, file: StateFile, basis: str) -> None:
        self.refusals: dict[VersionId, RememberedRefusal] = {}
        self.accepted: dict[tuple[str, str], str] = {}
        self._file = file
        self._basis = basis

    def find_refusals(self, model: str, version: str, digest: str | None) -> list[VersionId]:
        """Return the refusals of these bytes; while they are not known yet, of any bytes with this name."""
        if digest is None:
            return [one for one in self.refusals if (one.model, one.version) == (model, version)]
        known = VersionId(model, version, digest)
        return [known] if known in self.refusals else []

    def note_refusal(self, id: VersionId, report: CandidateReport, against: str | None) -> None:
        """Remember that these bytes were refused."""
        refusal = RememberedRefusal(datetime.now(UTC), self._basis, against, report)
        self.refusals[id] = refusal
        self._file.write_later(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(id.model, id.version, id.digest, refusal.at.isoformat(), self._basis, against, report.model_dump_json()),
        )

    def note_accepted(self, id: VersionId) -> None:
        """Remember under which digest a version with a manifest was accepted."""
        if self.accepted.get((id.model, id.version)) != id.digest:
            self.accepted[id.model, id.version] = id.digest
            self._file.write_later(
                "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)", *(id.model, id.version, id.digest)
            )

    def forget_refusals(self, ids: Iterable[VersionId]) -> None:
        """Forget refusals that the database does not hold any more (see `make_delete_statement`)."""
        for id in ids:
            del self.refusals[id]

    def read_from(self, database: Database) -> None:
        """Read verdicts from the database; raises StateUnavailable.

        Newer verdicts in memory stay. Refusals on another basis, and rows that this release cannot read, are ignored.
        """
        accepted = database.read("SELECT model, version, digest FROM accepted")
        self.accepted = {(model, version): digest for model, version, digest in accepted} | self.accepted
        refusals = database.read("SELECT model, version, digest, at, basis, against, report FROM refusals")
        for model, version, digest, at, basis, against, report in refusals:
            if basis != self._basis:
                continue  # other libraries or settings: it deserves another look
            with suppress(ValidationError, ValueError, TypeError):
                parsed = CandidateReport.model_validate_json(report)
                refusal = RememberedRefusal(datetime.fromisoformat(at), basis, against, parsed)
                self.refusals.setdefault(VersionId(model, version, digest), refusal)

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write this to an empty database, except refusals, which can be made again."""
        insert = "INSERT INTO accepted VALUES (?, ?, ?)"
        return [(insert, (*version, digest)) for version, digest in self.accepted.items()]


def make_delete_statement(id: VersionId) -> Statement:
    """Return the statement that removes one refusal from the database."""
    return "DELETE FROM refusals WHERE model = ? AND version = ? AND digest = ?", (id.model, id.version, id.digest)

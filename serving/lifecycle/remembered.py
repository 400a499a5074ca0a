"""What is in memory of the state: read from the database when that opens, and what everything is decided from."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.version import VersionId
from serving.lifecycle.database import Database, Statement


@dataclass(frozen=True, slots=True)
class RememberedRefusal:
    """A verdict that stands until the bytes, or what they were judged by, change.

    `basis` names the library versions and settings it was reached under. `against` is the digest of the active version
    it was compared with, for refusals by the contract gate and of replays; None when it depends on nothing else.
    """

    at: datetime
    basis: str
    against: str | None
    report: CandidateReport


@dataclass(frozen=True, slots=True)
class RememberedContract:
    """What clients of a model rely on: the signature of the version that was active last."""

    version: str
    digest: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class KnownStore:
    """The store that held models last: its path, as it is set, and the number of its device."""

    path: str
    device: int


@dataclass
class Remembered:
    """Operators' decisions (`pins`, `unloaded`, `quarantine`) and what has been learnt. For one thread.

    `held` says why nothing may be activated but what was active: decisions have been lost, and no operator has
    accepted that yet.
    """

    pins: dict[str, str] = field(default_factory=dict)
    unloaded: set[str] = field(default_factory=set)
    quarantine: set[tuple[str, str, str]] = field(default_factory=set)
    held: str | None = None
    store: KnownStore | None = None
    refusals: dict[VersionId, RememberedRefusal] = field(
        default_factory=dict
    )  # a copy may be refused for its name alone
    accepted: dict[tuple[str, str], str] = field(default_factory=dict)
    lone: dict[tuple[str, str], str] = field(default_factory=dict)
    active: dict[str, tuple[str, str]] = field(default_factory=dict)
    provenance: dict[str, Provenance] = field(default_factory=dict)
    contracts: dict[str, RememberedContract] = field(default_factory=dict)

    def is_quarantined(self, model: str, version: str, digest: str | None) -> bool:
        """Whether these bytes are in quarantine; where they are not known yet, whether any are under this name."""
        if digest is not None:
            return (model, version, digest) in self.quarantine
        return any(key[:2] == (model, version) for key in self.quarantine)

    def refusals_of(self, model: str, version: str, digest: str | None) -> list[VersionId]:
        """Return the verdicts over these bytes; where they are not known yet, over any that had this name."""
        if digest is None:
            return [one for one in self.refusals if (one.model, one.version) == (model, version)]
        known = VersionId(model, version, digest)
        return [known] if known in self.refusals else []

    def read_from(self, database: Database, basis: str) -> None:
        """Take in what the database holds; raises StateUnavailable.

        What has been learnt while it could not be read counts for more than what is in it. Verdicts reached on another
        basis do not count, nor does what this release cannot read.
        """
        read = database.read
        self.pins = dict(read("SELECT model, version FROM pins"))
        self.unloaded = {model for (model,) in read("SELECT model FROM unloaded")}
        self.quarantine = set(read("SELECT model, version, digest FROM quarantine"))
        facts = dict(read("SELECT name, value FROM facts"))
        self.held = facts.get("held")
        with suppress(KeyError, ValueError, TypeError):
            self.store = self.store or KnownStore(*json.loads(facts["store"]))
        self.accepted = {(m, v): d for m, v, d in read("SELECT model, version, digest FROM accepted")} | self.accepted
        self.lone = {(m, d): v for m, d, v in read("SELECT model, digest, version FROM lone")} | self.lone
        self.active = {m: (v, d) for m, v, d in read("SELECT model, version, digest FROM active")} | self.active
        for model, provenance in read("SELECT model, provenance FROM signed"):
            with suppress(ValidationError):
                self.provenance.setdefault(model, Provenance.model_validate_json(provenance))
        for model, version, digest, signature in read("SELECT model, version, digest, signature FROM contracts"):
            with suppress(ValidationError):
                contract = RememberedContract(version, digest, Signature.model_validate_json(signature))
                self.contracts.setdefault(model, contract)
        for model, version, digest, at, reached_on, against, report in read("SELECT * FROM refusals"):
            if reached_on != basis:
                continue  # other libraries or settings: it deserves another look
            with suppress(ValidationError, ValueError, TypeError):
                parsed = CandidateReport.model_validate_json(report)
                refusal = RememberedRefusal(datetime.fromisoformat(at), reached_on, against, parsed)
                self.refusals.setdefault(VersionId(model, version, digest), refusal)

    def rows(self) -> list[Statement]:
        """Return what puts all of this into an empty database, but for the verdicts, which can be reached again."""
        rows: list[Statement] = [("INSERT INTO pins VALUES (?, ?)", row) for row in self.pins.items()]
        rows += [("INSERT INTO unloaded VALUES (?)", (model,)) for model in self.unloaded]
        rows += [("INSERT INTO quarantine VALUES (?, ?, ?)", row) for row in self.quarantine]
        rows += [("INSERT INTO accepted VALUES (?, ?, ?)", (*key, digest)) for key, digest in self.accepted.items()]
        rows += [("INSERT INTO lone VALUES (?, ?, ?)", (*key, version)) for key, version in self.lone.items()]
        rows += [("INSERT INTO active VALUES (?, ?, ?)", (model, *row)) for model, row in self.active.items()]
        for model, one in self.contracts.items():
            values = (model, one.version, one.digest, one.signature.model_dump_json())
            rows.append(("INSERT INTO contracts VALUES (?, ?, ?, ?)", values))
        for model, provenance in self.provenance.items():
            rows.append(("INSERT INTO signed VALUES (?, ?)", (model, provenance.model_dump_json())))
        return rows

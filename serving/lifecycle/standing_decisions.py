"""Operators' decisions in force: pins, unloaded models, versions in quarantine, labels. Each is on disk before it
counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.domain.errors import StateUnavailable
from serving.domain.version import VersionId
from serving.lifecycle.active_names import ActiveNames
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.remembered_verdicts import RememberedVerdicts, make_delete_statement
from serving.lifecycle.state_file import StateFile


class StandingDecisions:
    """What operators have decided. For one thread.

    `pins` maps models to versions, `labels` (model, label) to versions. `quarantine` holds (model, version, digest).
    `held` says why only versions that were active may be activated: decisions have been lost, and no operator has
    accepted that yet. Every method that changes something blocks until it is on the disk, or raises StateUnavailable
    and changes nothing.
    """

    def __init__(self, file: StateFile, verdicts: RememberedVerdicts, names: ActiveNames) -> None:
        self.pins: dict[str, str] = {}
        self.unloaded: set[str] = set()
        self.quarantine: set[tuple[str, str, str]] = set()
        self.labels: dict[tuple[str, str], str] = {}
        self.held: str | None = None
        self._file = file
        self._verdicts = verdicts
        self._names = names

    @property
    def held_problem(self) -> str | None:
        """What an operator should know about lost decisions, and what can be done; None if none are lost."""
        if self.held is not None and self._file.is_open:
            return f"{self.held}; 'serving accept-state-loss' goes on without them"
        return self.held

    def is_quarantined(self, model: str, version: str, digest: str | None) -> bool:
        """Whether these bytes are in quarantine; while they are not known yet, whether any of this name are."""
        if digest is not None:
            return (model, version, digest) in self.quarantine
        return any(key[:2] == (model, version) for key in self.quarantine)

    def labels_of(self, model: str) -> Mapping[str, str]:
        """Return the version that each label of a model names."""
        return {label: version for (owner, label), version in self.labels.items() if owner == model}

    def set_label(self, model: str, label: str, version: str) -> None:
        """Let a label name a version."""
        row = (model, label, version)
        self._file.write_decision([("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", row)])
        self.labels[model, label] = version

    def remove_label(self, model: str, label: str) -> None:
        """Forget a label, and what it answered with."""
        forget = [f"DELETE FROM {table} WHERE model = ? AND label = ?" for table in ("labels", "labelled")]  # noqa: S608
        self._file.write_decision([(statement, (model, label)) for statement in forget])
        self.labels.pop((model, label), None)

    def pin(self, model: str, version: str) -> None:
        """Set the pin of a model."""
        self._file.write_decision([("INSERT OR REPLACE INTO pins VALUES (?, ?)", (model, version))])
        self.pins[model] = version

    def unpin(self, model: str) -> None:
        """Lift the pin of a model."""
        self._file.write_decision([("DELETE FROM pins WHERE model = ?", (model,))])
        self.pins.pop(model, None)

    def unload(self, model: str) -> None:
        """Keep every version of a model unloaded until `load`."""
        self._file.write_decision([("INSERT OR REPLACE INTO unloaded VALUES (?)", (model,))])
        self.unloaded.add(model)
        self._names.is_stale = True

    def load(self, model: str) -> None:
        """Let the model's versions be loaded again."""
        self._file.write_decision([("DELETE FROM unloaded WHERE model = ?", (model,))])
        self.unloaded.discard(model)

    def quarantine_version(self, id: VersionId) -> None:
        """Never serve these bytes again until they are released."""
        key = (id.model, id.version, id.digest)
        self._file.write_decision([("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", key)])
        self.quarantine.add(key)

    def quarantine_soon(self, id: VersionId) -> None:
        """Never serve these bytes again, also where that cannot be written now: then it is written later."""
        try:
            self.quarantine_version(id)
        except StateUnavailable:
            key = (id.model, id.version, id.digest)
            self._file.decide_later("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", *key)
            self.quarantine.add(key)

    def release(self, model: str, version: str, digest: str | None) -> None:
        """Lift the quarantine of a version and forget the verdict on `digest`.

        While the digest is not known yet, forget the verdicts on everything that had its name.
        """
        lift = ("DELETE FROM quarantine WHERE model = ? AND version = ?", (model, version))
        refusals = self._verdicts.find_refusals(model, version, digest)
        self._file.write_decision([lift, *(make_delete_statement(one) for one in refusals)])
        self.quarantine = {key for key in self.quarantine if key[:2] != (model, version)}
        self._verdicts.forget_refusals(refusals)

    def accept_loss(self) -> None:
        """Go on without the decisions that were lost."""
        self._file.write_decision([("DELETE FROM facts WHERE name = 'held'", ())])
        self.held = self._file.replacement = None

    def read_from(self, database: Database) -> None:
        """Read all decisions from the database; raises StateUnavailable. What is in quarantine already stays there."""
        self.pins = dict(database.read("SELECT model, version FROM pins"))
        self.unloaded = {model for (model,) in database.read("SELECT model FROM unloaded")}
        self.quarantine |= set(database.read("SELECT model, version, digest FROM quarantine"))
        labels = database.read("SELECT model, label, version FROM labels")
        self.labels = {(model, label): version for model, label, version in labels}
        held = database.read("SELECT value FROM facts WHERE name = 'held'")
        self.held = held[0][0] if held else None

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write all decisions to an empty database."""
        return [
            *(("INSERT INTO pins VALUES (?, ?)", row) for row in self.pins.items()),
            *(("INSERT INTO unloaded VALUES (?)", (model,)) for model in self.unloaded),
            *(("INSERT INTO quarantine VALUES (?, ?, ?)", row) for row in self.quarantine),
            *(("INSERT INTO labels VALUES (?, ?, ?)", (*key, version)) for key, version in self.labels.items()),
        ]

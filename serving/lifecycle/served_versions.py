"""What answered last for each model and each label: it does so again after a restart.

New versions are compared with what was active last.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from serving.domain.provenance import Provenance
from serving.domain.signature import Signature
from serving.domain.version import VersionId
from serving.lifecycle.active_names import ActiveNames
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.records import ModelRecord
from serving.lifecycle.state_file import StateFile


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

    def to_json(self) -> str:
        """Return the text that the database holds."""
        return json.dumps([self.path, self.device])


class ServedVersions:
    """By model: the version and digest that was active last, its contract, and who signed it. For one thread.

    `labelled` has the version and digest that each label of a model answered with last. `store` is the store they came
    from.
    """

    def __init__(self, file: StateFile, names: ActiveNames) -> None:
        self.active: dict[str, tuple[str, str]] = {}
        self.labelled: dict[str, dict[str, tuple[str, str]]] = {}
        self.contracts: dict[str, RememberedContract] = {}
        self.provenance: dict[str, Provenance] = {}
        self.store: KnownStore | None = None
        self._file = file
        self._names = names

    def find_contract(self, model: ModelRecord) -> RememberedContract | None:
        """Return the contract that newer versions of a model must keep.

        It is that of the active version, or of the one that was active last while the store still has it. Otherwise a
        version that the clients cannot use could become active after a restart, when nothing is active yet.
        """
        active = model.active
        if active is not None and active.report is not None and active.report.signature is not None:
            return RememberedContract(active.version, active.id.digest, active.report.signature)
        last = self.contracts.get(model.name)
        return last if active is None and last is not None and last.version in model.listed else None

    def note_active(self, id: VersionId, signature: Signature | None, provenance: Provenance | None) -> None:
        """Write the version that becomes active to disk, so that it answers after a restart. Blocks.

        Its signature is written for later versions, and its signers to recognise reissues.
        """
        self.active[id.model] = (id.version, id.digest)
        self._names.is_stale = True
        self._file.write_later("INSERT OR REPLACE INTO active VALUES (?, ?, ?)", id.model, id.version, id.digest)
        if signature is not None:
            self.contracts[id.model] = RememberedContract(id.version, id.digest, signature)
            values = (id.model, id.version, id.digest, signature.model_dump_json())
            self._file.write_later("INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?)", *values)
        if provenance is not None:
            self.provenance[id.model] = provenance
            signed = (id.model, provenance.model_dump_json())
            self._file.write_later("INSERT OR REPLACE INTO signed VALUES (?, ?)", *signed)
        elif self.provenance.pop(id.model, None) is not None:
            self._file.write_later("DELETE FROM signed WHERE model = ?", id.model)
        self._file.write()

    def note_labels(self, model: str, labels: Iterable[tuple[str, VersionId | None]]) -> None:
        """Write what answers for labels to disk, where that is something else than before. Blocks."""
        known = self.labelled.get(model, {})
        answering = {label: (id.version, id.digest) for label, id in labels if id is not None}
        changed = {label: id for label, id in answering.items() if known.get(label) != id}
        for label, id in changed.items():
            self.labelled.setdefault(model, {})[label] = id
            self._file.write_later("INSERT OR REPLACE INTO labelled VALUES (?, ?, ?, ?)", model, label, *id)
        if changed:
            self._file.write()

    def forget_label(self, model: str, label: str) -> None:
        """Forget what a label answered with; the decision that removes it has done so on disk."""
        self.labelled.get(model, {}).pop(label, None)

    def list_answers(self, model: str, labels: Container[str]) -> list[tuple[str | None, str, str]]:
        """Return what is to answer for a model after a restart: label, version and digest. No label: it was active."""
        active = [(None, *self.active[model])] if model in self.active else []
        labelled = [(label, *id) for label, id in self.labelled.get(model, {}).items() if label in labels]
        return [*active, *labelled]

    def list_digests(self) -> set[str]:
        """Return the digests of everything that is to answer after a restart."""
        labelled = [answered for labels in self.labelled.values() for answered in labels.values()]
        return {digest for _, digest in (*self.active.values(), *labelled)}

    def forget_active(self, model: str) -> None:
        """Forget what was active, and what labels answered with: the model's files are gone, and an operator has
        unloaded it; or they were in another store.
        """
        if self.labelled.pop(model, None):
            self._file.write_later("DELETE FROM labelled WHERE model = ?", model)
        if self.active.pop(model, None) is not None:
            self._names.is_stale = True
            self._file.write_later("DELETE FROM active WHERE model = ?", model)

    def note_store(self, store: KnownStore) -> None:
        """Note which store holds models. Versions that were active in a store at another path do not count here."""
        if self.store is not None and store.path != self.store.path:
            for model in {*self.active, *self.labelled}:
                self.forget_active(model)
        if store != self.store:
            self.store = store
            self._file.write_later("INSERT OR REPLACE INTO facts VALUES ('store', ?)", store.to_json())

    def take_names(self) -> None:
        """Take what was active from the file of names, if it is not known already. Blocks."""
        self.active = self._names.read() | self.active

    def keep_active(self) -> None:
        """Write what was active to the database, for all models that it lacks."""
        for model, (version, digest) in self.active.items():
            self._file.write_later("INSERT OR IGNORE INTO active VALUES (?, ?, ?)", model, version, digest)

    def read_from(self, database: Database) -> None:
        """Read all of this from the database; raises StateUnavailable.

        Newer values in memory stay; rows that this release cannot read are ignored.
        """
        for (store,) in database.read("SELECT value FROM facts WHERE name = 'store'"):
            with suppress(ValueError, TypeError):
                self.store = self.store or KnownStore(*json.loads(store))
        active = database.read("SELECT model, version, digest FROM active")
        self.active = {model: (version, digest) for model, version, digest in active} | self.active
        labelled = database.read("SELECT model, label, version, digest FROM labelled")
        for model, label, version, digest in labelled:
            self.labelled.setdefault(model, {}).setdefault(label, (version, digest))
        for model, provenance in database.read("SELECT model, provenance FROM signed"):
            with suppress(ValidationError):
                self.provenance.setdefault(model, Provenance.model_validate_json(provenance))
        for model, version, digest, signature in database.read(
            "SELECT model, version, digest, signature FROM contracts"
        ):
            with suppress(ValidationError):
                contract = RememberedContract(version, digest, Signature.model_validate_json(signature))
                self.contracts.setdefault(model, contract)

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write all of this to an empty database."""
        insert = "INSERT INTO active VALUES (?, ?, ?)"
        rows: list[Statement] = [(insert, (model, *version)) for model, version in self.active.items()]
        for model, labels in self.labelled.items():
            rows += [
                ("INSERT INTO labelled VALUES (?, ?, ?, ?)", (model, label, *one)) for label, one in labels.items()
            ]
        for model, one in self.contracts.items():
            values = (model, one.version, one.digest, one.signature.model_dump_json())
            rows.append(("INSERT INTO contracts VALUES (?, ?, ?, ?)", values))
        for model, provenance in self.provenance.items():
            rows.append(("INSERT INTO signed VALUES (?, ?)", (model, provenance.model_dump_json())))
        if self.store is not None:
            rows.append(("INSERT INTO facts VALUES ('store', ?)", (self.store.to_json(),)))
        return rows

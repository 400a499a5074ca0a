"""What operators may ask for, decided on the reconciler's thread between two turns: never beside a candidate."""

from __future__ import annotations

from serving.domain.errors import OperationRefused, UnknownModel, UnknownVersion
from serving.domain.state import State
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.road import Road


class Operations:
    """Each call makes its decision durable or raises; the next turn of the reconciler carries it out."""

    def __init__(self, road: Road, exclusion: Exclusion, journal: Journal) -> None:
        self._road = road
        self._exclusion = exclusion
        self._journal = journal

    def pin(self, name: str, version: str, actor: str) -> None:
        """Serve exactly `version` from now on."""
        model = self._model(name)
        record = model.find(version)
        if record is None:
            raise UnknownVersion(f"'{name}' has no version '{version}' (it has {_names(model)})")
        if self._journal.history.pins.get(name) == version:
            return
        reason = self._exclusion.why_excluded(model, record)
        if reason is not None:
            advice = f"POST /models/{name}/versions/{version}/release lets it be tried again"
            raise OperationRefused(f"version '{version}' cannot be pinned: {reason}; {advice}")
        self._journal.history.pin(name, version)
        self._journal.operator(model, "pin", actor, version, None)

    def unpin(self, name: str, actor: str) -> None:
        """Follow the newest valid version again."""
        model = self._model(name)
        pinned = self._journal.history.pins.get(name)
        if pinned is not None:
            self._journal.history.pin(name, None)
            self._journal.operator(model, "unpin", actor, pinned, None)

    def unload(self, name: str, actor: str) -> None:
        """Load no version of the model, and let go of those that are loaded, until `load`."""
        model = self._model(name)
        if name not in self._journal.history.unloaded:
            self._journal.history.unload(name)
            self._journal.operator(model, "unload", actor, model.active.version if model.active else None, None)

    def load(self, name: str, actor: str) -> None:
        """Lift `unload`."""
        model = self._model(name)
        if name in self._journal.history.unloaded:
            self._journal.history.load(name)
            self._journal.operator(model, "load", actor, None, None)

    def rollback(self, name: str, actor: str, expected: str | None) -> None:
        """Put the active version in quarantine; the policy activates the next best."""
        model = self._model(name)
        active = model.active
        if active is None:
            raise OperationRefused(f"'{name}' has no active version to leave")
        if expected is not None and expected != active.version:
            if self._is_quarantined_name(name, expected):
                return
            raise OperationRefused(f"version '{expected}' is not active, '{active.version}' is; nothing was changed")
        if self._exclusion.is_quarantined(active):
            return
        if name in self._journal.history.pins:
            raise OperationRefused(f"'{name}' is pinned to '{active.version}'; unpin it first")
        if not self._has_alternative(model, active):
            raise OperationRefused(f"'{name}' has no other valid version than '{active.version}' to go back to")
        self._journal.history.quarantine_version(active.id)
        self._journal.operator(model, "rollback", actor, active.version, "put in quarantine")

    def release(self, name: str, version: str, actor: str) -> None:
        """Lift the quarantine of a version and forget its verdict."""
        model = self._model(name)
        record = model.find(version)
        if record is None and not self._is_quarantined_name(name, version):
            raise UnknownVersion(f"'{name}' has no version '{version}' (it has {_names(model)})")
        self._journal.history.release(name, version, record.digest if record else None)
        self._journal.operator(model, "release", actor, version, None)
        if record is None:
            return
        record.failures = record.host_deaths = 0
        record.not_before = 0.0
        has_problem = record.entry is not None and record.entry.problem is not None
        if record.state in (State.REJECTED, State.QUARANTINED) and not has_problem:
            record.report = None
            self._journal.move(record, State.DISCOVERED, "released", actor=actor)

    def _model(self, name: str) -> ModelRecord:
        model = self._road.models.get(name)
        if model is None:
            raise UnknownModel(f"no model named '{name}'; GET /models lists the ones there are")
        return model

    def _is_quarantined_name(self, name: str, version: str) -> bool:
        return any(key[:2] == (name, version) for key in self._journal.history.quarantine)

    def _has_alternative(self, model: ModelRecord, active: VersionRecord) -> bool:
        others = [record for record in [*model.standbys, *model.listed.values()] if record is not active]
        return any(
            record.version != active.version and not self._exclusion.is_excluded(model, record) for record in others
        )


def _names(model: ModelRecord) -> str:
    names = list(model.listed)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"

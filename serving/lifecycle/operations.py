"""What operators may ask for, decided on the reconciler's thread between two turns: never beside a candidate."""

from __future__ import annotations

from serving.domain.errors import OperationRefused, UnknownModel, UnknownVersion
from serving.domain.state import State
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.journal import Journal
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.records import ModelRecord, VersionRecord


class Operations:
    """Each call makes its decision durable or raises; the next turn of the reconciler carries it out."""

    def __init__(self, model_table: ModelTable, exclusion: Exclusion, journal: Journal) -> None:
        self._model_table = model_table
        self._exclusion = exclusion
        self._journal = journal
        self._history = journal.history

    def pin(self, name: str, version: str, actor: str) -> None:
        """Serve exactly `version` from now on."""
        model = self._model(name)
        if self._history.pins.get(name) == version:
            return
        record = model.find(version)
        if record is None:
            self._refuse_unread(model, version)
            raise UnknownVersion(f"'{name}' has no version '{version}' (it has {_names(model)})")
        obstacle = self._exclusion.why_not_chosen(model, record)
        if obstacle is not None:
            advice = f"POST /models/{name}/versions/{version}/release lets it be tried again"
            raise OperationRefused(f"version '{version}' cannot be pinned: {obstacle}; {advice}")
        if record.is_copy_lost:
            raise OperationRefused(f"version '{version}' cannot be pinned: {record.host_problem}")
        self._history.pin(name, version)
        self._journal.operator(model, "pin", actor, version, None)

    def unpin(self, name: str, actor: str) -> None:
        """Follow the newest valid version again."""
        model = self._model(name)
        pinned = self._history.pins.get(name)
        if pinned is not None:
            self._history.pin(name, None)
            self._journal.operator(model, "unpin", actor, pinned, None)

    def unload(self, name: str, actor: str) -> None:
        """Load no version of the model, and let go of those that are loaded, until `load`."""
        model = self._model(name)
        if name not in self._history.unloaded:
            self._history.unload(name)
            self._journal.operator(model, "unload", actor, model.active.version if model.active else None, None)

    def load(self, name: str, actor: str) -> None:
        """Lift `unload`."""
        model = self._model(name)
        if name in self._history.unloaded:
            self._history.load(name)
            self._journal.operator(model, "load", actor, None, None)

    def rollback(self, name: str, actor: str, expected: str | None) -> None:
        """Put the active version in quarantine; the policy activates the next best."""
        model = self._model(name)
        active = model.active
        if active is None:
            raise OperationRefused(f"'{name}' has no active version to leave")
        if expected is not None and expected != active.version:
            if self._history.is_quarantined(name, expected, None):
                return
            raise OperationRefused(f"version '{expected}' is not active, '{active.version}' is; nothing was changed")
        if self._exclusion.is_quarantined(active):
            return
        if name in self._history.pins:
            raise OperationRefused(f"'{name}' is pinned to '{active.version}'; unpin it first")
        if not self._has_alternative(model, active):
            raise OperationRefused(f"'{name}' has no other valid version than '{active.version}' to go back to")
        self._history.quarantine_version(active.id)
        self._journal.operator(model, "rollback", actor, active.version, "put in quarantine")

    def release(self, name: str, version: str, actor: str) -> None:
        """Lift the quarantine of a version and forget its verdict."""
        model = self._model(name)
        record = model.find(version)
        is_known = self._history.is_quarantined(name, version, None) or self._history.refusals_of(name, version, None)
        if record is None and not is_known:
            raise UnknownVersion(f"'{name}' has no version '{version}' (it has {_names(model)})")
        self._history.release(name, version, record.digest if record else None)
        self._journal.operator(model, "release", actor, version, None)
        if record is None:
            return
        record.failures = record.host_deaths = 0
        record.not_before = 0.0
        has_problem = record.entry is not None and record.entry.problem is not None
        if record.state in (State.REJECTED, State.QUARANTINED) and not has_problem:
            record.report = None
            self._journal.move(record, State.DISCOVERED, "released", actor=actor)

    def accept_state_loss(self, actor: str) -> None:
        """Activate versions again although operators' decisions have been lost."""
        lost = self._history.held
        if lost is not None:
            self._history.accept_loss()
            for model in self._model_table.models.values():
                self._journal.operator(model, "accept-state-loss", actor, None, lost)

    def _model(self, name: str) -> ModelRecord:
        model = self._model_table.models.get(name)
        if model is None:
            raise UnknownModel(f"no model named '{name}'; GET /models lists the ones there are")
        return model

    def _refuse_unread(self, model: ModelRecord, version: str) -> None:
        """Raise OperationRefused when `version` may be what a lone file holds that has not been read yet."""
        names = {name for (owner, _), name in self._history.lone.items() if owner == model.name}
        if version in names and any(record.is_nameless for record in model.listed.values()):
            raise OperationRefused(
                f"it is not known yet whether the file of '{model.name}' is version '{version}': it is being read; "
                "try again shortly"
            )

    def _has_alternative(self, model: ModelRecord, active: VersionRecord) -> bool:
        """Whether another version may answer, as far as is known; while decisions are lost, one that is loaded."""
        listed = [] if self._history.held is not None else [*model.listed.values()]
        return any(
            record.version != active.version
            and not record.is_copy_lost
            and self._exclusion.why_not_chosen(model, record) is None
            for record in [*model.standbys, *listed]
        )


def _names(model: ModelRecord) -> str:
    names = list(model.listed)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"

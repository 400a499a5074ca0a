"""Carries out operators' decisions on the reconciler's thread, between two turns: never beside a candidate.

What a decision needs, what it does and what it answers is written here and nowhere else. A decision is on disk before
it counts; the policy then does what follows from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    DecisionDone,
    DecisionRefused,
    LoadModel,
    ModelDecision,
    PinVersion,
    RefreshStore,
    ReleaseVersion,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    SteerRollout,
    UnloadModel,
    UnpinModel,
)
from serving.domain.errors import OperationRefused, StateUnavailable, UnknownModel, UnknownVersion
from serving.domain.rollout import RolloutAction
from serving.domain.state import State
from serving.domain.status import ModelSummary, Status
from serving.domain.version import why_not_a_name
from serving.lifecycle.exclusion import Exclusion, Obstacle
from serving.lifecycle.history import History
from serving.lifecycle.inbox import PendingDecision
from serving.lifecycle.journal import Journal
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.snapshots import summary
from serving.lifecycle.store_poller import StorePoller


class Operations:
    """Carries out decisions: each in the turn that takes it, answered when that turn ends. Reconciler thread only."""

    def __init__(
        self,
        store_poller: StorePoller,
        model_table: ModelTable,
        exclusion: Exclusion,
        history: History,
        journal: Journal,
        rollouts: Rollouts,
    ) -> None:
        self._store_poller = store_poller
        self._model_table = model_table
        self._rollouts = rollouts
        self._exclusion = exclusion
        self._decisions = history.decisions
        self._served = history.served
        self._verdicts = history.verdicts
        self._lone_names = history.lone_names
        self._journal = journal
        self._unanswered: list[PendingDecision] = []

    # --- taking and answering ----------------------------------------------------------------------------------------

    def take(self, pending: PendingDecision) -> None:
        """Carry out a decision, unless its caller has gone. A refusal is answered at once."""
        if not pending.outcome.set_running_or_notify_cancel():
            return
        try:
            refusal = self.decide(pending.decision, pending.actor)
        except Exception as error:  # noqa: BLE001  (a bug, and no outcome: the caller logs it)
            pending.outcome.set_exception(error)
            return
        if refusal is None:
            self._unanswered.append(pending)
        else:
            pending.outcome.set_result(refusal)

    def answer(self, status: Status) -> None:
        """Answer all decisions of this turn with `status`, which is the status after the turn."""
        unanswered, self._unanswered = self._unanswered, []
        for pending in unanswered:
            pending.outcome.set_result(DecisionDone(self._models_of(pending.decision, status)))

    def decide(self, decision: Decision, actor: str) -> DecisionRefused | None:
        """Write a decision to disk and take the first steps that follow from it, or raise why not."""
        try:
            self._carry_out(decision, actor)
        except (UnknownModel, UnknownVersion, OperationRefused, StateUnavailable) as error:
            return DecisionRefused.from_error(error)
        return None

    def _carry_out(self, decision: Decision, actor: str) -> None:
        match decision:
            case RefreshStore():
                self._store_poller.hurry()
            case AcceptStateLoss():
                self._accept_state_loss(decision, actor)
            case _:
                model = self._find_model(decision.model)
                self._carry_out_for(model, decision, actor)
                self._model_table.advance(model, time.monotonic())

    def _carry_out_for(self, model: ModelRecord, decision: ModelDecision, actor: str) -> None:
        match decision:
            case PinVersion():
                self._pin(model, decision, actor)
            case UnpinModel():
                self._unpin(model, decision, actor)
            case RollBackModel():
                self._roll_back(model, decision, actor)
            case ReleaseVersion():
                self._release(model, decision, actor)
            case UnloadModel():
                self._unload(model, decision, actor)
            case LoadModel():
                self._load(model, decision, actor)
            case SetLabel():
                self._set_label(model, decision, actor)
            case RemoveLabel():
                self._remove_label(model, decision, actor)
            case SteerRollout():
                self._rollouts.steer(model, decision, actor)
            case _:
                assert_never(decision)

    def _models_of(self, decision: Decision, status: Status) -> tuple[ModelSummary, ...]:
        if isinstance(decision, RefreshStore | AcceptStateLoss):
            return tuple(summary(model) for model in status.models.values())
        known = status.models.get(decision.model)
        if known is not None:
            return (summary(known),)
        is_unloaded = decision.model in self._decisions.unloaded
        return (ModelSummary(name=decision.model, active=None, unloaded=is_unloaded),)  # it is gone now

    # --- the decisions -----------------------------------------------------------------------------------------------

    def _pin(self, model: ModelRecord, decision: PinVersion, actor: str) -> None:
        version = decision.version
        if self._decisions.pins.get(model.name) == version:
            return
        self._require_choosable(model, version, "pinned", self._exclusion.why_not_pinned)
        self._decisions.pin(model.name, version)
        self._journal.operator(model, decision.kind, actor, version, None)

    def _unpin(self, model: ModelRecord, decision: UnpinModel, actor: str) -> None:
        pinned = self._decisions.pins.get(model.name)
        if pinned is not None:
            self._decisions.unpin(model.name)
            self._journal.operator(model, decision.kind, actor, pinned, None)

    def _roll_back(self, model: ModelRecord, decision: RollBackModel, actor: str) -> None:
        name, active, expected = model.name, model.active, decision.version
        if model.rollout is not None and expected in (None, model.rollout.new.version):
            self._rollouts.steer(model, SteerRollout(name, RolloutAction.ROLLBACK, expected), actor)
            return
        if active is None:
            raise OperationRefused(f"'{name}' has no active version to leave")
        if expected is not None and expected != active.version:
            if self._decisions.is_quarantined(name, expected, None):
                return
            raise OperationRefused(f"version '{expected}' is not active, '{active.version}' is; nothing was changed")
        if self._exclusion.is_quarantined(active):
            return
        if name in self._decisions.pins:
            raise OperationRefused(f"'{name}' is pinned to '{active.version}'; unpin it first")
        if not self._has_alternative(model, active):
            raise OperationRefused(f"'{name}' has no other valid version than '{active.version}' to go back to")
        self._decisions.quarantine_version(active.id)
        self._journal.operator(model, decision.kind, actor, active.version, "put in quarantine")

    def _release(self, model: ModelRecord, decision: ReleaseVersion, actor: str) -> None:
        name, version, record = model.name, decision.version, model.find(decision.version)
        is_quarantined = self._decisions.is_quarantined(name, version, None)
        if record is None and not is_quarantined and not self._verdicts.find_refusals(name, version, None):
            raise UnknownVersion(f"'{name}' has no version '{version}' (it has {_list_versions(model)})")
        self._decisions.release(name, version, record.digest if record else None)
        self._journal.operator(model, decision.kind, actor, version, None)
        if record is None:
            return
        record.failures = record.host_deaths = 0
        record.not_before = 0.0
        has_problem = record.entry is not None and record.entry.problem is not None
        if record.state in (State.REJECTED, State.QUARANTINED) and not has_problem:
            record.report = None
            self._journal.move(record, State.DISCOVERED, "released", actor=actor)

    def _unload(self, model: ModelRecord, decision: UnloadModel, actor: str) -> None:
        if model.name not in self._decisions.unloaded:
            self._decisions.unload(model.name)
            active = model.active.version if model.active else None
            self._journal.operator(model, decision.kind, actor, active, None)

    def _load(self, model: ModelRecord, decision: LoadModel, actor: str) -> None:
        if model.name in self._decisions.unloaded:
            self._decisions.load(model.name)
            self._journal.operator(model, decision.kind, actor, None, None)

    def _set_label(self, model: ModelRecord, decision: SetLabel, actor: str) -> None:
        name, label, version = model.name, decision.label, decision.version
        before = self._decisions.labels_of(name).get(label)
        if before == version:
            return
        if why := why_not_a_name(label):
            raise OperationRefused(f"no label can be called that: {why}")
        self._require_choosable(model, version, "labelled", self._exclusion.why_not_chosen)
        self._decisions.set_label(name, label, version)
        moved = "" if before is None else f", which named version '{before}'"
        self._journal.operator(model, decision.kind, actor, version, f"label '{label}'{moved}")

    def _remove_label(self, model: ModelRecord, decision: RemoveLabel, actor: str) -> None:
        name, label = model.name, decision.label
        before = self._decisions.labels_of(name).get(label)
        if before is not None:
            self._decisions.remove_label(name, label)
            self._served.forget_label(name, label)
            self._journal.operator(model, decision.kind, actor, before, f"label '{label}'")

    def _accept_state_loss(self, decision: AcceptStateLoss, actor: str) -> None:
        lost = self._decisions.held
        if lost is not None:
            self._decisions.accept_loss()
            for model in self._model_table.models.values():
                self._journal.operator(model, decision.kind, actor, None, lost)

    # --- what they ask -----------------------------------------------------------------------------------------------

    def _find_model(self, name: str) -> ModelRecord:
        model = self._model_table.models.get(name)
        if model is None:
            raise UnknownModel.for_name(name)
        return model

    def _require_choosable(
        self,
        model: ModelRecord,
        version: str,
        what: str,
        why_not: Callable[[ModelRecord, VersionRecord], Obstacle | None],
    ) -> None:
        """Raise UnknownVersion or OperationRefused for a version that cannot be `what`: pinned, labelled."""
        record = model.find(version)
        if record is None:
            self._refuse_unread(model, version)
            raise UnknownVersion(f"'{model.name}' has no version '{version}' (it has {_list_versions(model)})")
        obstacle = why_not(model, record)
        if obstacle is not None:
            advice = f"POST /models/{model.name}/versions/{version}/release lets it be tried again"
            raise OperationRefused(f"version '{version}' cannot be {what}: {obstacle}; {advice}")
        if record.is_copy_lost:
            raise OperationRefused(f"version '{version}' cannot be {what}: {record.host_problem}")

    def _refuse_unread(self, model: ModelRecord, version: str) -> None:
        """Raise OperationRefused when `version` may be what a lone file holds that has not been read yet."""
        was_named = self._lone_names.has_named(model.name, version)
        if was_named and any(record.is_nameless for record in model.listed.values()):
            raise OperationRefused(
                f"it is not known yet whether the file of '{model.name}' is version '{version}': it is being read; "
                "try again shortly"
            )

    def _has_alternative(self, model: ModelRecord, active: VersionRecord) -> bool:
        """Whether another version may answer, as far as is known; while decisions are lost, only loaded ones may."""
        is_held = self._decisions.held is not None
        standbys = [record for record in model.standbys if record.was_active or not is_held]
        listed = [] if is_held else [*model.listed.values()]
        return any(
            record.version != active.version
            and not record.is_copy_lost
            and self._exclusion.why_not_chosen(model, record) is None
            for record in [*standbys, *listed]
        )


def _list_versions(model: ModelRecord) -> str:
    names = list(model.listed)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"

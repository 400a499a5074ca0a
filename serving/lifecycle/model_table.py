"""Every model's versions, and the policy applied to them. Reconciler thread only.

Worker threads do the work that blocks. Their results come back through the reconciler's inbox and are handled here. So
every state has one writer, and nothing here needs a lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

import structlog

from serving.domain.artifact import Artifact
from serving.domain.listing import Entry
from serving.domain.plan import Drained, Fact, HostGone
from serving.domain.policy import (
    Activate,
    Cancel,
    EndArrival,
    Evaluate,
    Introduce,
    Retire,
    Stage,
    WantedVersion,
    choose_action,
    find_wake_time,
)
from serving.domain.report import GateName
from serving.domain.state import State
from serving.domain.version import order_key
from serving.lifecycle.activation import Activation
from serving.lifecycle.candidate import CandidateStaged
from serving.lifecycle.candidate_runner import CandidateRunner
from serving.lifecycle.candidate_traces import CandidateTraces
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.evaluation_runs import EvaluationRuns
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.inbox import AnswersCompared, CandidateFinished, CandidateProgressed, HostBrought, WorkMessage
from serving.lifecycle.journal import Journal
from serving.lifecycle.policy_input import PolicyInput
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.respawn import Respawn
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.unfinished_copies import was_unfinished
from serving.settings import Settings
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import Tracer

MAX_ACTIONS_AT_ONCE = 16

log = structlog.get_logger("serving.road")


class ModelTable:
    """All models. `update` compares a listing of the store with them, `advance` does what the policy says.

    `knows_store` says whether the content of the store is known: the last listing succeeded.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        journal: Journal,
        metrics: Metrics,
        exclusion: Exclusion,
        activation: Activation,
        respawn: Respawn,
        runner: CandidateRunner,
        executor: Executor,
        post: Callable[[WorkMessage], None],
        environments: EnvironmentWatch,
        rollouts: Rollouts,
        tracer: Tracer | None = None,
    ) -> None:
        self.models: dict[str, ModelRecord] = {}
        self.has_changed_cache = False
        self.knows_store = False
        self._settings = settings.store
        self._journal = journal
        self._metrics = metrics
        self._decisions = history.decisions
        self._served = history.served
        self._lone = history.lone_names
        self.rollouts = rollouts
        self._input = PolicyInput(exclusion, history.decisions, rollouts, settings.store.keep_warm)
        self._activation = activation
        self._respawn = respawn
        self._evaluations = EvaluationRuns(
            *(runner, journal, history.verdicts, history.served, metrics, executor, post, settings, environments),
            self._staged,
            history.decisions,
            CandidateTraces(tracer),
        )
        self._exclusion = exclusion
        self._blocked: dict[str, ModelRecord] = {}

    # --- what the store holds ----------------------------------------------------------------------------------------

    def update(self, listed: Mapping[str, tuple[Entry, ...]], now: float) -> bool:
        """Update all models from a listing; return whether anything differs from the one before."""
        settles_at = now + self._settings.settle_seconds
        if not self.knows_store:
            self.knows_store = True
            self._journal.dirty.update(self.models)
            for known in self.models.values():
                known.settles_at = settles_at
        is_changed = False
        for name, entries in listed.items():
            model = self.models.get(name)
            if model is None:
                model = self.models[name] = ModelRecord(name)
                self._activation.publish(model)
            if model.entries is not entries:
                is_changed = True
                model.settles_at = settles_at
                self._take_in(model, entries, now)
        for name in [name for name, model in self.models.items() if model.listed and name not in listed]:
            is_changed = True
            self._take_in(self.models[name], (), now)
        return is_changed

    def lose_store(self) -> None:
        """Note that the store cannot be listed: nothing in it counts as removed until it can be listed again."""
        self.knows_store = False
        for model in self.models.values():
            model.settles_at = math.inf

    def restore(self, artifact: Artifact, now: float, label: str | None = None) -> None:
        """Offer the version that was active before a restart, or that `label` answered with, from the cache."""
        name = artifact.id.model
        model = self.models.setdefault(name, ModelRecord(name))
        record = VersionRecord(name, artifact.id.version, (), now, digest=artifact.id.digest, artifact=artifact)
        if label is None:
            model.kept = record
        else:
            model.kept_labelled[label] = record
        self._activation.publish(model)
        self._journal.dirty.add(name)

    def _staged(self, model: ModelRecord, record: VersionRecord, outcome: CandidateStaged) -> None:
        """Handle a version whose digest has become known: these bytes may be known already."""
        artifact = outcome.artifact
        record.digest = artifact.id.digest
        self.has_changed_cache = True
        self._journal.dirty.add(model.name)
        if record.entry is not None and record.entry.is_lone:
            name = self._lone.recognise(artifact.id, record.fingerprint)
            if name != record.version:
                self._take_in(model, model.entries, time.monotonic())
                return
        loaded = model.find_loaded(record.version, artifact.id.digest)
        if loaded is not None and model.listed.get(record.version) is record:
            loaded.entry, loaded.fingerprint = record.entry, record.fingerprint
            if loaded.is_copy_lost:  # not any more: the copy has just been renewed
                loaded.is_copy_lost, loaded.respawn_at = False, 0.0
            model.listed[record.version] = loaded
            self._journal.move(record, State.DISCOVERED, "the same bytes are loaded already")
            return
        record.artifact = artifact

    def _take_in(self, model: ModelRecord, entries: tuple[Entry, ...], now: float) -> None:
        model.entries = entries
        model.is_settled = False
        listed: dict[str, VersionRecord] = {}
        for entry in entries:
            named = replace(entry, version=self._lone.name(entry)) if entry.is_lone else entry
            listed[named.version] = self._record(model, named, now)
        model.listed = listed
        self._journal.dirty.add(model.name)

    def _record(self, model: ModelRecord, entry: Entry, now: float) -> VersionRecord:
        """Return the record of these bytes: the present one, a loaded one whose files came back, or a new one."""
        present = model.listed.get(entry.version)
        known = [present] if present else []
        known += [one for one in [*model.loaded, *model.leaving] if one.version == entry.version]
        for record in known:
            if record.fingerprint == entry.fingerprint and record.entry is not None:
                record.entry = entry
                break
        else:
            record = VersionRecord(model.name, entry.version, entry.fingerprint, now, begun_at=now, entry=entry)
            if not entry.has_manifest:
                record.not_before = now + self._settings.settle_seconds
            if present is not None and was_unfinished(present, self._settings.settle_seconds, now):
                record.begun_at, record.unfinished = present.begun_at, "its files are still changing"
        if entry.problem is not None and record.state is State.DISCOVERED:
            self._journal.fail(model, record, State.REJECTED, GateName.PUBLISHED, entry.problem)
        return record

    def take(self, message: WorkMessage | Fact) -> None:
        """Handle the progress and the end of work, and facts of the plane."""
        match message:
            case CandidateProgressed():
                self._evaluations.note_progress(message)
            case CandidateFinished():
                self._evaluations.finish(message)
            case HostBrought():
                self._respawn.finish(message)
            case AnswersCompared():
                self.rollouts.note_shifts(self.models.get(message.model), message)
            case HostGone():
                self._respawn.learn(message)
                self._journal.dirty.add(message.key.model)
            case Drained():
                self._activation.finish_retirement(self.models[message.key.model], message)
                self._journal.dirty.add(message.key.model)

    # --- what to do about it -----------------------------------------------------------------------------------------

    def advance_due(self, now: float) -> None:
        """Take the next steps of every model with a change; models without an active version come first."""
        due = [model for model in self.models.values() if model.name in self._journal.dirty or model.is_due(now)]
        for model in sorted(due, key=lambda model: model.active is not None):
            self._advance_apart(model, now)
        while self._blocked and self._evaluations.has_room:
            name = next(
                (name for name, model in self._blocked.items() if model.active is None), next(iter(self._blocked))
            )
            self._advance_apart(self._blocked.pop(name), now)

    def _advance_apart(self, model: ModelRecord, now: float) -> None:
        """Advance one model; an error in it does not affect the others."""
        try:
            self.advance(model, now)
        except Exception:
            log.exception("model_stuck", model=model.name, effect="it goes on as it is; the others are not touched")

    def advance(self, model: ModelRecord, now: float) -> None:
        """Do everything that the policy asks for one model now."""
        self._blocked.pop(model.name, None)
        self._forget_kept_labels(model)
        for record in model.loaded:
            self._respawn.advance(record, now)
        for _ in range(MAX_ACTIONS_AT_ONCE):
            action = choose_action(self._input.desired(model), self._input.observed(model), now)
            if action is None:
                break
            match action:
                case EndArrival(reason):
                    self.rollouts.give_up(model, reason)
                case Activate(loaded) | Introduce(loaded) | Retire(loaded):
                    self._change_what_answers(model, action, self._loaded(model, loaded.version, loaded.digest), now)
                case Cancel(reason):
                    self._evaluations.cancel(model, reason)
                    break
                case Stage(wanted) | Evaluate(wanted):
                    if not self._evaluations.has_room:
                        self._blocked[model.name] = model
                        break
                    record = self._record_of(model, wanted)
                    if isinstance(action, Stage):
                        self._evaluations.stage(model, record, now)
                    else:
                        self._evaluations.evaluate(model, record)
        self._activation.publish_standbys(model)
        self._evaluations.traces.export(model)
        self._exclusion.mark(model)
        self._tell_problem(model)
        model.is_settled = self._has_come_to_rest(model, now)
        model.wake_at = self._wake_at(model, now)
        if not (model.listed or model.loaded or model.leaving or model.running):
            self._forget_unloaded(model)

    def _forget_kept_labels(self, model: ModelRecord) -> None:
        """Forget the copies for labels that are gone, or answer again."""
        labels = self._decisions.labels_of(model.name)
        needed = {label for label in labels if model.labelled.get(label) is None}
        model.kept_labelled = {label: one for label, one in model.kept_labelled.items() if label in needed}

    def _change_what_answers(
        self, model: ModelRecord, action: Activate | Introduce | Retire, record: VersionRecord, now: float
    ) -> None:
        match action:
            case Activate():
                self.rollouts.pass_on(model, record, now)
                self._activation.activate(model, record)
                self._evaluations.traces.note(model, record, "activated")
            case Introduce():
                self.rollouts.begin(model, record, now)
                self._evaluations.traces.note(model, record, "rollout begun")
            case Retire():
                self._activation.retire(model, record)

    def _forget_unloaded(self, model: ModelRecord) -> None:
        """Forget a model that has nothing left in the store or in memory.

        Unless an operator has unloaded it, its copies in the cache stay, so that it can answer again.
        """
        is_unloaded = model.name in self._decisions.unloaded and self.knows_store
        if model.all_kept and not is_unloaded:
            return
        if is_unloaded:
            self._served.forget_active(model.name)
            self.has_changed_cache = True
        self.rollouts.forget(model.name)
        del self.models[model.name]
        self._activation.publish(model, is_known=False)
        self._metrics.forget_model(model.name)
        self._journal.dirty.add(model.name)

    def _tell_problem(self, model: ModelRecord) -> None:
        problem = self._exclusion.find_problem(model) or self.rollouts.find_problem(model)
        if problem != model.problem:
            model.problem = problem
            self._journal.dirty.add(model.name)
            if problem is not None:
                log.warning("not_as_decided", model=model.name, reason=problem)

    def compare(self, name: str, version: str) -> Comparison:
        """Return what a version that is not in the store yet would be compared with."""
        return self._evaluations.compare(self.models.get(name) or ModelRecord(name), version)

    def digests_in_use(self) -> set[str]:
        """Return the digests whose cached files are needed.

        Their versions are loaded, being loaded or unloaded, or are to answer after a restart.
        """
        records = [
            one for model in self.models.values() for one in [*model.listed.values(), *model.loaded, *model.leaving]
        ]
        digests = {record.digest for record in records if record.artifact is not None and record.digest is not None}
        return digests | self._served.list_digests()

    def aspired(self, model: ModelRecord, now: float) -> VersionRecord | None:
        """Return what the policy wants active for `model`, None for what is active already."""
        found = self._input.aspired(model, now)
        return None if found is None else self._record_of(model, found)

    def _wake_at(self, model: ModelRecord, now: float) -> float | None:
        """Return when this model needs another look without any event; None if never."""
        times = [record.respawn_at for record in model.loaded if record.respawn_at > now]
        settling = find_wake_time(self._input.desired(model), now)
        return min([*times, *([settling] if settling is not None else [])], default=None)

    # -----------------------------------------------------------------------------------------------------------------

    def _record_of(self, model: ModelRecord, wanted: WantedVersion) -> VersionRecord:
        """Return the record that the policy means: the kept one, the listed one, or the loaded one."""
        for kept in model.all_kept:
            if (kept.version, kept.fingerprint, kept.digest) == (wanted.version, wanted.fingerprint, wanted.digest):
                return kept
        listed = model.listed.get(wanted.version)
        if listed is not None and listed.fingerprint == wanted.fingerprint:
            return listed
        return self._loaded(model, wanted.version, wanted.digest or "")

    def _loaded(self, model: ModelRecord, version: str, digest: str) -> VersionRecord:
        record = model.find_loaded(version, digest)
        assert record is not None
        return record

    def _has_come_to_rest(self, model: ModelRecord, now: float) -> bool:
        arriving = None if model.rollout is None else model.rollout.new
        aspired = self.aspired(model, now)
        if model.running is not None or (aspired is not None and aspired is not arriving):
            return False
        if self._input.is_label_missing(model, now):
            return False
        return self._decisions.held is not None or all(
            record.not_before <= now or record.failures > 0 or self._exclusion.is_excluded(model, record)
            for record in model.listed.values()
            if model.active is None or order_key(record.version) > order_key(model.active.version)
        )

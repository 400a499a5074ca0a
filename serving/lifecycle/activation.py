"""The swap, and what happens to the version that was swapped out."""

from __future__ import annotations

import time

import structlog

from serving.domain.plan import Commit, Drained, Plan, Prepare, Route, Unload
from serving.domain.state import State
from serving.failpoints import reach
from serving.lifecycle.journal import Journal
from serving.lifecycle.label_answers import find_label_answers
from serving.lifecycle.plane_port import PlanePort
from serving.lifecycle.records import ModelRecord, VersionRecord, now_utc
from serving.lifecycle.served_versions import ServedVersions
from serving.lifecycle.standing_decisions import StandingDecisions
from serving.telemetry.metrics import Metrics

log = structlog.get_logger("serving.activation")


class Activation:
    """Makes the plans that say what answers, and takes versions out of them. Reconciler thread only."""

    def __init__(
        self,
        plane: PlanePort,
        journal: Journal,
        decisions: StandingDecisions,
        served: ServedVersions,
        metrics: Metrics,
    ) -> None:
        self._plane = plane
        self._journal = journal
        self._decisions = decisions
        self._served = served
        self._metrics = metrics
        self._plan = Plan()

    def publish(self, model: ModelRecord, *, is_known: bool = True) -> None:
        """Commit a plan with what `model` has loaded; a model that is not known any more is left out.

        What labels answer with is written to disk first, so that they do so after a restart.
        """
        route = self._route_of(model)
        model.labelled = self._answers_of(model)
        self._served.note_labels(model.name, route.labels)
        self._plan = self._plan.with_route(model.name, route if is_known else None)
        self._plane.prepare(Prepare(self._plan))
        self._plane.commit(Commit(self._plan.generation))

    def publish_standbys(self, model: ModelRecord) -> None:
        """Let the plan name everything that is loaded, and labels what they stand for: a version that has passed may
        not become active at once, and a label may have moved.
        """
        if self._plan.routes[model.name] != self._route_of(model):
            self.publish(model)

    def activate(self, model: ModelRecord, record: VersionRecord) -> None:
        """Let `record` answer from now on; what answered before becomes a standby.

        It is written to disk first. So a server that is killed in between answers with `record` after its restart, and
        a client that has seen its answers does not see an older version then.
        """
        reach("before-activation")
        report = record.report
        self._served.note_active(record.id, report.signature if report else None, report.provenance if report else None)
        previous = model.active
        if record in model.standbys:
            model.standbys.remove(record)
        if previous is not None:
            model.standbys.insert(0, previous)
        model.active, model.activated_at, model.kept = record, now_utc(), None
        record.was_active = True
        self.publish(model)
        reach("activated")
        reason = f"replaces version '{previous.version}'" if previous else "first active version"
        self._journal.move(record, State.ACTIVE, reason)
        if previous is not None:
            self._journal.move(previous, State.READY, f"standby; version '{record.version}' took over")
        self._metrics.record_swap(model.name)

    def retire(self, model: ModelRecord, record: VersionRecord) -> None:
        """Take a version out of the plan, and have it unloaded when its last request has been answered."""
        if record is model.active:
            model.active = model.activated_at = None
        else:
            model.standbys.remove(record)
        model.leaving.append(record)
        self.publish(model)
        reach("draining")
        draining = self._plane.unload(Unload(record.id))
        count = "" if draining.requests is None else f"{draining.requests} "
        self._journal.move(record, State.DRAINING, f"{count}requests in flight")

    def finish_retirement(self, model: ModelRecord, fact: Drained) -> None:
        """Note that a version of `model` is freed: of two with the same bytes, the one that was retired first."""
        record = next(record for record in model.leaving if record.id == fact.key)
        if fact.failure is not None:
            log.error("teardown_failed", model=model.name, version=record.version, reason=fact.failure)
        reach("retired")
        duration = time.monotonic() - record.entered_at
        model.leaving.remove(record)
        self._keep(model, record)
        record.forget_engine()
        is_quarantined = self._decisions.is_quarantined(record.model, record.version, record.digest)
        after = State.QUARANTINED if is_quarantined else State.RETIRED
        self._journal.move(record, after, "drained and unloaded")
        self._metrics.record_drain(model.name, duration)
        if record.version not in {one.version for one in model.loaded}:
            self._metrics.forget(model.name, record.version)

    def _keep(self, model: ModelRecord, record: VersionRecord) -> None:
        """Let a model be loaded again that is unloaded: as it was before a restart, where it was unloaded before
        anything was active, or as it was last, where the store, as far as is known, has nothing of it. Labels answer
        again with what they answered with, also where the store has not got that.
        """
        was_active = self._served.active.get(model.name) == (record.version, record.digest)
        if record is model.kept or (was_active and model.active is None and not model.listed):
            model.kept = record.copy_kept()
        if model.listed.get(record.version) is not record and record.artifact is not None:
            for label, answered in self._served.labelled.get(model.name, {}).items():
                if answered == (record.version, record.digest):
                    model.kept_labelled[label] = record.copy_kept()

    def _route_of(self, model: ModelRecord) -> Route:
        answers = self._answers_of(model).items()
        labels = tuple((label, None if record is None else record.id) for label, record in answers)
        active = model.active.id if model.active else None
        split = model.rollout.to_split() if model.rollout is not None else None
        return Route(active, tuple(record.id for record in model.loaded), split, labels)

    def _answers_of(self, model: ModelRecord) -> dict[str, VersionRecord | None]:
        return find_label_answers(model, self._decisions.labels_of(model.name))

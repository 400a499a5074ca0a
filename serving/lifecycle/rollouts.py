"""Rollouts: a new version takes over from the active one step by step, is judged on the way, and goes back by itself.

The policy says when one begins and when it is not wanted any more. In between `look` takes in what has been counted,
asks the judge, and does what he says. Reconciler thread only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import structlog

from serving.domain.decision import SteerRollout
from serving.domain.errors import OperationRefused
from serving.domain.judge import RolloutVerdict
from serving.domain.policy import Arrival
from serving.domain.rollout import PastRollout, RolloutAction, RolloutEnd, RolloutPhase, RolloutStatus
from serving.domain.state import State
from serving.domain.status import Failure
from serving.failpoints import reach
from serving.lifecycle.activation import Activation
from serving.lifecycle.inbox import AnswersCompared
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord, now_utc
from serving.lifecycle.remembered_rollouts import RememberedRollout, RememberedRollouts, RememberedRun
from serving.lifecycle.rollout_run import RolloutRun, SettingsOf, describe_end
from serving.lifecycle.shift_watch import ShiftWatch
from serving.lifecycle.standing_decisions import StandingDecisions
from serving.telemetry.metrics import Metrics
from serving.telemetry.split_counts import SplitRow

LOOK_SECONDS = 0.2
SHOW_SECONDS = 0.5  # how often what is shown changes, unless the judge has said something else
MOST_EXAMPLES = 8
REMEMBER_SECONDS = 5.0  # how much evidence a restart may lose
MOST_ROLLBACKS = 2  # in a row, until no other version is tried before an operator says so
JUDGE = "judge"
GATE = "rollout"

log = structlog.get_logger("serving.rollout")


class Rollouts:
    """All rollouts under way, each kept in its model's record. `settings_of` says how a model's versions take over.

    `workers` is how many processes answer.
    """

    def __init__(
        self,
        settings_of: SettingsOf,
        activation: Activation,
        journal: Journal,
        decisions: StandingDecisions,
        remembered: RememberedRollouts,
        metrics: Metrics,
        shift_watch: ShiftWatch,
        workers: int = 1,
    ) -> None:
        self.settings_of = settings_of
        self._activation = activation
        self._journal = journal
        self._decisions = decisions
        self._remembered = remembered
        self._metrics = metrics
        self._shift_watch = shift_watch
        self._workers = workers
        self._next_look = math.inf

    # --- what the policy asks, and is told ---------------------------------------------------------------------------

    def is_gradual(self, model: str) -> bool:
        """Whether a newer version of a model takes over step by step."""
        return self.settings_of(model).strategy != "swap"

    def is_stopped(self, model: str) -> bool:
        """Whether no other version takes over until an operator says so."""
        return self._remembered.get(model).is_stopped

    def arrival(self, model: ModelRecord) -> Arrival | None:
        """Return what the policy has to know of a rollout, None if there is none."""
        run = model.rollout
        if run is None:
            return None
        return Arrival(run.new.version, run.new.digest or "", run.old.version, run.has_passed, run.is_baking)

    def begin(self, model: ModelRecord, record: VersionRecord, now: float) -> None:
        """Let `record`, a standby, begin to take over from the active version: from where it was before a restart."""
        active = model.active
        assert active is not None
        run = RolloutRun.begin(record, active, self.settings_of(model.name), self._workers, now)
        before = self._remembered.get(model.name).running
        if before is not None and before.is_of(record.id, active.id):
            _resume(run, before)
        self._journal.move(record, State(run.phase.value.upper()), _describe(run))
        self._go_on(model, run)
        reach("rollout-begun")
        self._next_look = min(self._next_look, now + LOOK_SECONDS)

    def pass_on(self, model: ModelRecord, record: VersionRecord, now: float) -> None:
        """Note that `record` is about to become active. The old version keeps a part for a while, if that is set."""
        run = model.rollout
        if run is None:
            self._end_remembered(model, record)
            return
        if record is not run.new:
            self._end(model, run, RolloutEnd.SUPERSEDED, f"version '{record.version}' takes over", JUDGE)
            return
        has_holdback = run.settings.holdback > 0 and run.settings.bake_seconds > 0
        if run.has_passed and has_holdback and not run.is_held and not run.old.is_copy_lost:
            run.enter(RolloutPhase.BAKE, 1, now)
            self._remember(model, run)
        else:
            reason = run.judgement.reason if run.has_passed else "it is pinned, or the version before cannot answer"
            self._end(model, run, RolloutEnd.PROMOTED, reason, JUDGE)

    def give_up(self, model: ModelRecord, reason: str) -> None:
        """End a rollout because something else is wanted. One that was active already has passed."""
        run = model.rollout
        assert run is not None
        self._end(model, run, RolloutEnd.PROMOTED if run.is_baking else RolloutEnd.SUPERSEDED, reason, JUDGE)

    # --- looking at what has been counted ----------------------------------------------------------------------------

    def next_due(self) -> float:
        """Return when `look` wants to be called again (monotonic); infinity while there is no rollout."""
        return self._next_look

    def look(self, models: Iterable[ModelRecord], now: float) -> None:
        """Judge every rollout under way, if it is time, and do what follows."""
        if now < self._next_look:
            return
        rows = self._metrics.read_splits()
        self._next_look = math.inf
        for model in models:
            run = model.rollout
            if run is not None:
                self._look_apart(model, run, rows.get((model.name, run.number), SplitRow()), now)
            if model.rollout is not None:
                self._next_look = now + LOOK_SECONDS

    def _look_apart(self, model: ModelRecord, run: RolloutRun, found: SplitRow, now: float) -> None:
        """Look at one rollout; an error in it ends neither the others nor the looking."""
        try:
            self._look_at(model, run, found, now)
        except Exception:
            log.exception("rollout_stuck", model=model.name, effect="it stays where it is and is looked at again")

    def _look_at(self, model: ModelRecord, run: RolloutRun, found: SplitRow, now: float) -> None:
        before, report = run.judgement, run.shadow
        self._shift_watch.look(model.name, run, now)
        has_news = run.take(found.answers)
        if run.is_shadow:
            run.shadow = found.shadow.to_report()
        judgement = run.judge(now)
        examples = self._metrics.read_examples(model.name, run.number)
        run.examples = tuple(dict.fromkeys((*run.examples, *examples)))[:MOST_EXAMPLES]
        if has_news and now >= run.remembered_at + REMEMBER_SECONDS:
            run.remembered_at = now
            self._remember(model, run)
        run.has_news |= has_news or judgement != before or run.shadow != report
        is_urgent = judgement.verdict is not before.verdict
        if run.has_news and (is_urgent or now >= run.shown_at + SHOW_SECONDS):
            run.has_news, run.shown_at = False, now
            run.draw()
            self._journal.dirty.add(model.name)
            self._metrics.record_rollout(model.name, run.to_status())
        if is_urgent and judgement.verdict is not RolloutVerdict.WAIT:
            self._tell_verdict(model, run)
        if run.is_held or run.settings.observe or run.has_passed:
            return
        match judgement.verdict:
            case RolloutVerdict.ROLLBACK:
                self._roll_back(model, run, judgement.reason, JUDGE)
            case RolloutVerdict.PROMOTE:
                self._advance(model, run, judgement.reason, now)
            case RolloutVerdict.INCONCLUSIVE:
                self._settle(model, run, judgement.reason, now)

    def note_shifts(self, model: ModelRecord | None, message: AnswersCompared) -> None:
        """Take in how the answers of both versions are spread."""
        run = None if model is None else model.rollout
        if run is not None and run.number == message.number:
            run.shifts, run.has_news = message.shifts, True

    def _tell_verdict(self, model: ModelRecord, run: RolloutRun) -> None:
        write = log.warning if run.judgement.verdict is not RolloutVerdict.PROMOTE else log.info
        write(
            "rollout_judged",
            model=model.name,
            version=run.new.version,
            phase=run.phase.value,
            share=run.shown_share,
            verdict=run.judgement.verdict.value,
            reason=run.judgement.reason,
            effect=_effect(run),
        )

    def _settle(self, model: ModelRecord, run: RolloutRun, reason: str, now: float) -> None:
        """Do what is set for a step that is over while nothing is proven. A version that is active stays so."""
        if run.is_baking or run.settings.on_inconclusive == "promote":
            self._advance(model, run, reason, now)
        elif run.settings.on_inconclusive == "rollback":
            self._roll_back(model, run, reason, JUDGE)

    def _advance(self, model: ModelRecord, run: RolloutRun, reason: str, now: float) -> None:
        if run.is_baking:
            self._end(model, run, RolloutEnd.PROMOTED, reason, JUDGE)
            self._activation.publish_standbys(model)
        elif run.step < run.steps:
            run.enter(run.phase, run.step + 1, now)
            self._journal.operator(model, GATE, JUDGE, run.new.version, f"{_describe(run)}: {reason}")
            self._go_on(model, run)
            reach("rollout-stepped")
        else:
            run.has_passed = True
            self._journal.dirty.add(model.name)

    # --- what operators do -------------------------------------------------------------------------------------------

    def steer(self, model: ModelRecord, decision: SteerRollout, actor: str) -> None:
        """Carry out an operator's word. Raises OperationRefused, and StateUnavailable; then nothing has changed."""
        run = model.rollout
        if run is None:
            self._steer_none(model, decision, actor)
            return
        if decision.version is not None and decision.version != run.new.version:
            raise OperationRefused(
                f"version '{run.new.version}' of '{model.name}' is on its way, not '{decision.version}'; "
                "nothing was changed"
            )
        match decision.action:
            case RolloutAction.PROMOTE:
                self._promote(model, run, actor)
            case RolloutAction.ROLLBACK:
                self._decisions.quarantine_version(run.new.id)
                self._roll_back(model, run, f"rolled back by {actor}", actor)
            case RolloutAction.HOLD | RolloutAction.RESUME:
                is_held = decision.action is RolloutAction.HOLD
                if is_held != run.is_held:
                    self._remembered.decide(model.name, self._to_remember(model, run, is_held=is_held))
                    run.is_held = is_held
                    self._journal.operator(model, GATE, actor, run.new.version, decision.action.value)

    def _steer_none(self, model: ModelRecord, decision: SteerRollout, actor: str) -> None:
        """Do what can be done where no rollout is under way, or refuse it; what has been done already is success."""
        known = self._remembered.get(model.name)
        ended = {RolloutAction.PROMOTE: RolloutEnd.PROMOTED, RolloutAction.ROLLBACK: RolloutEnd.ROLLED_BACK}
        last = known.last
        if last is not None and decision.version in (None, last.version) and ended.get(decision.action) is last.end:
            return
        if decision.action is RolloutAction.RESUME and known.is_stopped:
            self._remembered.decide(model.name, replace(known, is_stopped=False, rollbacks=0))
            self._journal.operator(model, GATE, actor, None, "resume")
            return
        advice = "; 'serving rollback' leaves the active version" if decision.action is RolloutAction.ROLLBACK else ""
        stopped = f"; {_stopped(model.name)}" if known.is_stopped else ""
        raise OperationRefused(f"no version of '{model.name}' is on its way to take over{advice}{stopped}")

    def _promote(self, model: ModelRecord, run: RolloutRun, actor: str) -> None:
        """Let the new version answer everything from now on: an operator's word needs no proof."""
        run.judgement = replace(run.judgement, reason=f"promoted by {actor}")
        self._end(model, run, RolloutEnd.PROMOTED, run.judgement.reason, actor)
        if not run.is_baking:
            self._activation.activate(model, run.new)

    # -----------------------------------------------------------------------------------------------------------------

    def _roll_back(self, model: ModelRecord, run: RolloutRun, reason: str, actor: str) -> None:
        """Take the new version back, and never serve its bytes again until they are released."""
        reach("rollout-failed")
        model.last_failure = Failure(version=run.new.version, gate=GATE, reason=reason, at=now_utc())
        write = log.error if actor == JUDGE else log.info
        examples = [one.model_dump() for one in run.examples]
        write("rolled_back", model=model.name, version=run.new.version, actor=actor, reason=reason, examples=examples)
        self._end(model, run, RolloutEnd.ROLLED_BACK, reason, actor)
        if actor == JUDGE:
            self._decisions.quarantine_soon(run.new.id)  # together with the evidence, which waits to be written
        reach("rolled-back")

    def _end(self, model: ModelRecord, run: RolloutRun, end: RolloutEnd, reason: str, actor: str) -> None:
        """Forget a rollout. The plan without it is published with the next step of the model."""
        model.rollout = None
        self._note_end(model, run.to_past(end, reason, actor))
        if run.new.state in (State.CANARY, State.SHADOW) and end is not RolloutEnd.PROMOTED:
            self._journal.move(run.new, State.READY, f"{end.value}: {reason}")

    def _end_remembered(self, model: ModelRecord, record: VersionRecord) -> None:
        """End a rollout from before a restart, if it cannot go on because `record` becomes active."""
        before = self._remembered.get(model.name).running
        this = (record.version, record.digest)
        if before is None or this == (before.kept, before.kept_digest):
            return
        if this == (before.version, before.digest):
            end, reason = RolloutEnd.PROMOTED, "it has taken over; since a restart nothing is loaded to compare it with"
        else:
            end, reason = RolloutEnd.SUPERSEDED, f"version '{record.version}' takes over"
        self._note_end(model, describe_end(before.version, before.evidence, end, reason, JUDGE))

    def _note_end(self, model: ModelRecord, past: PastRollout) -> None:
        end, reason, actor = past.end, past.reason, past.actor
        known = self._remembered.get(model.name)
        rollbacks, is_stopped = known.rollbacks, known.is_stopped
        if end is RolloutEnd.PROMOTED or actor != JUDGE:
            rollbacks = 0
        elif end is RolloutEnd.ROLLED_BACK:
            rollbacks += 1
            is_stopped = rollbacks >= MOST_ROLLBACKS
        self._remembered.note(model.name, RememberedRollout(None, past, rollbacks, is_stopped))
        if is_stopped and not known.is_stopped:
            log.error("rollouts_stopped", model=model.name, reason=_stopped(model.name))
        self._journal.operator(model, GATE, actor, past.version, f"{end.value}: {reason}")
        self._metrics.count_rollout(model.name, end.value)

    def _go_on(self, model: ModelRecord, run: RolloutRun) -> None:
        model.rollout = run
        self._remember(model, run)
        self._activation.publish(model)
        self._journal.dirty.add(model.name)
        self._metrics.record_rollout(model.name, run.to_status())

    def _remember(self, model: ModelRecord, run: RolloutRun) -> None:
        self._remembered.note(model.name, self._to_remember(model, run, is_held=run.is_held))

    def _to_remember(self, model: ModelRecord, run: RolloutRun, *, is_held: bool) -> RememberedRollout:
        running = RememberedRun(
            version=run.new.version,
            digest=run.new.id.digest,
            kept=run.old.version,
            kept_digest=run.old.id.digest,
            phase=run.phase,
            step=run.step,
            since=run.since,
            is_held=is_held,
            evidence=run.evidence,
        )
        return replace(self._remembered.get(model.name), running=running)

    # --- what is shown -----------------------------------------------------------------------------------------------

    def find_problem(self, model: ModelRecord) -> str | None:
        """Return one line that says why no other version takes over, None if one would."""
        is_stopped = self.is_gradual(model.name) and self.is_stopped(model.name)
        return _stopped(model.name) if is_stopped else None

    def status(self, model: ModelRecord) -> RolloutStatus | None:
        """Return what is shown; None for a model whose versions take over at once, and ever did."""
        known, strategy = self._remembered.get(model.name), self.settings_of(model.name).strategy
        if strategy == "swap" and known == RememberedRollout():
            return None
        running = None if model.rollout is None else model.rollout.to_status()
        return RolloutStatus(
            model=model.name, strategy=strategy, running=running, last=known.last, is_stopped=known.is_stopped
        )

    def forget(self, model: str) -> None:
        """Forget a model that is gone."""
        self._remembered.forget(model)


def _resume(run: RolloutRun, before: RememberedRun) -> None:
    """Go on from where a rollout was before a restart: in its step, which begins anew, on the same evidence."""
    run.since, run.is_held = before.since, before.is_held
    if before.phase is run.phase:
        run.step = min(before.step, run.steps)
        run.evidence = replace(before.evidence, bounds=run.evidence.bounds, places=run.evidence.places)


def _describe(run: RolloutRun) -> str:
    if run.is_shadow:
        return f"answers copies of what version '{run.old.version}' answers"
    return f"answers {run.shown_share:g} % of the requests, version '{run.old.version}' the others"


def _effect(run: RolloutRun) -> str:
    if run.is_held or run.settings.observe:
        return "none: it is held" if run.is_held else "none: rollout.observe is set"
    if run.judgement.verdict is RolloutVerdict.INCONCLUSIVE and not run.is_baking:
        return {"hold": "it stays as it is"}.get(run.settings.on_inconclusive, run.settings.on_inconclusive)
    return run.judgement.verdict.value


def _stopped(model: str) -> str:
    return (
        f"{MOST_ROLLBACKS} new versions in a row were rolled back; no other one takes over until somebody has looked: "
        f"'serving rollout {model} resume'"
    )

"""One rollout under way, as control keeps it. Reconciler thread only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from serving.domain.judge import Evidence, JudgeBounds, Judgement, Outcomes, Pace, RolloutVerdict, judge
from serving.domain.plan import Split
from serving.domain.rollout import (
    AnswerCount,
    BadExample,
    CurvePoint,
    PastRollout,
    RolloutEnd,
    RolloutPhase,
    RunningRollout,
    ShadowReport,
    Shift,
)
from serving.lifecycle.records import VersionRecord, now_utc
from serving.settings import RolloutSettings
from serving.telemetry.split_counts import SplitCount

MOST_POINTS = 120
NOTHING = SplitCount()
BEGUN = Judgement(RolloutVerdict.WAIT, "it has just begun")


@dataclass(eq=False, slots=True)
class RolloutRun:
    """A new version beside the old one. `step` counts from 1. Times with `_at` are monotonic.

    `has_passed`: it may become active. `counted` is what has been counted under the number of the present split.
    """

    new: VersionRecord
    old: VersionRecord
    settings: RolloutSettings
    phase: RolloutPhase
    step: int
    since: datetime
    evidence: Evidence
    number: int = 0
    remembered_at: float = 0.0
    shown_at: float = 0.0
    has_news: bool = False
    is_held: bool = False
    has_passed: bool = False
    step_since: datetime = field(default_factory=now_utc)
    step_began_at: float = 0.0
    counted: SplitCount = NOTHING
    judgement: Judgement = BEGUN
    curve: list[CurvePoint] = field(default_factory=list)
    examples: tuple[BadExample, ...] = ()
    shadow: ShadowReport | None = None
    shifts: tuple[Shift, ...] = ()
    compare_at: float = 0.0

    @classmethod
    def begin(
        cls, new: VersionRecord, old: VersionRecord, settings: RolloutSettings, places: int, now: float
    ) -> RolloutRun:
        """Return a rollout that begins at this monotonic time; `places` is how many processes count the answers."""
        phase = RolloutPhase.SHADOW if settings.strategy == "shadow" else RolloutPhase.CANARY
        bounds = JudgeBounds(settings.alpha, settings.tolerance, settings.margin, settings.acceptable)
        run = cls(new, old, settings, phase, 1, now_utc(), Evidence(bounds, places=places))
        run.enter(phase, 1, now)
        return run

    def enter(self, phase: RolloutPhase, step: int, now: float) -> None:
        """Begin a step; what is counted from now on is counted anew."""
        self.phase, self.step, self.has_passed, self.judgement = phase, step, False, BEGUN
        self.step_since, self.step_began_at = now_utc(), now
        self.number = max(self.number + 1, time.monotonic_ns() // 1000)
        self.counted = NOTHING

    @property
    def is_shadow(self) -> bool:
        """Whether the new version only gets copies."""
        return self.phase is RolloutPhase.SHADOW

    @property
    def is_baking(self) -> bool:
        """Whether the new version is active, and the old one keeps a part."""
        return self.phase is RolloutPhase.BAKE

    @property
    def steps(self) -> int:
        """How many steps there are in this phase."""
        return len(self.settings.steps) if self.phase is RolloutPhase.CANARY else 1

    @property
    def share(self) -> float:
        """The part of the requests that the new version answers, from 0 to 1."""
        match self.phase:
            case RolloutPhase.SHADOW:
                return 0.0
            case RolloutPhase.CANARY:
                return self.settings.steps[self.step - 1] / 100.0
            case RolloutPhase.BAKE:
                return 1.0 - self.settings.holdback / 100.0

    def to_split(self) -> Split:
        """Return how requests are shared now."""
        return Split(
            number=self.number,
            new=self.new.id,
            old=self.old.id,
            share=self.share,
            is_shadow=self.is_shadow,
            sticky=self.settings.sticky,
            slo_seconds=self.settings.slo_seconds,
        )

    def take(self, count: SplitCount) -> bool:
        """Take in what has been counted in the present split so far; returns whether there is anything new."""
        since = count.minus(self.counted)
        if self.is_shadow:  # of a pair that is being written, or was when its worker died, only one half is there
            pairs = min(since.new, since.old)
            since = since._replace(new=pairs, old=pairs)
        if since == NOTHING:
            return False
        self.counted = self.counted.plus(since)
        knows_clients = self.settings.sticky is not None and not self.is_shadow
        new_clients, old_clients = (since.new_clients, since.old_clients) if knows_clients else (None, None)
        new = Outcomes(since.new, since.new_bad, new_clients)
        old = Outcomes(since.old, since.old_bad, old_clients)
        evidence = self.evidence
        self.evidence = evidence.add_pairs(new, old) if self.is_shadow else evidence.add(self.share, new, old)
        return True

    def judge(self, now: float) -> Judgement:
        """Return what the judge says at this monotonic time, and keep it."""
        settings = self.settings
        pace = Pace(settings.bake_seconds, 0) if self.is_baking else Pace(settings.step_seconds, settings.min_requests)
        self.judgement = judge(self.evidence, pace, now - self.step_began_at, self.counted.new)
        return self.judgement

    def draw(self) -> None:
        """Add a point to the curve; of many, every second one is kept."""
        if len(self.curve) >= MOST_POINTS:
            del self.curve[1::2]
        self.curve.append(CurvePoint(at=now_utc(), e_value=_shown(self.evidence), share=self.shown_share))

    @property
    def shown_share(self) -> float:
        """The share in percent."""
        return round(100.0 * self.share, 6)

    def to_status(self) -> RunningRollout:
        """Return what is shown of it."""
        new, old = _counts(self.evidence)
        return RunningRollout(
            version=self.new.version,
            against=self.old.version,
            phase=self.phase,
            step=self.step,
            steps=self.steps,
            share=self.shown_share,
            since=self.since,
            step_since=self.step_since,
            is_held=self.is_held,
            observe=self.settings.observe,
            verdict=self.judgement.verdict,
            reason=self.judgement.reason,
            e_value=_shown(self.evidence),
            threshold=1.0 / self.settings.alpha,
            new=new,
            old=old,
            curve=tuple(self.curve),
            shadow=self.shadow,
            shifts=self.shifts,
            examples=self.examples,
        )

    def to_past(self, end: RolloutEnd, reason: str, actor: str) -> PastRollout:
        """Return what is remembered of it when it has ended."""
        past = describe_end(self.new.version, self.evidence, end, reason, actor)
        return past.model_copy(update={"shadow": self.shadow, "examples": self.examples})


def describe_end(version: str, evidence: Evidence, end: RolloutEnd, reason: str, actor: str) -> PastRollout:
    """Return what is remembered of the rollout of a version that has ended now."""
    new, old = _counts(evidence)
    e_value = _shown(evidence)
    return PastRollout(
        version=version, end=end, at=now_utc(), reason=reason, actor=actor, e_value=e_value, new=new, old=old
    )


def _counts(evidence: Evidence) -> tuple[AnswerCount, AnswerCount]:
    return (
        AnswerCount(answers=evidence.candidate.answers, bad=evidence.candidate.bad),
        AnswerCount(answers=evidence.active.answers, bad=evidence.active.bad),
    )


def _shown(evidence: Evidence) -> float:
    """Return the e-value, not above what JSON has."""
    return min(evidence.e_value, 1e300)


SettingsOf = Callable[[str], RolloutSettings]
"""Returns how versions of a model take over."""

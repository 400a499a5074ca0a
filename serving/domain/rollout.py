"""Rollouts as the outside sees them: how a new version takes over from the active one, step by step.

The field names are the JSON of the HTTP interface.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from serving.domain.judge import RolloutVerdict
from serving.domain.snapshot import Snapshot


class RolloutPhase(StrEnum):
    """How far a rollout is: the new version answers copies, a share, or all but what the old one keeps."""

    SHADOW, CANARY, BAKE = "shadow", "canary", "bake"


class RolloutEnd(StrEnum):
    """How a rollout has ended. SUPERSEDED: something else was wanted meanwhile."""

    PROMOTED, ROLLED_BACK, SUPERSEDED = "promoted", "rolled-back", "superseded"


class RolloutAction(StrEnum):
    """What an operator may do with a rollout."""

    PROMOTE, ROLLBACK, HOLD, RESUME = "promote", "rollback", "hold", "resume"


class AnswerCount(Snapshot):
    """What one version has answered since the rollout began: requests, and how many of them went bad."""

    answers: int = 0
    bad: int = 0


class CurvePoint(Snapshot):
    """The evidence at one moment, and the share of requests in percent."""

    at: datetime
    e_value: float
    share: float


class BadExample(Snapshot):
    """One kind of bad answer of the new version. `detail` says what was wrong, without any value out of its rows."""

    status: int
    detail: str


class OutputDifference(Snapshot):
    """How the two versions differ in one output, over pairs of answers to the same rows.

    Labels have `differing`, numbers `mean` and `worst`, which are absolute differences.
    """

    output: str
    rows: int
    differing: int = 0
    mean: float | None = None
    worst: float | None = None


class ShadowReport(Snapshot):
    """What came of the copies: pairs that were compared, copies that were dropped for lack of room, and failures of one
    side only.
    """

    pairs: int = 0
    dropped: int = 0
    failed_new: int = 0
    failed_old: int = 0
    differences: tuple[OutputDifference, ...] = ()


class Shift(Snapshot):
    """How the answers of the new version are spread, beside those of the old one: evidence, never a verdict.

    `effect` is 0 for equal ones and 1 for ones that never meet (the largest distance of the cumulated shares).
    """

    output: str
    effect: float
    old: dict[str, float]
    new: dict[str, float]


class PastRollout(Snapshot):
    """How the last rollout of a model has ended."""

    version: str
    end: RolloutEnd
    at: datetime
    reason: str
    actor: str
    e_value: float
    new: AnswerCount
    old: AnswerCount
    shadow: ShadowReport | None = None
    examples: tuple[BadExample, ...] = ()


class RunningRollout(Snapshot):
    """A rollout under way.

    `step` counts from 1, and `share` is in percent. `verdict` and `reason` are the judge's last word: why it has moved,
    or why not. `threshold` is the e-value from which on the new version goes back. With `is_held` an operator has
    stopped it where it is; with `observe` nothing comes of a verdict.
    """

    version: str
    against: str
    phase: RolloutPhase
    step: int
    steps: int
    share: float
    since: datetime
    step_since: datetime
    is_held: bool = False
    observe: bool = False
    verdict: RolloutVerdict = RolloutVerdict.WAIT
    reason: str = ""
    e_value: float = 1.0
    threshold: float
    new: AnswerCount = AnswerCount()
    old: AnswerCount = AnswerCount()
    curve: tuple[CurvePoint, ...] = ()
    shadow: ShadowReport | None = None
    shifts: tuple[Shift, ...] = ()
    examples: tuple[BadExample, ...] = ()


class RolloutStatus(Snapshot):
    """``GET /models/{model}/rollout``: what is set, what is under way, and how the last one ended.

    `is_stopped`: two in a row were rolled back by themselves, so no other begins until an operator resumes.
    """

    model: str
    strategy: str
    running: RunningRollout | None = None
    last: PastRollout | None = None
    is_stopped: bool = False


class RolloutSummary(Snapshot):
    """A model's rollout in ``GET /models``, null there while nothing is under way and nothing is stopped.

    `version` is the new one, None while nothing is under way; the other fields are those of `RunningRollout` and
    `RolloutStatus`.
    """

    version: str | None = None
    phase: RolloutPhase | None = None
    share: float = 0.0
    is_held: bool = False
    verdict: RolloutVerdict | None = None
    reason: str = ""
    is_stopped: bool = False

    @classmethod
    def of(cls, status: RolloutStatus | None) -> RolloutSummary | None:
        """Leave out what is long."""
        if status is None or (status.running is None and not status.is_stopped):
            return None
        if status.running is None:
            return cls(is_stopped=True)
        names = cls.model_fields.keys() & RunningRollout.model_fields.keys()
        return cls(is_stopped=status.is_stopped, **{name: getattr(status.running, name) for name in names})

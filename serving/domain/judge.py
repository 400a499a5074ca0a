"""Judges a new version beside the active one by their bad events: pure, counts in and a verdict out.

Given that an event is bad, the chance that it came from the candidate is ``theta = share * r / (share * r + 1 -
share)``: `share` is the candidate's part of the requests, and `r` how many times more often its requests go bad. How
much is asked, and how often everything goes bad, cancels out of it: only who had the event counts. docs/rollouts.md
derives it, and says what it cannot see.

Three questions are asked of it, each by an e-value: the mean of likelihood ratios over several alternatives. If the
answer is no, it is 1 or less on average at every moment, so it ever reaches ``1 / alpha`` with a chance of `alpha` at
most (Ville), however often it is looked at:

- Is the candidate worse, ``r > 1 + tolerance``? Then it goes back.
- Is it as good as another, ``r < margin``?
- Do few of its requests go bad, a share below `acceptable`? This one needs no bad event: 460 good answers and none bad
  say "below 1 in 100" at 99 percent. Either of these two lets a step pass.

Sources: M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022), for the
comparison; S. Howard et al., "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021), for mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

WORSE = (1.5, 2.0, 4.0, 8.0, 32.0)
"""How many times worse a candidate may be; those within the tolerance are left out."""
BETTER = (0.75, 0.5, 0.25, 0.1, 0.0)
"""What a candidate may be, in parts of `margin` or of `acceptable`."""
LEAST_BAD = 2  # of a candidate, before it goes back: one event is an accident
LEAST_CLIENTS = 3  # that had these, where clients are known: what one client sends says little about a version
MOST_LOG = 700.0  # of evidence: more makes no difference
PAIRED = 0.5  # the candidate's share where both versions answer every request


class RolloutVerdict(StrEnum):
    """What is to be done: go back, go on to the next step, wait for more, or ask whoever has settled that."""

    ROLLBACK, PROMOTE, WAIT, INCONCLUSIVE = "rollback", "promote", "wait", "inconclusive"


@dataclass(frozen=True, slots=True)
class JudgeBounds:
    """What counts as worse and as good. `tolerance` and `margin` are of ratios, `acceptable` is a share of requests.

    Requires ``0 < alpha < 1``, ``0 <= tolerance``, ``margin > 1`` and ``0 < acceptable < 1``.
    """

    alpha: float = 0.01
    tolerance: float = 0.1
    margin: float = 2.0
    acceptable: float = 0.01


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Requests that one version has answered, and how many of them went bad.

    `clients` is how many clients had bad answers that had none before, where a key keeps each client on one version; a
    request without a key is a client of its own. None: chance decides for each request. A client that always sends what
    no version can answer is one piece of evidence, not one with each request: all its requests have gone to the same
    version by one throw of the dice.
    """

    answers: int = 0
    bad: int = 0
    clients: int | None = None

    def __add__(self, other: Outcomes) -> Outcomes:
        known = [each for each in (self.clients, other.clients) if each is not None]
        return Outcomes(self.answers + other.answers, self.bad + other.bad, sum(known) if known else None)

    @property
    def bad_share(self) -> float:
        """The part of them that went bad; 0 if there are none."""
        return self.bad / self.answers if self.answers else 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step lasts at least: seconds, and answers of the candidate."""

    step_seconds: float
    min_requests: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the counts of one rollout say so far. Never changed; `add` returns the next one.

    The three tuples hold the logarithms of likelihood ratios, one for each alternative. `places` is how often the same
    client may be among the `clients` of one share: as often as there are processes that count them. Comparisons are
    weakened by that: the mean of the processes' e-values is one, too, and their geometric mean is no larger.
    """

    bounds: JudgeBounds
    candidate: Outcomes = Outcomes()
    active: Outcomes = Outcomes()
    worse: tuple[float, ...] = (0.0,) * len(WORSE)
    as_good: tuple[float, ...] = (0.0,) * len(BETTER)
    rarely_bad: tuple[float, ...] = (0.0,) * len(BETTER)
    places: int = 1

    def add(self, share: float, candidate: Outcomes, active: Outcomes) -> Evidence:
        """Take in what has been answered while the candidate had this share of the requests, chosen by chance.

        Without a choice, a share of 0 or 1, who had an event says nothing; only the candidate's own share of bad
        answers counts then.
        """
        bounds = self.bounds
        worse, as_good = self.worse, self.as_good
        if 0.0 < share < 1.0:
            worst_fine = 1.0 + bounds.tolerance
            hits, misses = self._weigh(candidate), self._weigh(active)
            worse = _add(worse, hits, misses, (_theta(share, r) for r in WORSE), _theta(share, worst_fine))
            ratios = (_theta(share, part * bounds.margin) for part in BETTER)
            as_good = _add(as_good, hits, misses, ratios, _theta(share, bounds.margin))
        shares = (part * bounds.acceptable for part in BETTER)
        rarely_bad = _add(self.rarely_bad, candidate.bad, candidate.answers - candidate.bad, shares, bounds.acceptable)
        return replace(
            self,
            candidate=self.candidate + candidate,
            active=self.active + active,
            worse=worse,
            as_good=as_good,
            rarely_bad=rarely_bad,
        )

    def _weigh(self, outcomes: Outcomes) -> float:
        return outcomes.bad if outcomes.clients is None else outcomes.clients / self.places

    def add_pairs(self, candidate: Outcomes, active: Outcomes) -> Evidence:
        """Take in pairs: requests that both versions have answered, as when one of them gets copies.

        That is exact with a share of one half. For one pair the mean of a likelihood ratio is ``1 + p(x-1) + q(y-1) +
        d(x-1)(y-1)``: p and q are the chances that the candidate and the active version go bad, d that both do, x and y
        the factors for each. One of x and y is above 1 and the other one below, so d only makes it smaller, and
        without d it is at most 1 just where the question is answered by no. A copy that was dropped is in no pair.
        Raises ValueError where the answers are not as many.
        """
        if candidate.answers != active.answers:
            raise ValueError(f"{candidate.answers} answers and {active.answers} are no pairs")
        return self.add(PAIRED, candidate, active)

    @property
    def e_value(self) -> float:
        """The evidence that the candidate is worse; ``1 / alpha`` is enough."""
        return _mean([log for log, ratio in zip(self.worse, WORSE, strict=True) if ratio > 1.0 + self.bounds.tolerance])

    @property
    def is_worse(self) -> bool:
        """Whether it is proven worse, by more than what is acceptable anyway, and for more than a few clients."""
        return (
            self.is_convincing
            and self.candidate.bad >= LEAST_BAD
            and self.candidate.bad_share > self.bounds.acceptable
            and not self.has_few_clients
        )

    @property
    def has_few_clients(self) -> bool:
        """Whether so few clients had bad answers of the candidate that these may be to blame."""
        clients = self.candidate.clients
        return clients is not None and clients < LEAST_CLIENTS * self.places

    @property
    def is_convincing(self) -> bool:
        """Whether the evidence that it is worse is enough, whatever else is needed for it to go back."""
        return self.e_value >= 1.0 / self.bounds.alpha

    @property
    def as_good_value(self) -> float:
        """The evidence that the candidate is as good as the active version."""
        return _mean(self.as_good)

    @property
    def is_good(self) -> bool:
        """Whether it is proven as good as the active version, or to go bad rarely."""
        return max(self.as_good_value, _mean(self.rarely_bad)) >= 1.0 / self.bounds.alpha


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and why in one line."""

    verdict: RolloutVerdict
    reason: str


def judge(evidence: Evidence, pace: Pace, seconds: float, answers: int) -> Judgement:
    """Judge a candidate that has been in its step for so many seconds and given so many answers there.

    INCONCLUSIVE comes only when the step has lasted as long as `pace` says; it is no last word, and later evidence can
    still prove either.
    """
    bounds = evidence.bounds
    if evidence.is_worse:
        strength = f"evidence {evidence.e_value:.3g} of {1 / bounds.alpha:.3g}"
        return Judgement(RolloutVerdict.ROLLBACK, f"worse: {_describe_counts(evidence)}; {strength}")
    if answers < pace.min_requests:
        return Judgement(RolloutVerdict.WAIT, f"{answers} of {pace.min_requests} requests in this step")
    if seconds < pace.step_seconds:
        return Judgement(RolloutVerdict.WAIT, f"{seconds:.0f} of {pace.step_seconds:.0f} s in this step")
    if evidence.is_good:
        return Judgement(RolloutVerdict.PROMOTE, _describe_counts(evidence))
    return Judgement(RolloutVerdict.INCONCLUSIVE, f"{_describe_doubt(evidence)}: {_describe_counts(evidence)}")


def _describe_counts(evidence: Evidence) -> str:
    candidate, active = evidence.candidate, evidence.active
    return f"{candidate.bad} of {candidate.answers} went bad, {active.bad} of {active.answers} of the active version"


def _describe_doubt(evidence: Evidence) -> str:
    """Say why a candidate neither goes back nor passes."""
    candidate = evidence.candidate
    if not evidence.is_convincing:
        return "neither worse nor proven good"
    if evidence.has_few_clients:
        return f"worse, but for fewer than {LEAST_CLIENTS} clients"
    if candidate.bad < LEAST_BAD:
        return "worse by a single answer"
    return f"worse, but for no more than the acceptable {evidence.bounds.acceptable:.3g} of its answers"


def _theta(share: float, ratio: float) -> float:
    return share * ratio / (share * ratio + 1.0 - share)


def _add(
    logs: tuple[float, ...], hits: float, misses: float, chances: Iterable[float], chance: float
) -> tuple[float, ...]:
    """Add the likelihood ratios of so many hits and misses, for chances of a hit against one chance."""
    found = []
    for log, other in zip(logs, chances, strict=True):
        hit = hits * _log(other / chance) if hits else 0.0
        found.append(log + hit + misses * math.log((1.0 - other) / (1.0 - chance)))
    return tuple(found)


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf


def _mean(logs: Iterable[float]) -> float:
    """Return the mean of what these are the logarithms of, at most a number that JSON can hold."""
    values = list(logs)
    most = max(values, default=-math.inf)
    if most == -math.inf:
        return 0.0
    return math.exp(min(MOST_LOG, most + math.log(sum(math.exp(one - most) for one in values) / len(values))))

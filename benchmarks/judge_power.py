"""How much the judge of a rollout needs to see: the tables of docs/rollouts.md.

``python -m benchmarks.judge_power`` draws rollouts by chance, with a fixed seed, and writes what came out into the
page. Takes some seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from serving.domain.judge import Evidence, JudgeBounds, Outcomes
from tests.unit.domain.many_rollouts import Bools, Course, Floats, Rollouts, draw_rollouts

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rollouts.md"
BEGIN, END = "<!-- written by python -m benchmarks.judge_power -->", "<!-- end -->"
BOUNDS = JudgeBounds()
ROLLOUTS = 2000
SHARES = (0.05, 0.1, 0.25, 0.5)
RATIOS = {2.0: 1200, 5.0: 250, 20.0: 60}  # and how many bad events are drawn of each
USUALLY_BAD = 0.01  # of the active version's answers
FAILING = (1.0, 0.2, 0.05)


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{write_tables()}\n\n{END}{rest.partition(END)[2]}")


def write_tables() -> str:
    """Return the tables, and what each of them says."""
    return "\n\n".join(_write_parts())


def _write_parts() -> Iterable[str]:
    yield (
        f"**Until a worse version goes back**, by how many times more often its answers go bad: bad events of both "
        f"versions together, and in brackets the requests that this takes where {USUALLY_BAD:.0%} of the active "
        f"version's go bad. Median / 90 percent."
    )
    yield _table(["share", *(f"{ratio:g} times" for ratio in RATIOS)], [_worse_row(share) for share in SHARES])
    yield (
        "**Until a version that fails goes back, while the active one does not**: requests of both versions together, "
        "and in brackets how many of them failed. Median / 90 percent."
    )
    yield _table(["share", *(f"fails {each:.0%}" for each in FAILING)], [_failing_row(share) for share in SHARES])
    yield (
        f"**Until a step is passed.** The new version's answers that show that fewer than {BOUNDS.acceptable:.0%} go "
        f"bad, by how many do: median / 90 percent."
    )
    yield _table(
        ["none", "1 in 1000", "1 in 500", "1 in 200"], [[_rare_cell(rate) for rate in (0, 0.001, 0.002, 0.005)]]
    )
    yield (
        f"Bad events of both versions together that show that the new one's go bad less than {BOUNDS.margin:g} times "
        f"as often, by how often they do: median / 90 percent."
    )
    ratios = (0.5, 1.0, 1.5)
    yield _table(["share", *(f"{ratio:g} times" for ratio in ratios)], [_good_row(share, ratios) for share in SHARES])


def _worse_row(share: float) -> list[str]:
    cells = [f"{share:.0%}"]
    for ratio, most in RATIOS.items():
        events = _find_first(_draw(share, ratio, most).roll_back(BOUNDS))
        requests = events / (USUALLY_BAD * (share * ratio + 1.0 - share))
        cells.append(f"{_describe(events)} ({_describe(requests)})")
    return cells


def _failing_row(share: float) -> list[str]:
    """Nothing but the new version goes bad, so what decides is how many bad answers are enough."""
    dice = np.random.default_rng(7)
    evidence, enough = Evidence(BOUNDS), 0
    while not evidence.is_worse:
        evidence, enough = evidence.add(share, Outcomes(1, 1), Outcomes()), enough + 1
    cells = [f"{share:.0%}"]
    for failing in FAILING:
        chance = share * failing  # of each request
        waits = np.ceil(np.log1p(-dice.random((ROLLOUTS, enough))) / np.log1p(-chance))
        cells.append(f"{_describe(waits.sum(axis=1))} ({enough})")
    return cells


def _rare_cell(rate: float) -> str:
    """The answers come in portions of twenty."""
    dice = np.random.default_rng(7)
    found = []
    for _ in range(1 if rate == 0 else 100):
        evidence = Evidence(BOUNDS)
        while not evidence.is_good:
            evidence = evidence.add(0.0, Outcomes(20, int((dice.random(20) < rate).sum())), Outcomes())
        found.append(evidence.candidate.answers)
    return _describe(np.array(found, dtype=float))


def _good_row(share: float, ratios: Sequence[float]) -> list[str]:
    drawn = (_draw(share, ratio, 1200).as_good(BOUNDS.margin) for ratio in ratios)
    return [f"{share:.0%}", *(_describe(_find_first(each >= 1.0 / BOUNDS.alpha)) for each in drawn)]


def _draw(share: float, ratio: float, events: int) -> Rollouts:
    course = Course(np.full(events, share), np.zeros(events, dtype=np.int64))
    return draw_rollouts(np.random.default_rng(7), course, ROLLOUTS, ratio)


def _find_first(found: Bools) -> Floats:
    """Return after how many events it was found, infinity where it was not."""
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1.0, np.inf)


def _describe(numbers: Floats) -> str:
    return " / ".join(_shorten(float(np.quantile(numbers, part, method="higher"))) for part in (0.5, 0.9))


def _shorten(number: float) -> str:
    """Return a number with two digits that count, where it is large."""
    if number == np.inf:
        return "more"
    if number < 100:
        return f"{number:.0f}"
    return f"{float(f'{number:.2g}'):,.0f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["--:"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()

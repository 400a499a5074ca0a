"""How ``serving rollout`` shows a rollout: lines of text, made from its status alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from serving.cli.output import one_line, show
from serving.cli.status_output import ServerStatus, format_time
from serving.domain.rollout import (
    AnswerCount,
    CurvePoint,
    PastRollout,
    RolloutEnd,
    RolloutPhase,
    RolloutStatus,
    RolloutSummary,
    RunningRollout,
    ShadowReport,
    Shift,
)

WIDTH, ROWS_PER_POWER = 60, 3  # of the curve, in characters
LOWEST_POWER = -2  # evidence below a hundredth looks the same
EXAMPLES, SHIFTS = 5, 5

_ENDS = {
    RolloutEnd.PROMOTED: "was promoted",
    RolloutEnd.ROLLED_BACK: "went back",
    RolloutEnd.SUPERSEDED: "was superseded",
}


def describe_rollout(status: RolloutStatus, now: datetime) -> list[str]:
    """Return what there is to say of the rollouts of a model, as printable lines; `now` has a time zone."""
    lines = list(_describe_running(status, status.running, now)) if status.running else [_describe_idle(status)]
    if status.is_stopped:
        lines.append(describe_stop(status.model))
    if status.last is not None:
        lines.extend(_describe_last(status.last))
    return [_keep_columns(line) for line in lines]


def show_rollouts(whole: ServerStatus) -> None:
    """Show a line for each rollout that is under way, and for each model where they have stopped."""
    for model in whole.models:
        for line in describe_summary(model.name, model.rollout) if model.rollout is not None else ():
            show(line)


def describe_summary(model: str, rollout: RolloutSummary) -> list[str]:
    """Return what is said of a rollout in a line, and of a stop, as printable lines."""
    lines = []
    if rollout.version is not None and rollout.phase is not None:
        held = "held by an operator" if rollout.is_held else f"{rollout.verdict}: {rollout.reason}"
        lines.append(f"{model}/{rollout.version}: {_describe_part(rollout.phase, rollout.share)}; {held}")
    if rollout.is_stopped:
        lines.append(describe_stop(model))
    return [one_line(line) for line in lines]


def describe_stop(model: str) -> str:
    """Return what to do where rollouts have stopped."""
    return f"{model}: two rollouts in a row went back, so none begins until 'serving rollout {model} resume'"


def _keep_columns(line: str) -> str:
    """Return foreign text as a printable line, with the spaces of its columns."""
    return "".join(character if character.isprintable() else "?" for character in line)


def _describe_idle(status: RolloutStatus) -> str:
    how = {"swap": "at once", "shadow": "after copies of requests", "canary": "share by share"}
    takes = how.get(status.strategy, "as the settings say")
    return f"{status.model}: nothing is under way; new versions take over {takes} ({status.strategy})"


def _describe_running(status: RolloutStatus, running: RunningRollout, now: datetime) -> Iterator[str]:
    part = _describe_part(running.phase, running.share)
    step = f", step {running.step} of {running.steps}" if running.phase is RolloutPhase.CANARY else ""
    seconds = (
        f"{_describe_seconds(running.step_since, now)} in this step, {_describe_seconds(running.since, now)} in all"
    )
    yield f"{status.model}/{running.version} beside {running.against}: {part}{step}; {seconds}"
    if running.is_held:
        yield f"held by an operator until 'serving rollout {status.model} resume'"
    if running.observe:
        yield "it is only observed: nothing comes of a verdict"
    yield f"{running.verdict}: {running.reason}" if running.reason else f"{running.verdict}"
    yield from _describe_counts(running)
    yield f"evidence that {running.version} is worse: {running.e_value:.3g}; at {running.threshold:.3g} it goes back"
    yield from draw_curve(running.curve, running.threshold)
    if running.shadow is not None:
        yield from _describe_shadow(running.shadow)
    for shift in sorted(running.shifts, key=lambda one: -one.effect)[:SHIFTS]:
        yield _describe_shift(shift)
    yield from (f"bad answer: {one.status} {one.detail}" for one in running.examples[:EXAMPLES])


def _describe_part(phase: RolloutPhase, share: float) -> str:
    if phase is RolloutPhase.SHADOW:
        return "shadow, it answers copies"
    if phase is RolloutPhase.BAKE:
        return f"active, the version before keeps {100.0 - share:.3g}% of the requests"
    return f"canary, it answers {share:.3g}% of the requests"


def _describe_counts(running: RunningRollout) -> Iterator[str]:
    rows = [(running.version, running.new), (running.against, running.old)]
    cells = [["VERSION", "ANSWERS", "BAD", "PART"], *(_count_cells(version, count) for version, count in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    for row in cells:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([row[0].ljust(widths[0]), *numbers])


def _count_cells(version: str, count: AnswerCount) -> list[str]:
    part = f"{count.bad / count.answers:.2%}" if count.answers else "-"
    return [version, f"{count.answers:,}", f"{count.bad:,}", part]


def _describe_shadow(report: ShadowReport) -> Iterator[str]:
    yield (
        f"copies: {report.pairs:,} compared, {report.dropped:,} dropped; failed on one side only: "
        f"{report.failed_new:,} of the new, {report.failed_old:,} of the old"
    )
    for one in report.differences:
        if one.mean is not None:
            said = f"{one.mean:.3g} on average, {one.worst or 0.0:.3g} at most"
        else:
            said = f"{one.differing:,} labels ({one.differing / max(one.rows, 1):.2%})"
        yield f"differences of {one.output}, {one.rows:,} rows: {said}"


def _describe_shift(shift: Shift) -> str:
    names = list(dict.fromkeys([*shift.old, *shift.new]))[:4]
    told = ", ".join(f"{name} {shift.old.get(name, 0.0):.3g} -> {shift.new.get(name, 0.0):.3g}" for name in names)
    return f"shift of {shift.output}: {shift.effect:.3g} of 1 ({told})"


def _describe_last(last: PastRollout) -> Iterator[str]:
    reason = f": {last.reason}" if last.reason else ""
    yield f"last: {last.version} {_ENDS[last.end]} {format_time(last.at)} by {last.actor}{reason}"
    yield from (f"  bad answer: {one.status} {one.detail}" for one in last.examples[:EXAMPLES])


def _describe_seconds(since: datetime, now: datetime) -> str:
    seconds = max(0, int((now - since).total_seconds()))
    hours, rest = divmod(seconds, 3600)
    if hours:
        return f"{hours} h {rest // 60:02} min"
    return f"{seconds // 60} min {seconds % 60:02} s" if seconds >= 60 else f"{seconds} s"


def draw_curve(curve: Sequence[CurvePoint], threshold: float) -> list[str]:
    """Return a curve of the evidence over time, by powers of ten; the top line is the threshold. None of one point."""
    if len(curve) < 2:
        return []
    top = math.log10(threshold)
    columns = [max(LOWEST_POWER, min(top, math.log10(max(value, 1e-300)))) for value in _spread(curve)]
    bottom = min(-1, math.floor(min(columns)))
    heights = max(2, round((top - bottom) * ROWS_PER_POWER))
    marks = [round((column - bottom) / (top - bottom) * heights) for column in columns]
    labels = {
        round((power - bottom) / (top - bottom) * heights): f"{10.0**power:.3g}"
        for power in range(bottom, math.ceil(top))
    } | {heights: f"{threshold:.3g}"}
    lines = []
    for height in range(heights, -1, -1):
        blank = "-" if height == heights else " "
        plot = "".join("*" if mark == height else blank for mark in marks)
        lines.append(f"{labels.get(height, ''):>7} |{plot}".rstrip())
    first, last = (f"{point.at.astimezone():%H:%M:%S}" for point in (curve[0], curve[-1]))
    return [*lines, f"{'':>7}  {first}{last:>{WIDTH - len(first)}}"]


def _spread(curve: Sequence[CurvePoint]) -> list[float]:
    """Return the evidence for each column: the largest of its time, or what was last known."""
    begin, whole = curve[0].at, (curve[-1].at - curve[0].at).total_seconds()
    found: dict[int, float] = {}
    for point in curve:
        column = round((point.at - begin).total_seconds() / whole * (WIDTH - 1)) if whole > 0 else 0
        found[column] = max(found.get(column, 0.0), point.e_value)
    values, known = [], curve[0].e_value
    for column in range(WIDTH):
        known = found.get(column, known)
        values.append(known)
    return values

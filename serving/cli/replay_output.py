"""What ``serving replay`` prints: the verdict in one line, then the evidence."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from serving.cli.output import one_line

if TYPE_CHECKING:
    from serving.recording.compare_with_record import ReplayTally

MOST_LINES = 10  # of changes, and of reasons


def describe_tally(tally: ReplayTally, name: str) -> list[str]:
    """Return the lines for people; the first one is the verdict."""
    lines = [_describe_verdict(tally, name)]
    answered = tally.equal + tally.differing
    if answered:
        lines.append(f"rows         {answered:,} answered: {tally.equal:,} equal, {tally.differing:,} different")
    if tally.mean is not None:
        lines.append(f"numbers      largest difference {tally.largest:.3g}, mean difference {tally.mean:.3g}")
    if tally.changes:
        lines.append(f"labels       {tally.changes.total():,} changed")
        lines += [f"             {number:,} from {old} to {new}" for (old, new), number in _list_most(tally.changes)]
    for title, reasons in (("refused", tally.refused), ("passed over", tally.skipped)):
        if reasons:
            lines.append(f"{title:<13}{_count_rows(reasons.total())}")
            lines += [f"             {number:,}: {one_line(reason)}" for reason, number in _list_most(reasons)]
    if tally.removed_files:
        files = f"{tally.removed_files:,} file" + "s" * (tally.removed_files != 1)
        lines.append(f"removed      {files}, before they were read: a server keeps record.keep_mb")
    if tally.replayed_seconds:
        now, before = (_describe_times(each) for each in (tally.replayed_seconds, tally.recorded_seconds))
        lines.append(f"latency      {now} (as measured here, over the network)")
        lines.append(f"             {before} (as recorded in the server)")
    return lines


def dump_tally(tally: ReplayTally, model: str, version: str) -> dict[str, Any]:
    """Return the same for programs."""
    changes = [{"from": old, "to": new, "rows": rows} for (old, new), rows in tally.changes.most_common()]
    return {
        "model": model,
        "version": version,
        "is_same": tally.is_same,
        "verdict": _describe_verdict(tally, f"{model}/{version}"),
        "tolerance": tally.tolerance,
        "rows": tally.asked,
        "equal": tally.equal,
        "different": tally.differing,
        "largest_difference": None if tally.mean is None else tally.largest,
        "mean_difference": tally.mean,
        "changed_labels": changes,
        "refused": dict(tally.refused.most_common()),
        "passed_over": dict(tally.skipped.most_common()),
        "removed_files": tally.removed_files,
        "requests": len(tally.replayed_seconds),
        "seconds": _quantiles(tally.replayed_seconds),
        "recorded_seconds": _quantiles(tally.recorded_seconds),
    }


def _describe_verdict(tally: ReplayTally, name: str) -> str:
    within = f"within {tally.tolerance:g}"
    if tally.is_same:
        every = "all " if tally.equal > 1 else ""
        return f"{name} answers {every}{_count_rows(tally.equal)} as recorded, {within}"
    if not tally.asked:
        return f"{name} was asked nothing: there is no record to compare with"
    refused, rows = tally.refused.total(), _count_rows(tally.asked)
    if not tally.differing:
        return f"{name} refuses {refused:,} of {rows}; the others are answered as recorded, {within}"
    more = f" and refuses {refused:,}" if refused else ""
    return f"{name} answers {tally.differing:,} of {rows} differently{more}, {within}"


def _count_rows(rows: int) -> str:
    return f"{rows:,} row" + "s" * (rows != 1)


def _list_most(counter: Counter[Any]) -> list[tuple[Any, int]]:
    return counter.most_common(MOST_LINES)


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    named = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {key: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for key, share in named.items() if ordered}


def _describe_times(seconds: list[float]) -> str:
    return ", ".join(f"{key} {value * 1000:.2f} ms" for key, value in _quantiles(seconds).items())

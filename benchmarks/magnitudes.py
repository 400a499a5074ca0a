"""Compiled forms asked by a sceptic, with numbers of every size: ``python -m benchmarks.magnitudes [ROWS [SEED]]``.

Fits every estimator of scikit-learn that is served, and some 300 with other options, proves each one as a host does,
and compares estimator and graph on adversarial rows that the proof has not seen. Blocks for some ten minutes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import threadpoolctl

from tests.unit.compiling.sceptic import Finding, compare_on_hard_rows
from tests.unit.compiling.sceptic_cases import list_cases

ROWS = 2000


def findings(rows: int = ROWS, seed: int = 0) -> Iterator[Finding]:
    """Yield what came of each estimator, one after the other; see `Finding`. The whole takes minutes."""
    threadpoolctl.threadpool_limits(1)  # as hosts do
    for name, fit in list_cases():
        yield compare_on_hard_rows(name, fit, rows, seed)


def main() -> int:
    """Tell each estimator that differs or has no graph, then the sums; returns 1 when any answer differs."""
    warnings.simplefilter("ignore")
    all_of_them = []
    for finding in findings(*map(int, sys.argv[1:3])):
        all_of_them.append(finding)
        if finding.reason is not None:
            print(f"{finding.name}: stays in its host: {finding.reason}", flush=True)
        for difference in finding.differences[:3]:
            print(f"{finding.name}: DIFFERS: {difference}", flush=True)
    compiled = [finding for finding in all_of_them if finding.reason is None]
    different = sum(len(finding.differences) for finding in compiled)
    rows, answers, unsteady = (
        sum(getattr(each, what) for each in compiled) for what in ("rows", "answers", "unsteady")
    )
    print(f"{len(all_of_them)} estimators, {len(compiled)} compiled: {rows} rows, {answers} numbers")
    print(f"{different} rows differ; {unsteady} more, by no more than the estimator's own answers one ulp away")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Prints the report on a version: gates, needs, environment, the proof of its compiled form, and the verdict."""

from __future__ import annotations

import json

from serving.cli.output import one_line, show, show_table
from serving.domain.environment import Needs, compared_libraries
from serving.domain.pinned_versions import PYTHON
from serving.domain.report import CandidateReport, Verdict

_MOST_SHOWN = 6


def show_report(report: CandidateReport) -> None:
    """Print the whole report for people."""
    show_gates(report)
    _show_needs(report.needs)
    _show_environment(report)
    _show_proof(report)
    show(one_line(f"sandbox: {report.sandbox}"))
    show(describe_verdict(report))


def show_report_as_json(report: CandidateReport) -> None:
    """Print the whole report as JSON, with the names of the report that a server gives over HTTP."""
    document = report.model_dump(mode="json")
    choice = report.environment
    document["environment"] = None if choice is None else choice.name
    document["environment_reason"] = None if choice is None else choice.reason
    document["ready"] = report.is_ready
    show(json.dumps(document, indent=2))


def show_gates(report: CandidateReport) -> None:
    """Print the result of each gate."""
    rows = [
        [result.gate, result.verdict, f"{result.duration_seconds * 1000:.1f}", result.evidence]
        for result in report.gates
    ]
    show_table(["GATE", "VERDICT", "MS", "EVIDENCE"], rows)


def _show_needs(needs: Needs | None) -> None:
    """Show the versions that it was trained with, by who says so, and the modules that its file names."""
    if needs is None:
        return
    first = [*compared_libraries(needs), PYTHON]
    versions = {PYTHON: needs.python, **needs.libraries}
    stated: dict[str, list[str]] = {}
    for name in sorted(versions, key=lambda name: (first.index(name) if name in first else len(first), name)):
        if versions[name] is not None:
            stated.setdefault(needs.sources.get(name, "unknown"), []).append(f"{name} {versions[name]}")
    for source, names in stated.items():
        show(one_line(f"needs: {_join_names(names)} ({source})"))
    if needs.modules:
        show(one_line(f"needs: modules {_join_names(list(needs.modules))}"))


def _show_environment(report: CandidateReport) -> None:
    """Show where it runs, and why. Where nothing fits, the verdict says why."""
    choice = report.environment
    if choice is not None:
        show(one_line(f"environment: {choice.name}: {choice.reason}" if choice.name else "environment: none fits"))


def _show_proof(report: CandidateReport) -> None:
    """Show the proof of the compiled form, if there is one."""
    proof = report.compilation
    if proof is None or proof.engine is None:
        return
    tried = ", ".join(f"{one.rows} {one.kind}" for one in proof.rows)
    show(f"compiled: {tried}; largest difference {proof.largest_difference:.2g}")
    for rows, seconds in ((1, proof.row_seconds), (proof.batch_rows, proof.batch_seconds)):
        if seconds is not None:
            show(f"compiled: {rows} row{'s' * (rows > 1)} in {seconds[1] * 1e6:.0f} us, not {seconds[0] * 1e6:.0f} us")
    guard = proof.guard
    bounds = [f"above {guard.largest:g}"] if guard.largest is not None else []
    bounds += [f"below {guard.smallest:g}"] if guard.smallest is not None else []
    refused = [f"numbers {' or '.join(bounds)}"] if bounds else []
    refused += [f"unknown values in {len(guard.known)} features"] if guard.known else []
    if refused:
        show(f"compiled: refuses {', '.join(refused)}")


def describe_verdict(report: CandidateReport) -> str:
    """Return the verdict as one line."""
    if report.refusal is not None:
        return one_line(f"refused by {report.refusal.gate}: {report.refusal.evidence}")
    if not report.is_ready:
        return "refused: not every gate has answered"
    warnings = sum(result.verdict is Verdict.WARNED for result in report.gates)
    memory = f", {report.memory_bytes / (1 << 20):.2g} MB" if report.memory_bytes is not None else ""
    return f"passed{f' with {warnings} warned' if warnings else ''}: served by {report.engine}{memory}"


def _join_names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more

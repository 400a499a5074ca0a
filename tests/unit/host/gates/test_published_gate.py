"""The published gate: a manifest or quiet time says that all files are complete."""

from __future__ import annotations

from typing import Any

from serving.domain.report import Verdict
from tests.unit.host.candidates import MakeCandidate


def test_quiet_files_are_complete(candidate: MakeCandidate, yes_or_no: Any) -> None:
    result = candidate(yes_or_no).evaluate(quiet_seconds=1.25)["published"]
    assert (result.verdict, result.evidence) == (Verdict.PASSED, "unchanged for 1.25 s when it was taken")


def test_a_manifest_vouches_for_its_files(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    made.write_manifest()
    result = made.evaluate()["published"]
    assert (result.verdict, result.evidence) == (Verdict.PASSED, "manifest.json vouches for 1 files")


def test_files_without_manifest_and_quiet_time_are_refused(candidate: MakeCandidate, yes_or_no: Any) -> None:
    result = candidate(yes_or_no).evaluate(quiet_seconds=None)["published"]
    assert result.verdict is Verdict.REFUSED
    assert "nothing says that the files are complete" in result.evidence

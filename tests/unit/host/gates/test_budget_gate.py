"""The budget gate: the latency of one row and the memory of the process, against the settings."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

import pytest

from serving.domain.report import Verdict
from serving.host.gates import budget_gate
from tests.unit.host.candidates import ROWS, MakeCandidate
from tests.unit.host.gates.test_finite_gate import AddsNumbers


class Slow(AddsNumbers):
    def predict(self, X: Any) -> Any:
        time.sleep(0.03)
        return super().predict(X)


def test_a_fast_model_is_measured_twenty_times(
    candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REPEAT_SECONDS", "SLOW_SECONDS"):
        monkeypatch.setattr(budget_gate, name, 600.0)  # this machine may be busy
    result = candidate(yes_or_no).evaluate()["budget"]
    assert result.verdict is Verdict.PASSED
    assert re.fullmatch(r"one row in [\d.]+ ms \(median of 20\), \d+ MB private", result.evidence)


def test_a_slow_model_is_measured_less_often_and_refused(candidate: MakeCandidate) -> None:
    made = candidate(Slow().fit(ROWS))
    result = made.evaluate(max_latency_seconds=0.02)["budget"]
    assert result.verdict is Verdict.REFUSED
    assert re.fullmatch(
        r"one row in [\d.]+ ms \(median of [1-3]\), allowed 20 ms \(gates.max_latency_seconds\)", result.evidence
    )
    assert made.evaluate(max_latency_seconds=60.0)["budget"].verdict is Verdict.PASSED


def test_a_very_slow_model_is_measured_once(candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_gate, "SLOW_SECONDS", 0.02)
    assert "(median of 1)" in candidate(Slow().fit(ROWS)).evaluate()["budget"].evidence


def test_more_memory_than_allowed_is_refused(candidate: MakeCandidate, yes_or_no: Any) -> None:
    result = candidate(yes_or_no).evaluate(memory_bytes=1 << 20)["budget"]
    assert result.verdict is Verdict.REFUSED
    assert re.fullmatch(r"\d+ MB private, allowed 1 MB \(candidate.memory_mb\)", result.evidence)


def test_private_memory_grows_with_what_is_allocated() -> None:
    """Measured in a separate process: this one may free much memory at any time."""
    script = (
        "import numpy as np\n"
        "from serving.host.gates.budget_gate import read_private_bytes, read_resident_bytes\n"
        "before, resident = read_private_bytes(), read_resident_bytes()\n"
        "ballast = np.ones(8 << 20)\n"
        "print((read_private_bytes() - before) / ballast.nbytes, (read_resident_bytes() - resident) / ballast.nbytes)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(0.9 < float(grown) < 1.2 for grown in done.stdout.split())


def test_latency_is_measured_where_memory_is_unknown(
    candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_gate, "read_private_bytes", lambda: None)
    assert candidate(yes_or_no).evaluate()["budget"].evidence.endswith("memory unknown here")

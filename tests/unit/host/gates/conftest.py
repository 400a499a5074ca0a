"""Fixtures for the tests of the gates: candidates and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from serving.domain.version import Format
from tests.unit.host.candidates import ROWS, WORDS, Candidate, MakeCandidate


@pytest.fixture
def candidate(tmp_path: Path) -> MakeCandidate:
    """Stage one estimator, or one file of raw bytes, as version 1 of model `m`."""

    def make(found: Any, name: str = "model.joblib", kind: Format = Format.JOBLIB) -> Candidate:
        made = Candidate(tmp_path, name, kind)
        if isinstance(found, bytes):
            made.write(name, found)
        else:
            joblib.dump(found, tmp_path / "dumped")
            made.write(name, (tmp_path / "dumped").read_bytes())
        return made

    return make


@pytest.fixture(scope="session")
def yes_or_no() -> LogisticRegression:
    """A classifier of three numbers that answers `no` or `yes`."""
    return LogisticRegression().fit(ROWS, WORDS)

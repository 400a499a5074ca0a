"""Files with flipped bits: the restricted loader survives them, and a manifest detects each one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from serving.domain.report import Verdict
from tests.hostile.flips import KINDS, counted, digests, flipped, forest_file, outcomes
from tests.unit.host.candidates import Candidate

SOAKED = 600


@pytest.fixture(scope="module")
def raw() -> bytes:
    return forest_file()


def test_a_flipped_bit_ends_in_an_answer_or_an_error(raw: bytes, tmp_path: Path) -> None:
    counts = counted(outcomes(raw, 40, tmp_path / "file"))
    print(counts)
    assert sum(counts.values()) == 40
    assert set(counts) == set(KINDS)
    assert counts["hung"] == 0


@pytest.mark.soak
def test_many_flipped_bits_end_in_an_answer_or_an_error(raw: bytes, tmp_path: Path) -> None:
    counts = counted(outcomes(raw, SOAKED, tmp_path / "file"))
    print(counts)
    assert sum(counts.values()) == SOAKED
    assert counts["hung"] == 0


def test_every_flipped_bit_changes_the_digest(raw: bytes) -> None:
    found = digests(raw, SOAKED)
    assert len(found) == SOAKED
    assert hashlib.sha256(raw).hexdigest() not in found


def test_a_flipped_bit_is_refused_by_integrity_where_there_is_a_manifest(raw: bytes, tmp_path: Path) -> None:
    for number, copy in enumerate(flipped(raw, 5)):
        (tmp_path / str(number)).mkdir()
        candidate = Candidate(tmp_path / str(number))
        candidate.write("model.joblib", raw)
        candidate.write_manifest()
        manifest = candidate.files["manifest.json"]
        candidate.files.clear()
        candidate.write("model.joblib", copy)
        candidate.files["manifest.json"] = manifest
        outcome = candidate.evaluate(trust="known")
        assert outcome["integrity"].verdict is Verdict.REFUSED
        assert outcome.model is None

"""Evaluations on disk: as written, or gone; never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.domain.compiled_form import Compilation, Graph
from serving.domain.report import CandidateReport, Evaluation, GateResult, Verdict
from serving.domain.signature import Feature, Signature
from serving.store.evaluations import EvaluationFiles
from serving.store.temporary_files import TemporaryFiles

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REPORT = CandidateReport(
    gates=(GateResult(gate="load", verdict=Verdict.PASSED, evidence="loaded"),),
    signature=Signature(features=(Feature(name="x"),), methods=("predict", "predict_proba")),
    engine="onnx",
    compilation=Compilation(engine="onnx", reason="alike", largest_difference=1e-9),
)
GRAPHS = (
    Graph(b"first graph", {"predict": ("label",)}),
    Graph(b"second", {"predict_proba": ("one", "two")}),
)


@pytest.fixture
def kept(tmp_path: Path) -> EvaluationFiles:
    (tmp_path / "kept").mkdir()
    (tmp_path / "tmp").mkdir()
    return EvaluationFiles(str(tmp_path / "kept"), TemporaryFiles(str(tmp_path / "tmp")))


def only_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "kept").iterdir()
    return found


def test_what_is_written_is_read(kept: EvaluationFiles) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT, GRAPHS))
    assert kept.read(DIGEST, "basis") == Evaluation(REPORT, GRAPHS)


def test_a_verdict_holds_for_its_digest_and_basis_only(kept: EvaluationFiles, tmp_path: Path) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT))
    assert kept.read(OTHER, "basis") is None
    assert kept.read(DIGEST, "another") is None
    kept.write(DIGEST, "another", Evaluation(REPORT))
    assert kept.read(DIGEST, "basis") is None
    assert only_file(tmp_path).name.endswith("@another")


@pytest.mark.parametrize("place", [0, 33, 60, -3, -10])
def test_a_flipped_bit_anywhere_is_noticed_and_the_file_removed(
    kept: EvaluationFiles, tmp_path: Path, place: int
) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT, GRAPHS))
    path = only_file(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    assert kept.read(DIGEST, "basis") is None
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 10, 100, -1])
def test_a_file_cut_short_is_noticed(kept: EvaluationFiles, tmp_path: Path, size: int) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT, GRAPHS))
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert kept.read(DIGEST, "basis") is None


def test_a_link_in_its_place_is_not_followed(kept: EvaluationFiles, tmp_path: Path) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT))
    path = only_file(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        kept.read(DIGEST, "basis")


def test_what_no_version_needs_is_removed(kept: EvaluationFiles, tmp_path: Path) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT))
    kept.write(OTHER, "basis", Evaluation(REPORT))
    kept.remove_all_but({OTHER})
    assert only_file(tmp_path).name == f"{'b' * 64}@basis"


def test_files_of_the_first_format_whose_graphs_nothing_had_checked_are_given_up(
    kept: EvaluationFiles, tmp_path: Path
) -> None:
    kept.write(DIGEST, "basis", Evaluation(REPORT, GRAPHS))
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().removeprefix(b"SVEVAL02"))
    assert kept.read(DIGEST, "basis") is None
    assert not path.exists()

"""What is remembered of a version is used only where it says all that another evaluation would."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path, PurePath

import pytest

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.compiled_form import Compilation, Graph
from serving.domain.provenance import Provenance
from serving.domain.report import Evaluation
from serving.domain.signature import Feature, Signature
from serving.domain.version import Format, VersionId
from serving.lifecycle.evaluation_cache import EvaluationCache
from serving.settings import StateSettings
from serving.store.staging import Cache
from tests.unit.domain.test_plan import report

DIGEST = "sha256:" + "a" * 64
SIGNATURE = Signature(features=(Feature(name="x"),), methods=("predict",))
COMPILED = Compilation(engine="onnx", reason="alike")


def artifact(model: str = "m", version: str = "1") -> Artifact:
    file = StagedFile("model.joblib", "00", 1, PurePath("/nowhere"))
    return Artifact(VersionId(model, version, DIGEST), Format.JOBLIB, file, (file,))


def evaluation(compilation: Compilation | None = COMPILED) -> Evaluation:
    graphs = (Graph(b"graph", {"predict": ("y",)}),) if compilation and compilation.engine else ()
    return Evaluation(report(signature=SIGNATURE).model_copy(update={"compilation": compilation}), graphs)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(StateSettings(path=tmp_path / "state"), tmp_path / "store", 1 << 20)


def test_the_same_bytes_under_the_same_name_and_settings_are_known(cache: Cache) -> None:
    assert EvaluationCache(cache, "settings").keep(artifact(), evaluation()) == evaluation()
    assert EvaluationCache(cache, "settings").find(artifact(), None, None) == evaluation()
    assert EvaluationCache(cache, "settings").find(artifact(), SIGNATURE, DIGEST) == evaluation()


def test_nothing_is_known_under_another_name_or_other_settings(cache: Cache) -> None:
    EvaluationCache(cache, "settings").keep(artifact(), evaluation())
    assert EvaluationCache(cache, "others").find(artifact(), None, None) is None
    assert EvaluationCache(cache, "settings").find(artifact(version="2"), None, None) is None
    assert EvaluationCache(cache, "settings").find(artifact(model="n"), None, None) is None


def test_a_contract_it_would_break_is_for_the_gate_to_judge(cache: Cache) -> None:
    evaluation_cache = EvaluationCache(cache, "settings")
    evaluation_cache.keep(artifact(), evaluation())
    other = Signature(features=(Feature(name="y"),), methods=("predict",))
    assert evaluation_cache.find(artifact(), other, None) is None


def test_a_reissue_is_for_the_gate_to_judge(cache: Cache) -> None:
    def signed(day: int) -> Provenance:
        return Provenance(version="1", key="ed25519:abc...", created_at=datetime(2026, 11, day, tzinfo=UTC))

    evaluation_cache = EvaluationCache(cache, "settings")
    kept = evaluation()
    kept = evaluation_cache.keep(
        artifact(), kept._replace(report=kept.report.model_copy(update={"provenance": signed(20)}))
    )
    assert evaluation_cache.find(artifact(), None, None, signed(20)) == kept
    assert evaluation_cache.find(artifact(), None, None, signed(21)) is None


def test_bytes_that_changed_under_a_published_name_are_for_the_gate_to_judge(cache: Cache) -> None:
    evaluation_cache = EvaluationCache(cache, "settings")
    evaluation_cache.keep(artifact(), evaluation())
    assert evaluation_cache.find(artifact(), None, "sha256:" + "b" * 64) is None


def test_bad_luck_is_not_remembered(cache: Cache) -> None:
    evaluation_cache = EvaluationCache(cache, "settings")
    unlucky = Compilation(engine=None, reason="the process died with SIGKILL", is_final=False)
    assert evaluation_cache.keep(artifact(), evaluation(unlucky)) == evaluation(unlucky)
    assert evaluation_cache.find(artifact(), None, None) is None
    slower = Compilation(engine=None, reason="not faster")
    evaluation_cache.keep(artifact(), evaluation(slower))
    assert evaluation_cache.find(artifact(), None, None) == evaluation(slower)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a directory")
    evaluation_cache = EvaluationCache(
        Cache(StateSettings(path=tmp_path / "state"), tmp_path / "store", 1 << 20), "settings"
    )
    assert evaluation_cache.keep(artifact(), evaluation()) == evaluation()
    assert evaluation_cache.find(artifact(), None, None) is None

"""The environment gate: scikit-learn has the major.minor that the file and the manifest name."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import sklearn.base
import xgboost
from skl2onnx import to_onnx

from serving.domain.environment import Needs
from serving.domain.report import GateResult, Verdict
from serving.domain.version import Format
from tests.unit.host.candidates import ROWS, MakeCandidate

HERE = sklearn.__version__
MAJOR, MINOR, *_ = HERE.split(".")
SAME_MINOR = f"{MAJOR}.{MINOR}.99"


@pytest.fixture
def judge(candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Judge a file of one scikit-learn with a manifest of another. None stands for this version, or no manifest."""

    def evaluate(file: str = HERE, libraries: dict[str, str] | None = None, **options: Any) -> GateResult:
        with monkeypatch.context() as patch:
            patch.setattr(sklearn.base, "__version__", file)
            made = candidate(yes_or_no)
        if libraries is not None:
            made.write_manifest(libraries=libraries)
        return made.evaluate(**options)["environment"]

    return evaluate


def test_the_same_version_passes(judge: Any) -> None:
    for libraries in (None, {}, {"scikit-learn": HERE}):
        result = judge(libraries=libraries)
        assert (result.verdict, result.evidence) == (Verdict.PASSED, f"trained with scikit-learn {HERE}, as here")


def test_another_minor_version_is_refused_with_advice(judge: Any) -> None:
    result = judge(file="1.3.2")
    assert result.verdict is Verdict.REFUSED
    assert f"trained with scikit-learn 1.3.2, the file says; served by {HERE}" in result.evidence
    assert f"train it with {MAJOR}.{MINOR}, serve it with 1.3, or set gates.environment" in result.evidence
    assert result.evidence.endswith("; to serve it with 1.3: serving environment create sk13 --for PATH")


def test_no_environment_is_advised_where_none_can_be_made(judge: Any) -> None:
    assert "serving environment create" not in judge(file="0.24.2").evidence
    refused = judge(libraries={"scikit-learn": "1.3.2"})  # an environment would get what the file says
    assert refused.verdict is Verdict.REFUSED
    assert "serving environment create" not in refused.evidence


@pytest.mark.parametrize("version", ["0.24.2", "pre-0.18", "2.0.0", "1.10.0"])
def test_every_other_minor_version_is_refused(judge: Any, version: str) -> None:
    assert judge(file=version).verdict is Verdict.REFUSED


def test_settings_may_make_it_a_warning(judge: Any) -> None:
    result = judge(file="1.3.2", environment="warn")
    assert result.verdict is Verdict.WARNED
    assert "its answers may be silently wrong" in result.evidence
    assert "to serve it with 1.3: serving environment create sk13 --for PATH" in result.evidence


def test_after_a_warning_every_later_failure_names_the_versions(
    candidate: MakeCandidate, yes_or_no: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.3.2")
        made = candidate(yes_or_no)
    made.write_golden(instances=ROWS[:1].tolist(), expected={"predict": ["maybe"]})
    refused = made.evaluate(environment="warn")["golden"]
    assert refused.verdict is Verdict.REFUSED
    assert refused.evidence.endswith(f"(trained with scikit-learn 1.3.2, here is {HERE})")


def test_versions_from_a_manifest_are_named_in_later_failures(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    made.write_golden(instances=ROWS[:1].tolist(), expected={"predict": ["maybe"]})
    made.write_manifest(libraries={"scikit-learn": "1.2.0"})
    assert f"(trained with scikit-learn 1.2.0, here is {HERE})" in made.evaluate(environment="warn")["golden"].evidence


def test_a_failure_with_equal_versions_names_none(candidate: MakeCandidate, yes_or_no: Any) -> None:
    made = candidate(yes_or_no)
    made.write_golden(instances=ROWS[:1].tolist(), expected={"predict": ["maybe"]})
    assert "trained with" not in made.evaluate(environment="warn")["golden"].evidence


def test_a_manifest_counts_only_if_the_file_agrees(judge: Any) -> None:
    """The manifest may have been written by another process than the file."""
    assert "manifest.json says" in judge(libraries={"scikit-learn": "1.3.2"}).evidence
    assert judge(file="1.3.2", libraries={"scikit-learn": HERE}).verdict is Verdict.REFUSED


def test_another_patch_version_is_a_warning(judge: Any) -> None:
    result = judge(file=SAME_MINOR)
    assert result.verdict is Verdict.WARNED
    assert result.evidence == f"trained with scikit-learn {SAME_MINOR}, served by {HERE}: patch difference"


def test_another_major_version_of_other_libraries_is_a_warning(judge: Any) -> None:
    result = judge(libraries={"numpy": "1.26.4", "scipy": "1.0.0", "somelib": "0.1"})
    assert result.verdict is Verdict.WARNED
    assert result.evidence == f"trained with numpy 1.26.4, served by {np.__version__}: major difference"


def test_an_equal_version_in_another_environment_names_it(judge: Any) -> None:
    needs = Needs(libraries={"scikit-learn": HERE}, sources={"scikit-learn": "the file says"}, modules=("sklearn",))
    result = judge(place="sk19", needs=needs)
    assert result.evidence == f"trained with scikit-learn {HERE}, as in environment 'sk19'"


def judge_needs(candidate: MakeCandidate, versions: dict[str, str], **options: Any) -> GateResult:
    """Judge a model that keeps no version of itself, with needs that its host at home has found."""
    modules = {"scikit-learn": "sklearn", "imbalanced-learn": "imblearn"}
    needs = Needs(
        libraries=versions,
        sources=dict.fromkeys(versions, "requirements.txt says"),
        modules=tuple(modules.get(name, name) for name in versions),
    )
    return candidate(Foreign()).evaluate(needs=needs, **options)["environment"]


def test_versions_that_only_other_documents_state_are_compared_too(candidate: MakeCandidate) -> None:
    assert judge_needs(candidate, {"scikit-learn": HERE}).verdict is Verdict.PASSED
    refused = judge_needs(candidate, {"scikit-learn": "1.2.2"})
    assert refused.verdict is Verdict.REFUSED
    assert f"trained with scikit-learn 1.2.2, requirements.txt says; served by {HERE}" in refused.evidence


def test_other_libraries_whose_objects_fit_one_version_are_compared(
    candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"catboost": "1.2.7", "imbalanced-learn": "0.12.4"}
    find = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: installed.get(name) or find(name))
    assert judge_needs(candidate, {"catboost": "1.2.5"}, place="cat").evidence == (
        "trained with catboost 1.2.5, as in environment 'cat'"
    )
    refused = judge_needs(candidate, {"catboost": "1.2.7", "imbalanced-learn": "0.11.0"})
    assert refused.verdict is Verdict.REFUSED
    assert "trained with imbalanced-learn 0.11.0, requirements.txt says; served by 0.12.4" in refused.evidence
    warned = judge_needs(candidate, {"catboost": "1.1.0"}, environment="warn")
    assert warned.verdict is Verdict.WARNED
    assert "served by 1.2.7: its answers may be silently wrong; to serve it with 1.1:" in warned.evidence


def test_scikit_learn_does_not_decide_about_a_model_without_any_part_of_it(candidate: MakeCandidate) -> None:
    made = candidate(Foreign())
    made.write_manifest(libraries={"scikit-learn": "1.2.2"})
    assert made.evaluate()["environment"].verdict is Verdict.SKIPPED
    assert made.evaluate(needs=Needs(modules=("sklearn",)))["environment"].verdict is Verdict.REFUSED


def test_a_library_that_is_not_installed_is_no_match(candidate: MakeCandidate) -> None:
    assert "trained with statsmodels 0.14.4, requirements.txt says; served by none" in (
        judge_needs(candidate, {"statsmodels": "0.14.4"}).evidence
    )


def test_a_newer_booster_inside_a_pipeline_is_a_warning(candidate: MakeCandidate) -> None:
    here = xgboost.__version__
    assert judge_needs(candidate, {"scikit-learn": HERE, "xgboost": "1.7.6"}).verdict is Verdict.PASSED
    result = judge_needs(candidate, {"scikit-learn": HERE, "xgboost": "99.0.0"})
    assert result.verdict is Verdict.WARNED
    assert result.evidence == f"trained with xgboost 99.0.0, served by {here}: a newer one wrote it"


def test_the_version_inside_a_booster_is_told(candidate: MakeCandidate) -> None:
    raw = (Path(__file__).parents[1] / "written_elsewhere" / "xgboost_2.1.3.pkl").read_bytes()
    result = candidate(raw, "model.pkl", Format.PICKLE).evaluate()["environment"]
    assert result.verdict is Verdict.PASSED
    assert result.evidence == f"trained with xgboost 2.1.3, served by {xgboost.__version__}"


class Foreign:
    n_features_in_ = 3

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0]


def test_a_model_without_scikit_learn_has_nothing_to_compare(candidate: MakeCandidate, yes_or_no: Any) -> None:
    result = candidate(Foreign()).evaluate()["environment"]
    assert result.verdict is Verdict.SKIPPED
    graph = to_onnx(yes_or_no, ROWS[:1].astype(np.float32)).SerializeToString()
    result = candidate(graph, "model.onnx", Format.ONNX).evaluate()["environment"]
    assert (result.verdict, result.evidence) == (
        Verdict.SKIPPED,
        "the file holds a graph for onnx, no objects of scikit-learn",
    )

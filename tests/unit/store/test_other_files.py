"""What files that are no artefacts are told to be, by their names."""

from __future__ import annotations

import pytest

from serving.domain.version import FULL_NAMES, SUFFIXES, usable_name, why_not_a_name
from serving.store.other_files import describe_other_file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.cbm", "save_model('model.onnx', format='onnx')"),
        ("net.PT", "model.onnx"),
        ("net.h5", "model.onnx"),
        ("churn.sav", "'.pkl'"),
        ("x.bst", "model.ubj"),
        ("x.model", "model.ubj"),
        ("xgb_model.json", "does not begin as a model of XGBoost"),
        ("lgbm_model.txt", "does not begin as a model of LightGBM"),
        ("net.bin", "model.onnx"),
        ("Model.json", "MODEL/VERSION/model.json"),
        ("rows.csv", "no model"),
        ("model", ", ".join(f"'{suffix}'" for suffix in SUFFIXES)),
        ("model.unknown", "models end in"),
    ],
)
def test_what_would_serve_is_said(name: str, said: str) -> None:
    described = describe_other_file(name)
    assert described is not None
    assert said in described


@pytest.mark.parametrize("name", ["README", "README.md", "LICENSE", "requirements.txt", "settings.toml", "train.py"])
def test_what_people_keep_beside_models_is_not_named(name: str) -> None:
    assert describe_other_file(name) is None


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("my model", "my-model"),
        ("übung", "ubung"),
        ("-1", "1"),
        ("日本", "model"),
        ("active", "active-1"),
        ("x" * 300, "x" * 100),
        ("a/b", "a-b"),
    ],
)
def test_a_name_that_can_be_used_is_offered(name: str, better: str) -> None:
    assert why_not_a_name(name) is not None
    assert usable_name(name) == better
    assert why_not_a_name(better) is None


def test_the_whole_names_of_version_directories_are_explained_elsewhere() -> None:
    assert all(describe_other_file(name) for name in FULL_NAMES)

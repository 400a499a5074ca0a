"""Which names exist in the store."""

from __future__ import annotations

import pytest

from serving.domain.version import Format
from serving.store.names import Names, artefact_format, artefact_name, artefact_stem, format_in_version, is_looked_into


@pytest.mark.parametrize(
    "name", [".git", "..data", "3~", "3.tmp", "m.joblib.part", "m.partial", ".3.swp", "3.filepart", "lost+found"]
)
def test_unfinished_and_hidden_names_do_not_exist(name: str) -> None:
    assert not Names().exists(name)


@pytest.mark.parametrize("name", ["3", "model.joblib", "tmp", "part.1", "README.md"])
def test_other_names_exist(name: str) -> None:
    assert Names().exists(name)


def test_a_pattern_of_the_settings_hides_whole_names_only() -> None:
    names = Names(["*.bak", "old-?"])
    assert not names.exists("3.bak")
    assert not names.exists("old-1")
    assert names.exists("older-1")
    assert names.exists("OLD-1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.joblib", Format.JOBLIB),
        ("m.pkl", Format.PICKLE),
        ("m.pickle", Format.PICKLE),
        ("m.skops", Format.SKOPS),
        ("m.onnx", Format.ONNX),
        ("M.ONNX", Format.ONNX),
        ("m.ubj", Format.XGBOOST),
        ("model.json", None),
        ("model.txt", None),
        ("joblib", None),
        ("m.joblib.gz", None),
        ("manifest.json", None),
    ],
)
def test_the_suffix_tells_the_format(name: str, expected: Format | None) -> None:
    assert artefact_format(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.json", Format.XGBOOST),
        ("Model.JSON", Format.XGBOOST),
        ("model.txt", Format.LIGHTGBM),
        ("any.ubj", Format.XGBOOST),
        ("any.joblib", Format.JOBLIB),
        ("manifest.json", None),
        ("golden.json", None),
        ("metrics.json", None),
        ("my-model.json", None),
        ("README.txt", None),
        ("model.txt.gz", None),
    ],
)
def test_in_a_version_directory_two_whole_names_tell_it_too(name: str, expected: Format | None) -> None:
    assert format_in_version(name) is expected


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("xgb_model.json", True),
        ("Model.TXT", True),
        ("x.bst", True),
        ("x.model", True),
        ("manifest.json", False),
        ("golden.json", False),
        ("requirements.txt", False),
        ("README.md", False),
        ("model", False),
    ],
)
def test_files_whose_names_do_not_tell_are_looked_into(name: str, is_read: bool) -> None:
    assert is_looked_into(name) is is_read


@pytest.mark.parametrize(
    ("suffix", "kind", "expected"),
    [
        (".JSON", Format.XGBOOST, "model.json"),
        (".bst", Format.XGBOOST, "model.ubj"),
        (".json", Format.LIGHTGBM, "model.txt"),
        (".model", Format.LIGHTGBM, "model.txt"),
        (".sav", Format.PICKLE, "model.pkl"),
        (".pickle", Format.PICKLE, "model.pickle"),
        (".bin", Format.ONNX, "model.onnx"),
        (".joblib", Format.JOBLIB, "model.joblib"),
    ],
)
def test_an_artefact_is_published_under_a_name_that_tells(suffix: str, kind: Format, expected: str) -> None:
    assert artefact_name(suffix, kind) == expected
    assert format_in_version(expected) is kind


def test_only_the_last_suffix_is_dropped_from_a_version() -> None:
    assert artefact_stem("1.2.joblib") == "1.2"

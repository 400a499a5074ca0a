"""The manifest of a published estimator says with which distributions it was trained."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import sklearn

from serving.host.training_libraries import list_training_libraries


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path with two distributions, and one module that belongs to none of them."""
    for name, version, files in (
        ("Their.Steps", "2.1", {"top_level.txt": "their_steps\n_their_helpers\n"}),
        (
            "other_steps",
            "0.3",
            {"RECORD": "elsewhere/__init__.py,,\nsingle.py,,\nother_steps-0.3.dist-info/RECORD,,\n"},
        ),
        ("unused", "9", {"top_level.txt": "unused\n"}),
    ):
        directory = tmp_path / f"{name}-{version}.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for file, text in files.items():
            (directory / file).write_text(text)
    for file in ("own.py", "single.py", "elsewhere/__init__.py"):  # some readers of RECORD leave out what is not there
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_module_that_the_model_names_counts(installed: Path) -> None:
    found = list_training_libraries(["sklearn", "their_steps", "elsewhere", "own", "__main__", "builtins", "json"])
    assert (
        found.items()
        >= {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "their-steps": "2.1",
            "other-steps": "0.3",
        }.items()
    )
    assert "unused" not in found
    assert "own" not in found


def test_a_single_file_may_be_a_distribution(installed: Path) -> None:
    assert list_training_libraries(["single"])["other-steps"] == "0.3"


def test_the_usual_libraries_are_named_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda: pytest.fail("searched"))
    assert list_training_libraries(["sklearn", "numpy", "collections"])["scikit-learn"] == sklearn.__version__

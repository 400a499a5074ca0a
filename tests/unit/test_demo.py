"""The demo publishes real models with manifests and golden examples, and leaves alone what is there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest

from serving.demo import GOLDEN_ROWS, demo_versions
from serving.domain.manifest import Golden, Manifest, parse_golden, parse_manifest
from serving.domain.signature import Container
from tests.commands import run_command

NAMES = [f"{each.model}/{each.version}" for each in demo_versions()]


def demo(directory: Path, *arguments: str) -> str:
    done = run_command(["demo", "--store", "store", *arguments], directory)
    done.check_returncode()
    return done.stdout


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The directory that holds the store, and what the demo printed; nobody changes them."""
    directory = tmp_path_factory.mktemp("demo")
    return directory, demo(directory, "--if-empty").splitlines()


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def documents(store: Path, name: str) -> tuple[Manifest, Golden]:
    version = store / name
    return (
        parse_manifest((version / "manifest.json").read_bytes()),
        parse_golden((version / "golden.json").read_bytes()),
    )


def test_it_says_one_line_for_each_version_and_then_what_to_do(trained: tuple[Path, list[str]]) -> None:
    *lines, summary, call = trained[1]
    assert [line.partition(":")[0] for line in lines] == NAMES
    assert summary == "8 versions published in 'store', 0 left alone; 'serving serve' serves them, then try:"
    assert call == (
        "curl -s http://127.0.0.1:8000/models/iris/predict -H 'Content-Type: application/json'"
        " -d '{\"input\": [5.1, 3.5, 1.4, 0.2]}'"
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_version_has_a_manifest_and_golden_examples_its_model_agrees_with(
    name: str, trained: tuple[Path, list[str]]
) -> None:
    store = trained[0] / "store"
    manifest, golden = documents(store, name)
    assert f"{manifest.model}/{manifest.version}" == name
    assert [file.name for file in manifest.files] == ["golden.json", "model.joblib"]
    assert manifest.libraries["scikit-learn"]
    assert manifest.metrics["held_out_rows"]
    assert manifest.signature is not None
    assert len(golden.instances) == GOLDEN_ROWS
    assert golden.deterministic
    estimator = joblib.load(store / name / "model.joblib")
    rows: Any = golden.instances
    if manifest.signature.container is Container.DATAFRAME:
        rows = pd.DataFrame(golden.instances).fillna(value=float("nan"))
    assert estimator.predict(rows).tolist() == pytest.approx(golden.expected["predict"])


def test_the_mixed_model_takes_texts_bools_and_missing_values(trained: tuple[Path, list[str]]) -> None:
    manifest, golden = documents(trained[0] / "store", "diabetes_mixed/1")
    assert manifest.signature is not None
    assert {feature.dtype for feature in manifest.signature.features} == {"number", "string", "bool"}
    assert any(None in row.values() for row in golden.instances)


@pytest.mark.parametrize(("model", "metric"), [("iris", "accuracy"), ("diabetes", "r2")])
def test_the_second_version_is_better(model: str, metric: str, trained: tuple[Path, list[str]]) -> None:
    first, second = (documents(trained[0] / "store", f"{model}/{version}")[0].metrics[metric] for version in (1, 2))
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert second > first + 0.05


def test_what_is_there_is_left_alone_and_what_is_missing_is_published(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(trained[0] / "store", store)
    shutil.rmtree(store / "wine")
    before = contents(store)
    lines = demo(tmp_path).splitlines()
    assert sum(line.endswith(": is there already, left alone") for line in lines) == 7
    assert lines[NAMES.index("wine/1")].startswith("wine/1: fitted on columns with names, accuracy 0.9")
    after = contents(store)
    assert {name: after[name] for name in before} == before
    assert json.loads(after["wine/1/manifest.json"])["signature"]["is_named"]


@pytest.mark.parametrize("name", ["mine.joblib", "mine/1.joblib", "mine/1/model.joblib"])
def test_if_empty_does_nothing_in_a_store_that_holds_anything(name: str, tmp_path: Path) -> None:
    file = tmp_path / "store" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert demo(tmp_path, "--if-empty") == "'store' holds models already (mine); nothing to do\n"
    assert contents(tmp_path / "store") == {name: b"x"}


def test_a_store_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        demo(tmp_path, "--if-empty")
    assert caught.value.returncode == 1
    assert caught.value.stderr.startswith("serving: the store 'store' cannot be listed: Not a directory")

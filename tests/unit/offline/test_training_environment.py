"""An estimator is published from the environment that trained it, which has none of the server's packages."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import serving
from serving.domain.environment import to_minor
from serving.domain.manifest import parse_golden, parse_manifest
from serving.domain.signature import Feature, Signature
from serving.offline import check
from serving.offline.keys import create_key
from serving.settings import load_settings
from tests.environments import require_python

TRAINED = """
import sys, serving
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
X, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(X, y)
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(other_python: Path, tmp_path: Path) -> Run:
    """Run a script in the other environment, in a directory of its own; nothing but the package `serving` is added."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "serving").symlink_to(Path(serving.__file__).parent)
    (tmp_path / "work").mkdir()

    def run_script(code: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "work" / "train.py").write_text(textwrap.dedent(code))
        return subprocess.run(
            [str(other_python), "-B", "train.py"],
            cwd=tmp_path / "work",
            env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_script


def test_it_is_published_with_its_versions_and_golden_rows_and_says_that_no_gate_ran(run: Run, tmp_path: Path) -> None:
    done = run(
        TRAINED
        + """
published = serving.publish(model, "iris", golden=X[::50], X=X, store="store", metrics={"accuracy": 0.97})
assert published.report is None
print(sorted({name.partition(".")[0] for name in sys.modules} & {"pydantic", "orjson", "structlog", "fastapi"}))
"""
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    warned = "published without the gates, which cannot run here (the package pydantic is missing)"
    assert warned in done.stderr
    version = tmp_path / "work" / "store" / "iris" / "1"
    manifest = parse_manifest((version / "manifest.json").read_bytes())
    assert manifest.libraries["scikit-learn"] == "1.5.2"
    assert manifest.libraries["numpy"] == "1.26.4"
    assert to_minor(manifest.libraries["python"]).startswith("3.")
    assert manifest.metrics == {"accuracy": 0.97}
    assert manifest.signature is not None
    assert manifest.signature.classes is not None
    assert set(parse_golden((version / "golden.json").read_bytes()).expected) == {"predict", "predict_proba"}


def test_the_gates_of_a_server_judge_it_in_that_environment(
    run: Run, other_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(TRAINED + 'serving.publish(model, "iris", golden=X[::50], X=X, store="store", check=False)')
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setenv("SERVING_ENGINE__COMPILE", "off")
    settings = load_settings({"environments.trained.python": str(other_python), "state.path": tmp_path / "state"})
    report = check(tmp_path / "work" / "store" / "iris" / "1", settings)
    verdicts = {result.gate: result.verdict for result in report.gates}
    assert report.is_ready, report.refusal
    assert verdicts["golden"] == "passed"
    assert report.environment is not None
    assert report.environment.name == "trained"
    assert report.libraries["scikit-learn"] == "1.5.2"


def test_without_settings_the_store_has_to_be_named(run: Run, tmp_path: Path) -> None:
    done = run(TRAINED + 'serving.publish(model, "iris")')
    assert done.returncode == 1
    assert "settings.toml, which names the store, cannot be read here (the package pydantic is missing)" in done.stderr
    assert done.stderr.rstrip().endswith("name it (store=)")
    assert not (tmp_path / "work" / "model_store").exists()


def test_it_refuses_there_what_it_refuses_here(run: Run, tmp_path: Path) -> None:
    done = run(
        TRAINED
        + """
import os
from serving.domain.errors import PublishRefused
from sklearn.preprocessing import FunctionTransformer
refusals = []
for estimator, arguments in (
    (FunctionTransformer(lambda rows: rows).fit(X), {"model": "m"}),
    (model, {"model": "active"}),
    (model, {"model": "m", "golden": [[1, 2]]}),
    (model, {"model": "m", "store": "no/such/store"}),
):
    try:
        serving.publish(estimator, **{"store": "store", **arguments})
    except PublishRefused as error:
        refusals.append(str(error))
print(len(refusals), os.path.exists("store"))
print(*refusals, sep="\\n")
"""
    )
    assert done.returncode == 0, done.stderr
    count, first, second, third, fourth = done.stdout.splitlines()
    assert count == "4 False"
    assert "a lambda" in first
    assert second.endswith("'active' is a reserved word (model=)")
    assert third.endswith("(golden=)")
    assert fourth.endswith("(store=)")


def test_signing_says_which_package_it_needs(run: Run, tmp_path: Path) -> None:
    create_key(tmp_path / "work" / "key")
    done = run(TRAINED + 'serving.publish(model, "iris", store="store", sign="key")')
    assert done.returncode == 1
    assert "KeyRefused: 'key' can be read only with the package cryptography: pip install cryptography" in done.stderr
    assert not (tmp_path / "work" / "store").exists()


def test_modules_of_your_own_are_named_because_the_server_needs_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work" / "own_steps.py").write_text("def keep(rows):\n    return rows\n")
    done = run(
        """
import numpy as np, own_steps, serving
from sklearn.preprocessing import FunctionTransformer
serving.publish(FunctionTransformer(own_steps.keep).fit(np.eye(2)), "m", store="store", X=np.eye(2), check=False)
"""
    )
    assert done.returncode == 0, done.stderr
    assert "the model needs modules of your own, which the server has to find too: own_steps (" in done.stderr
    assert "published without the gates" not in done.stderr


BARE = """
import serving.offline
from pathlib import Path
from serving.domain.manifest import Golden
from serving.domain.signature import Feature, Signature
from serving.offline.bare_publishing import publish_unchecked, refuse_early
from serving.offline.missing_packages import why_no_gates
from serving.store.publishing import Publication
signature = Signature(features=(Feature(name="ключ"),), methods=("predict",))
golden = Golden(instances=[[1.5]], expected={"predict": [1.0]})
refuse_early(Path("store"), "iris", None)
for _ in range(2):
    publish_unchecked(Path("store"), Publication(
        model="iris", artefact_name="model.joblib", artefact=lambda file: file.write(b"model"),
        libraries={"scikit-learn": "1.0.2"}, signature=signature, golden=golden, metrics={"accuracy": 0.97},
    ))
print(why_no_gates())
"""


@pytest.mark.parametrize("minor", ["3.9", "3.10"])
def test_versions_are_written_alike_by_older_pythons_without_any_package(minor: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "serving").symlink_to(Path(serving.__file__).parent)
    done = subprocess.run(
        [require_python(minor), "-B", "-S", "-c", BARE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("they need Python 3.11 or newer\n", "")
    version = tmp_path / "store" / "iris" / "2"
    manifest = parse_manifest((version / "manifest.json").read_bytes())
    assert manifest.libraries == {"scikit-learn": "1.0.2"}
    assert manifest.signature == Signature(features=(Feature(name="ключ"),), methods=("predict",))
    assert (manifest.version, manifest.metrics) == ("2", {"accuracy": 0.97})
    assert parse_golden((version / "golden.json").read_bytes()).instances == [[1.5]]

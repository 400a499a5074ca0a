"""What a candidate needs is found out from its bytes: nothing in it is imported, made or called."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression

from serving.domain.environment import Needs
from serving.domain.manifest import parse_manifest
from serving.domain.version import Format
from serving.host.find_needs import find_needs
from serving.wire.evaluation import EvaluationRequest, NeedsFound
from tests.unit.host.candidates import ROWS, WORDS, Candidate

WRITTEN_BY_1_3 = Path(__file__).parent / "written_elsewhere" / "sklearn_1.3.2.joblib"
HERE = sklearn.__version__

Find = Callable[..., NeedsFound]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Stage a model file with other files beside it, and find its needs. `options` are fields of the request."""

    def run(
        raw: bytes, beside: dict[str, bytes] | None = None, kind: Format = Format.JOBLIB, **options: Any
    ) -> NeedsFound:
        made = Candidate(tmp_path, "model", kind)
        made.write("model", raw)
        for name, content in (beside or {}).items():
            made.write(name, content)
        fields: dict[str, Any] = {"trust": "known", "quiet_seconds": 1.0, **options}
        request = EvaluationRequest(
            model="m",
            version="1",
            digest="sha256:0",
            format=kind,
            main=made.files["model"],
            files=tuple(made.files.values()),
            **fields,
        )
        manifest = request.read("manifest.json")
        return find_needs(request, None if manifest is None else parse_manifest(manifest))

    return run


def make_manifest(**fields: Any) -> bytes:
    listed = [{"name": "model", "sha256": "0" * 64, "size": 1}]
    return json.dumps(
        {"model": "m", "version": "1", "created_at": "2026-11-20T08:00:00Z", "files": listed, **fields}
    ).encode()


def dump(model: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


def name_global(module: str, name: str) -> bytes:
    """Return a pickle of nothing but this name."""
    return b"\x80\x04" + b"c" + f"{module}\n{name}\n".encode() + b"."


def test_the_version_that_an_older_scikit_learn_keeps_in_its_file_is_found(find: Find) -> None:
    found = find(WRITTEN_BY_1_3.read_bytes())
    assert found.needs.libraries["scikit-learn"] == "1.3.2"
    assert found.needs.sources["scikit-learn"] == "the file says"
    assert found.needs.modules == ("joblib", "numpy", "sklearn")
    assert (found.absent, found.stays) == ((), False)


def test_a_model_of_this_version_needs_what_is_here(find: Find) -> None:
    found = find(dump(LogisticRegression().fit(ROWS, WORDS)))
    assert found.needs.libraries["scikit-learn"] == HERE
    assert (found.absent, found.stays) == ((), False)


def test_nothing_in_the_file_runs(find: Find, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    found = find(pickle.dumps(Attack()), trust="any")
    assert not mark.exists()
    assert found.needs.modules == ()


def test_modules_of_others_are_listed_and_those_that_are_missing_here(find: Find) -> None:
    raw = pickle.dumps([LogisticRegression().fit(ROWS, WORDS)], 4)[:-1] + name_global("nowhere_at_all.x", "Y")[2:]
    found = find(raw, trust="signed")
    assert found.needs.modules == ("nowhere_at_all", "numpy", "sklearn")
    assert found.absent == ("nowhere_at_all",)
    assert not found.stays


def test_the_manifest_names_versions_and_an_environment(find: Find) -> None:
    manifest = make_manifest(
        libraries={"python": "3.9.2", "scikit-learn": "1.2.2", "numpy": "1.22.4", "my_lib": "2\n3"}, environment="sk12"
    )
    needs = find(name_global("collections", "OrderedDict"), {"manifest.json": manifest}).needs
    assert needs.environment == "sk12"
    assert needs.python == "3.9.2"
    assert needs.libraries == {"scikit-learn": "1.2.2", "numpy": "1.22.4"}
    assert needs.sources["python"] == needs.sources["numpy"] == "manifest.json says"


def test_the_file_counts_before_the_manifest_and_that_before_the_files_of_mlflow(find: Find) -> None:
    beside = {
        "manifest.json": make_manifest(libraries={"scikit-learn": "1.2.2", "numpy": "1.22.4"}),
        "requirements.txt": b"Scikit-Learn==1.1.3\nnumpy==1.21.6\nscipy==1.9.1\n",
        "python_env.yaml": b"python: 3.8.1\n",
        "conda.yaml": b"dependencies:\n- python=3.7.1\n- pip:\n  - joblib==1.1.0\n  - scipy==1.7.0\n",
    }
    needs = find(WRITTEN_BY_1_3.read_bytes(), beside).needs
    assert needs.libraries == {"scikit-learn": "1.3.2", "numpy": "1.22.4", "scipy": "1.9.1", "joblib": "1.1.0"}
    assert needs.python == "3.8.1"
    assert needs.sources == {
        "scikit-learn": "the file says",
        "numpy": "manifest.json says",
        "scipy": "requirements.txt says",
        "python": "python_env.yaml says",
        "joblib": "conda.yaml says",
    }


def test_a_foreign_framework_stays_whatever_is_trusted(find: Find) -> None:
    for trust in ("known", "signed", "any"):
        assert find(name_global("torch.nn", "Linear"), trust=trust).stays
        assert find(name_global("__main__", "Mine"), trust=trust).stays


def test_names_that_nothing_trusts_stay(find: Find) -> None:
    raw = name_global("mine.steps", "Step")
    assert find(raw).stays
    assert not find(raw, pickle_trusted=("mine.steps.Step",)).stays
    assert not find(raw, trust="signed").stays
    assert not find(raw, trust="any").stays


def test_names_are_no_obstacle_where_another_scikit_learn_wrote_them(find: Find) -> None:
    """The list of names here is of this version: it cannot judge those of another one."""
    raw = name_global("sklearn.ensemble._gb_losses", "BinomialDeviance")
    assert not find(raw, {"manifest.json": make_manifest(libraries={"scikit-learn": "1.3.2"})}).stays
    assert find(raw, {"manifest.json": make_manifest(libraries={"scikit-learn": HERE})}).stays
    assert find(raw).stays


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"no pickle", WRITTEN_BY_1_3.read_bytes()[:500], b"\x80\x04" + b"(" * 99]
)
def test_a_damaged_file_needs_nothing_that_could_not_be_found(find: Find, raw: bytes) -> None:
    found = find(raw)
    assert found.needs == Needs(modules=found.needs.modules)
    assert found.absent == ()


def test_texts_of_a_file_are_limited(find: Find) -> None:
    many = b"".join(name_global(f"m{number}", "X")[2:-1] for number in range(300))
    long = name_global("x" * 200, "Y")[2:-1] + name_global("ä b", "Y")[2:-1]
    found = find(b"\x80\x04" + many + long + b".", trust="any")
    assert len(found.needs.modules) == 100
    assert all(len(name) < 10 for name in found.needs.modules)

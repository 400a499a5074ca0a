"""What a candidate needs is found out from its bytes: nothing in it is imported, made or called."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
import sklearn.base
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serving.domain.environment import Needs
from serving.domain.manifest import parse_manifest
from serving.domain.version import Format
from serving.host.find_needs import find_needs
from serving.hosting.headers import read_needs
from serving.wire.evaluation import EvaluationRequest, NeedsFound
from serving.wire.frames import BOUNDS, FrameKind
from tests.unit.host.candidates import ROWS, WORDS, Candidate

# written with scikit-learn 1.5.2 and NumPy 1.26.4, except where the name says another one
ELSEWHERE = Path(__file__).parent / "written_elsewhere"
WRITTEN_BY_1_3 = ELSEWHERE / "sklearn_1.3.2.joblib"
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


@pytest.mark.parametrize(
    "name",
    ["scikit-learn\n", "two  words", " lead", "\x1b[2J", "\u202e", "", "x" * 5000, "\U0001f600" * 5000, "a\x00b"],
)
def test_the_server_takes_whatever_a_manifest_says_of_libraries(find: Find, name: str) -> None:
    """These are texts of a stranger; what has no name of a distribution is left out."""
    libraries = {**{f"{name}{number}": "1" for number in range(300)}, "scikit-learn": "1.5.2"}
    found = find(dump([1]), {"manifest.json": make_manifest(libraries=libraries)})
    raw = found.model_dump_json().encode()
    assert len(raw) < BOUNDS[FrameKind.NEEDS].header_bytes
    assert read_needs(raw) == found
    assert found.needs.libraries["scikit-learn"] == "1.5.2"


def test_the_server_takes_all_that_five_documents_can_say(find: Find) -> None:
    def pin(mark: str) -> list[str]:
        return [f"{mark}{number}-{'x' * 200}"[:99] for number in range(300)]

    beside = {
        "manifest.json": make_manifest(libraries=dict.fromkeys(pin("a"), "1" * 40), environment="e" * 100),
        "requirements.txt": "\n".join(f"{name}=={'1' * 40}" for name in pin("b")).encode(),
        "conda.yaml": "\n".join(f"- {name}={'1' * 40}" for name in pin("c")).encode(),
        "python_env.yaml": "\n".join(["python: 3.10.4", *(f"- {name}=={'1' * 40}" for name in pin("d"))]).encode(),
    }
    raw = pickle.dumps([SimilarToEstimator({"_sklearn_version": f"{number}" * 40}) for number in range(9)])
    named = b"".join(b"cmodule%d%s\nx\n0" % (number, b"x" * 80) for number in range(300))
    found = find(raw[:2] + named + raw[2:], beside, Format.PICKLE)
    assert len(found.needs.libraries) > 600
    sent = found.model_dump_json().encode()
    assert len(sent) < BOUNDS[FrameKind.NEEDS].header_bytes
    assert read_needs(sent) == found


class SimilarToEstimator:
    """Is written with a state like that of an estimator."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state


def after_all_arrays(rows: Any) -> Any:
    return rows


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


def test_the_losses_of_an_older_scikit_learn_are_no_module_of_their_own(find: Find) -> None:
    found = find(name_global("_loss", "CyHalfBinomialLoss"))
    assert (found.needs.modules, found.absent) == (("sklearn",), ())


def test_the_manifest_names_versions_and_an_environment(find: Find) -> None:
    manifest = make_manifest(
        libraries={"python": "3.9.2", "scikit-learn": "1.2.2", "numpy": "1.22.4", "my_lib": "2\n3"}, environment="sk12"
    )
    needs = find(name_global("collections", "OrderedDict"), {"manifest.json": manifest}).needs
    assert needs.environment == "sk12"
    assert needs.python == "3.9.2"
    assert needs.libraries == {"scikit-learn": "1.2.2", "numpy": "1.22.4"}  # a version has no line break
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
    assert "scikit-learn" not in found.needs.libraries
    assert found.needs.python is None
    assert found.absent == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("xgboost_2.1.3.pkl", Format.PICKLE),
        ("sklearn_1.5.2.skops", Format.SKOPS),
        ("xgboost_2.1.3.ubj", Format.XGBOOST),
        ("sklearn_1.3.2.joblib", Format.JOBLIB),
    ],
)
def test_damage_anywhere_in_a_file_raises_nothing(find: Find, name: str, kind: Format) -> None:
    raw = (ELSEWHERE / name).read_bytes()
    if kind is Format.JOBLIB:
        raw = zlib.decompress(raw)
    chance = random.Random(15)
    for _ in range(200):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(raw))] = chance.randrange(256)
        needs = find(bytes(damaged[: chance.choice([len(raw), chance.randrange(len(raw))])]), kind=kind).needs
        assert all(re.fullmatch(r"[0-9A-Za-z.+!_*-]{1,40}", version) for version in needs.libraries.values())
        assert all(module.isidentifier() for module in needs.modules)


def test_texts_of_a_file_are_limited(find: Find) -> None:
    many = b"".join(name_global(f"m{number}", "X")[2:-1] for number in range(300))
    long = name_global("x" * 200, "Y")[2:-1] + name_global("ä b", "Y")[2:-1]
    found = find(b"\x80\x04" + many + long + b".", trust="any")
    assert len(found.needs.modules) == 100
    assert all(len(name) < 10 for name in found.needs.modules)


# --- what each library keeps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "libraries", "modules"),
    [
        ("sklearn_1.5.2.skops", Format.SKOPS, {"scikit-learn": "1.5.2"}, ("joblib", "numpy", "sklearn")),
        ("xgboost_2.1.3.ubj", Format.XGBOOST, {"xgboost": "2.1.3"}, ("xgboost",)),
        ("xgboost_2.1.3.pkl", Format.PICKLE, {"xgboost": "2.1.3"}, ("xgboost",)),
        (
            "xgboost_2.1.3.joblib",
            Format.JOBLIB,
            {"scikit-learn": "1.5.2", "xgboost": "2.1.3", "numpy": "1.*"},
            ("joblib", "numpy", "sklearn", "xgboost"),
        ),
        (
            "imblearn_0.12.4.joblib",
            Format.JOBLIB,
            {"scikit-learn": "1.5.2", "numpy": "1.*"},
            ("imblearn", "joblib", "numpy", "sklearn"),
        ),
        ("catboost_1.2.7.joblib", Format.JOBLIB, {"catboost": "1.2.7", "numpy": "1.*"}, ("catboost", "numpy")),
    ],
)
def test_versions_in_real_files(
    find: Find, name: str, kind: Format, libraries: dict[str, str], modules: tuple[str, ...]
) -> None:
    found = find((ELSEWHERE / name).read_bytes(), kind=kind, trust="signed")
    assert found.needs.libraries == libraries
    assert found.needs.modules == modules
    assert not found.stays


def test_scikit_learn_does_not_decide_about_the_label_encoder_of_a_booster(find: Find) -> None:
    found = find((ELSEWHERE / "lightgbm_4.5.0.joblib").read_bytes())
    assert found.needs.libraries["scikit-learn"] == "1.5.2"
    assert found.needs.modules == ("joblib", "lightgbm", "numpy")


def test_a_native_file_of_lightgbm_needs_lightgbm(find: Find) -> None:
    found = find((Path(__file__).parent / "lightgbm_3_3.txt").read_bytes(), kind=Format.LIGHTGBM)
    assert found.needs == Needs(modules=("lightgbm",))


def test_a_graph_needs_nothing(find: Find) -> None:
    assert find(b"\x08\x08", kind=Format.ONNX) == NeedsFound(needs=Needs())


def test_the_outermost_estimator_says_the_version_and_differing_parts_are_named(
    find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, WORDS)
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.3.1")
        patch.setattr(StandardScaler, "__getstate__", lambda step: {**vars(step), "_sklearn_version": "1.2.0"})
        raw = dump(model)
    needs = find(raw).needs
    assert needs.libraries["scikit-learn"] == "1.3.1"
    assert needs.sources["scikit-learn"] == "the file says, with parts of 1.2.0"


def test_the_numpy_that_wrote_a_file_is_known_by_its_names_only(find: Find) -> None:
    assert find(name_global("numpy.core.multiarray", "scalar")).needs.libraries == {"numpy": "1.*"}
    assert find(name_global("numpy._core.multiarray", "scalar")).needs.libraries == {"numpy": "2.*"}
    manifest = make_manifest(libraries={"numpy": "1.26.4"})
    assert find(name_global("numpy.core.multiarray", "scalar"), {"manifest.json": manifest}).needs.libraries == {
        "numpy": "1.26.4"
    }


def test_a_file_that_no_environment_can_serve_stays(find: Find) -> None:
    manifest = make_manifest(libraries={"scikit-learn": "0.24.2"})
    assert find(name_global("sklearn.svm._classes", "SVC"), {"manifest.json": manifest}, trust="any").stays
    assert find(b"\x80\x02U\x04text.", trust="any").stays  # only Python 2 writes such a text
    booster = b"\x80\x04cxgboost.core\nBooster\n)\x81}(\x8c\x06handleC\x20binf" + b"\0" * 28 + b"ub."
    assert find(booster, trust="any").stays
    assert not find(booster.replace(b"binf", b"{L\0\0"), trust="any").stays


def test_a_large_model_is_surveyed_whole(find: Find) -> None:
    trees = GradientBoostingClassifier(n_estimators=2500, max_depth=1, random_state=0).fit(ROWS, WORDS)
    found = find(dump([trees, FunctionTransformer(after_all_arrays)]), trust="signed")
    assert __name__.partition(".")[0] in found.needs.modules

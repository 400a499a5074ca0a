"""Files of other libraries and old versions: the refusal says what each file is and what to do."""

from __future__ import annotations

import base64
import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pytest
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from serving.domain.report import Verdict
from serving.domain.version import Format
from serving.host.loading import Trust, load_model
from serving.host.model import LoadRefused
from tests.hostile.opcodes import Fragment, built, instance, named, value, whole
from tests.unit.host.candidates import ROWS, WORDS, MakeCandidate
from tests.unit.host.gates.conftest import candidate  # noqa: F401  (a fixture)

# two trees of binary:logistic, written by XGBoost 2.1.4 with save_raw("deprecated")
XGBOOST_2 = zlib.decompress(
    base64.b64decode(
        "eNpLysxLc6v4bsfMAAGMUJoJymZEEqM14IfSSZl5iUWVVjn56ZnFJZnJbFDh9KSSotRUJjo6iBwAchszEp95ELj3PxAwQiMVBKpd"
        "nG2BVMN/KACJRS1h3g9TCxNbMpfb3mN9sNOJ3fmOyy4f3A4zr2nndweYehDg2/fcAaR2KPufV/DSPnT/fxa+afde8rtj8eZ4x3e7"
        "nu2CmTfX+IkDTD0IeBjfdgCpRU8HIMAJpfOTslKTSzLLUl1gjlDKS8xNVbJSQkvuSjpKRanp8Tn5xcXxBYlFiblKVtVKxcmJOanx"
        "BfnF8eWpmekZJUBthkq1tQCs53hT"
    )
)
# with magic bytes, without them, and with the configuration that pickles had
OLD_XGBOOST = [XGBOOST_2, XGBOOST_2[4:], b"CONFIG-offset:" + len(XGBOOST_2).to_bytes(8, "little") + XGBOOST_2]


def refusal(path: Path, raw: bytes, kind: Format = Format.PICKLE, *, is_restricted: bool = True) -> str:
    path.write_bytes(raw)
    with pytest.raises(LoadRefused) as caught:
        load_model(str(path), kind, Trust(is_restricted=is_restricted))
    return str(caught.value)


def zip_members(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


TORCH = zip_members(archive__data_pkl=whole(value({"weight": 1}), 2), archive__version=b"3\n")
KERAS = zip_members(config_json=b"{}", metadata_json=b"{}", model_weights_h5=b"\x89HDF\r\n\x1a\n")
MATRIX = zip_members(arr0_npy=b"\x93NUMPY")
TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)


@pytest.mark.parametrize("kind", [Format.JOBLIB, Format.PICKLE, Format.ONNX, Format.SKOPS, Format.XGBOOST])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        *[(raw, "saved by XGBoost 3.0 or older: load it there and save it as .ubj") for raw in OLD_XGBOOST],
        (TORCH, "a file of torch.save: export the model with torch.onnx.export"),
        (TORCH_LEGACY, "a file of torch.save: export the model with torch.onnx.export"),
        (KERAS, "a Keras model: save it with model.export('model.onnx', format='onnx')"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras writes it: save it with model.export("),
        (MATRIX, "a file of NumPy arrays (.npz), not a model"),
        (b"CBM1" + bytes(90), "a CatBoost model: save it with model.save_model('model.onnx', format='onnx')"),
        (
            pickle.dumps(LogisticRegression(), 0),
            "a pickle in protocol 0 or 1, as Python 2 wrote it: load it where it was written",
        ),
        (
            pickle.dumps(LogisticRegression(), 1),
            "a pickle in protocol 0 or 1, as Python 2 wrote it: load it where it was written",
        ),
        (pickle.dumps({"a": 1}, 0), "a pickle in protocol 0 or 1"),
        (
            b"ccopy_reg\n_reconstructor\np0\n(csklearn.svm.classes\nSVC\np1\n",
            "a pickle in protocol 0 or 1, as Python 2 wrote it",
        ),
    ],
)
def test_a_file_is_recognised_by_its_first_bytes(
    candidate: MakeCandidate,  # noqa: F811
    raw: bytes,
    words: str,
    kind: Format,
) -> None:
    result = candidate(raw, f"model.{kind}", kind).evaluate()["format"]
    assert result.verdict is Verdict.REFUSED
    assert words in result.evidence


def test_an_old_xgboost_file_is_refused_with_advice_without_the_gate_too(tmp_path: Path) -> None:
    for raw in OLD_XGBOOST:
        assert "saved by XGBoost 3.0 or older" in refusal(tmp_path / "model", raw, Format.XGBOOST)


@pytest.mark.parametrize("is_restricted", [True, False])
def test_old_xgboost_models_are_recognised_in_pickles(tmp_path: Path, is_restricted: bool) -> None:
    for raw in (OLD_XGBOOST[0], OLD_XGBOOST[2]):
        for handle in (
            Fragment(pickle.dumps(bytearray(raw), 5)[2:-1]),
            Fragment(pickle.dumps(bytearray(raw), 3)[2:-1]),
        ):
            booster = built(instance(named("xgboost.core:Booster")), {"handle": handle})
            message = refusal(tmp_path / "model", whole(booster, 5), is_restricted=is_restricted)
            assert "saved by XGBoost 3.0 or older: load it there and save it as .ubj" in message


def test_estimators_of_lightgbm_2_are_not_reported_as_unfitted(tmp_path: Path) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=1, num_leaves=2, min_child_samples=5, verbose=-1)
    model.fit(ROWS, ROWS[:, 0])
    del model.fitted_  # LightGBM 2.3.1 writes estimators without it
    message = refusal(tmp_path / "model", pickle.dumps(model))
    assert "pickled by LightGBM 2 or 3" in message
    assert "model.booster_.save_model('model.txt')" in message
    assert "is not fitted" in refusal(tmp_path / "model", pickle.dumps(lightgbm.LGBMRegressor()))


@pytest.mark.parametrize("version", [2, 3])
def test_text_models_of_lightgbm_2_and_3_are_served(tmp_path: Path, version: int) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=2, min_child_samples=5, verbose=-1).fit(ROWS, ROWS[:, 0])
    text = model.booster_.model_to_string().replace("version=v4", f"version=v{version}")
    (tmp_path / "model").write_text(text)
    assert load_model(str(tmp_path / "model"), Format.LIGHTGBM).name == "LightgbmBooster"


# --- names in a pickle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restricted", [True, False])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sklearn.svm.classes:SVC", "scikit-learn (0.x, before 0.24) and names sklearn.svm.classes.SVC"),
        ("sklearn.ensemble._gb_losses:BinomialDeviance", "scikit-learn (1.3 or older) and names sklearn.ensemble._gb_"),
        ("sklearn.externals.joblib.numpy_pickle:NumpyArrayWrapper", "scikit-learn (0.x, before 0.24)"),
        ("sklearn.linear_model._base:NotThere", "scikit-learn (another version)"),
    ],
)
def test_names_that_scikit_learn_has_moved_are_never_advised_to_be_trusted(
    tmp_path: Path, name: str, words: str, is_restricted: bool
) -> None:
    message = refusal(tmp_path / "model", whole(instance(named(name))), is_restricted=is_restricted)
    assert f"the file was saved by {words}" in message
    assert f"which scikit-learn {sklearn.__version__} does not have: train the model again" in message
    assert "pickle_trusted" not in message


def test_the_version_that_wrote_moved_names_is_read_from_the_file(tmp_path: Path) -> None:
    old = built(instance(named("sklearn.svm.classes:SVC")), {"C": 1.0, "_sklearn_version": "0.20.3"})
    assert "the file was saved by scikit-learn 0.20.3 and names" in refusal(tmp_path / "model", whole(old))


@pytest.mark.parametrize("is_restricted", [True, False])
def test_trees_from_before_1_3_are_recognised(tmp_path: Path, is_restricted: bool) -> None:
    forest = RandomForestClassifier(2).fit(ROWS, WORDS)
    for tree in forest.estimators_:
        tree.tree_ = OldTree(tree.tree_)
    message = refusal(tmp_path / "model", pickle.dumps(forest), is_restricted=is_restricted)
    assert "the file holds trees of a scikit-learn before 1.3" in message
    assert "train the model again" in message


class OldTree:
    """Pickles as a tree whose nodes lack the field that scikit-learn 1.3 added."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __reduce__(self) -> Any:
        kind, arguments, state = self.tree.__reduce__()
        nodes = state["nodes"]
        fields = [name for name in nodes.dtype.names if name != "missing_go_to_left"]
        old = np.empty(nodes.shape, [(name, nodes.dtype[name]) for name in fields])
        for name in fields:
            old[name] = nodes[name]
        return kind, arguments, {**state, "nodes": old}


def test_pickles_of_python_2_are_recognised(tmp_path: Path) -> None:
    # an array in protocol 2 as Python 2 writes it: the bytes in a str, which Python 3 cannot decode as text
    raw = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01bt(U\x01\xffU\x01\xfet\x86."
    assert "the file was saved by Python 2: load it where it was written" in refusal(tmp_path / "model", raw)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch._utils:_rebuild_tensor_v2", "a model of PyTorch: export the model with torch.onnx.export"),
        ("keras.src.saving.serialization_lib:x", "a model of Keras: save it with model.export("),
        ("tensorflow.python.keras:x", "a model of Keras: save it with model.export("),
    ],
)
def test_other_libraries_in_a_pickle_are_named_with_advice(tmp_path: Path, name: str, words: str) -> None:
    message = refusal(tmp_path / "model", whole(value([named(name)])), Format.JOBLIB)
    assert words in message
    assert "pickle_trusted" not in message


def test_a_model_and_a_scaler_should_be_a_pipeline(tmp_path: Path) -> None:
    model, scaler = LogisticRegression().fit(ROWS, WORDS), StandardScaler().fit(ROWS)
    for parts in ({"scaler": scaler, "model": model}, [scaler, model], (model, scaler)):
        message = refusal(tmp_path / "model", pickle.dumps(parts))
        assert "not an estimator: make a Pipeline of its parts, make_pipeline(scaler, model), and save that" in message
    joblib.dump({"model": model, "accuracy": 0.9}, tmp_path / "other")
    assert "save the estimator itself" in refusal(tmp_path / "model", (tmp_path / "other").read_bytes())

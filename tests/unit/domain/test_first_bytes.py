"""What files are by their first bytes: real ones of the libraries, and what lies beside them under the same names."""

from __future__ import annotations

import json
import pickle
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from onnx import TensorProto, helper

from serving.domain.first_bytes import HEAD_BYTES, format_of, is_other_json
from serving.domain.version import Format

ROWS = np.random.default_rng(3).normal(size=(60, 3))
NUMBERS = ROWS[:, 0]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the beginnings of files by what was saved."""
    place = tmp_path_factory.mktemp("files")
    trees = xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(ROWS, NUMBERS)
    linear = xgboost.XGBRegressor(n_estimators=2, n_jobs=1, booster="gblinear").fit(ROWS, NUMBERS)
    for name, estimator in (("trees", trees), ("linear", linear)):
        estimator.save_model(place / f"{name}.json")
        estimator.save_model(place / f"{name}.ubj")
        document = json.loads((place / f"{name}.json").read_bytes())
        (place / f"{name} written anew").write_text(json.dumps(document, indent=4))
        (place / f"{name}, version first").write_text(json.dumps(dict(reversed(document.items()))))
    booster = trees.get_booster()
    (place / "configuration").write_text(booster.save_config())
    booster.dump_model(place / "dump.json", dump_format="json")
    booster.dump_model(place / "dump.txt")
    text = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(ROWS, NUMBERS).booster_.model_to_string()
    (place / "text").write_text(text)
    (place / "text of windows").write_bytes(text.encode().replace(b"\n", b"\r\n"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "XY"]
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "g", values[:1], values[1:])
    for producer in ("", "pytorch"):
        onnx.save(helper.make_model(graph, producer_name=producer, ir_version=9), place / f"graph {producer}")
    return {path.name: path.read_bytes()[:HEAD_BYTES] for path in place.iterdir()}


@pytest.mark.parametrize("form", [".json", ".ubj", " written anew", ", version first"])
@pytest.mark.parametrize("booster", ["trees", "linear"])
def test_models_of_xgboost_are_known_in_all_forms(heads: dict[str, bytes], booster: str, form: str) -> None:
    assert format_of(heads[booster + form]) is Format.XGBOOST


def test_texts_of_lightgbm_and_graphs_are_known(heads: dict[str, bytes]) -> None:
    assert format_of(heads["text"]) is format_of(heads["text of windows"]) is Format.LIGHTGBM
    assert format_of(heads["graph "]) is format_of(heads["graph pytorch"]) is Format.ONNX


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_python_3_are_known(protocol: int) -> None:
    assert format_of(pickle.dumps(("a", 1), protocol)[:HEAD_BYTES]) is Format.PICKLE


@pytest.mark.parametrize("name", ["configuration", "dump.json", "dump.txt"])
def test_what_a_booster_writes_besides_is_no_model(heads: dict[str, bytes], name: str) -> None:
    assert format_of(heads[name]) is None


@pytest.mark.parametrize(
    "document",
    [
        {"accuracy": 0.97},
        {"learner": "gbtree"},
        {"learner": {"objective": "reg:squarederror", "eta": 0.3}},
        {"version": [1, 2, 3], "name": "iris"},
        {"version": [1, 2, 3], "learner": {"rate": 0.1}},
        {"format_version": 1, "model": "iris"},
        [[1.0, 2.0]],
        [],
    ],
)
def test_other_json_is_no_model(document: Any) -> None:
    for indent in (None, 2):
        head = json.dumps(document, indent=indent).encode()
        assert format_of(head) is None
        assert is_other_json(head)


@pytest.mark.parametrize(
    "head", [b"", b"\x80", b"\x08", b"{", b"tree\n", b"tree of life", b"numpy==2.4", b"\x0a\x08<unk>"]
)
def test_what_may_be_anything_is_not_told(head: bytes) -> None:
    assert format_of(head) is None


def test_models_are_not_taken_for_other_json(heads: dict[str, bytes]) -> None:
    assert not is_other_json(heads["trees.json"])
    assert not is_other_json(b"bytes of something")

"""An .onnx file in the store is answered by the server itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from serving.domain.rows import rows_to_batch
from serving.host.onnx_model import load_onnx
from tests.e2e.harness import serving

X, Y = load_breast_cancer(return_X_y=True)


def test_a_dropped_file_is_answered_without_a_host_and_as_the_file_says(tmp_path: Path) -> None:
    forest = RandomForestClassifier(20, random_state=0).fit(X.astype(np.float32), Y)
    with warnings.catch_warnings(action="ignore"):  # skl2onnx is behind scikit-learn in attributes it reads
        content = to_onnx(forest, X[:1].astype(np.float32)).SerializeToString()
    with serving(tmp_path) as server:
        aside = server.store / "m" / ".aside"
        aside.mkdir(parents=True)
        (aside / "model.onnx").write_bytes(content)
        aside.rename(server.store / "m" / "1")
        server.wait_active("m", 1)
        compilation = server.version("m", 1)["compilation"]
        assert (compilation["engine"], compilation["largest_difference"]) == ("onnx", 0.0)
        assert server.model("m")["active"]["engine"] == "onnx"
        assert not server.hosts()

        (tmp_path / "blob").write_bytes(content)
        model = load_onnx(str(tmp_path / "blob"))
        rows = X[:100].tolist()
        for method in ("predict", "predict_proba"):
            url = f"{server.url}/models/m/predict"
            answered = server.client.post(url, json={"instances": rows, "method": method}).json()["predictions"]
            expected = model.answer(method, rows_to_batch(model.signature, rows)).by_row()
            np.testing.assert_array_equal(np.float32(answered), np.float32(expected))
        too_large = server.predict("m", [[1e39, *rows[0][1:]]])
        assert too_large.status_code == 422
        assert "the model takes at most 3.40282e+38" in too_large.json()["detail"]

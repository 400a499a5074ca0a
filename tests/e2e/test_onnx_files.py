"""An .onnx file in the store is answered by the server itself, when a trusted key has signed it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from serving.host.onnx_model import load_onnx
from serving.offline.keys import SigningKey
from serving.rows.parsing import rows_to_batch
from serving.store.publishing import Publication, publish
from tests.e2e.harness import Server, serving, until
from tests.e2e.test_signed import NOW
from tests.unit.host.gates.test_batching_gate import make_graph
from tests.unit.host.test_onnx_model import FILMS, make_text_graph

X, Y = load_breast_cancer(return_X_y=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Server]:
    """A server that trusts a key, whose tests bring models of their own."""
    with serving(tmp_path_factory.mktemp("files"), SERVING_SECURITY__TRUSTED_KEYS=str(key.public)) as running:
        yield running


def test_a_signed_file_is_answered_without_a_host_and_as_the_file_says(
    server: Server, key: SigningKey, tmp_path: Path
) -> None:
    forest = RandomForestClassifier(20, random_state=0).fit(X.astype(np.float32), Y)
    with warnings.catch_warnings(action="ignore"):  # skl2onnx is behind scikit-learn in attributes it reads
        content = to_onnx(forest, X[:1].astype(np.float32)).SerializeToString()
    file = Publication("m", "model.onnx", lambda file: file.write(content), version="1", sign=key.sign)
    others = server.hosts()
    publish(server.store, file, NOW)
    server.wait_active("m", 1)
    compilation = server.version("m", 1)["compilation"]
    assert (compilation["engine"], compilation["largest_difference"]) == ("onnx", 0.0)
    assert server.model("m")["active"]["engine"] == "onnx"
    until(lambda: all(host in others for host in server.hosts()), "the end of the host that has checked it")

    (tmp_path / "blob").write_bytes(content)
    model = load_onnx(str(tmp_path / "blob"))
    rows = X[:100].tolist()
    for method in ("predict", "predict_proba"):
        url = f"{server.url}/models/m/predict"
        answered = server.client.post(url, json={"instances": rows, "method": method}).json()["predictions"]
        expected = model.answer(method, rows_to_batch(model.signature, rows)).list_rows()
        np.testing.assert_array_equal(np.float32(answered), np.float32(expected))
    too_large = server.predict("m", [[1e39, *rows[0][1:]]])
    assert too_large.status_code == 422
    assert "the model takes at most 3.40282e+38" in too_large.json()["detail"]


def test_outputs_and_texts_are_answered_in_the_sandbox(server: Server) -> None:
    """The locale by which texts are lowered is read there, and further outputs are methods."""
    _, texts = make_text_graph()
    with warnings.catch_warnings(action="ignore"):
        clusters = to_onnx(KMeans(3, n_init=1, random_state=0).fit(X[:50]), X[:1].astype(np.float32))
    for name, file, graph in (("texts", "1/graph.onnx", texts), ("clusters", "1/any.model", clusters)):
        (server.store / name / "1").mkdir(parents=True)
        (server.store / name / file).write_bytes(graph.SerializeToString())
        server.wait_active(name, 1)
    assert server.predict("texts", FILMS).json()["predictions"] == [1, 0, 1, 0]
    url = f"{server.url}/models/clusters/predict"
    answered = server.client.post(url, json={"instances": X[:1].tolist(), "method": "transform"}).json()
    assert len(answered["predictions"][0]) == 3


def test_a_graph_that_mixes_rows_gets_each_request_alone(server: Server) -> None:
    for name, dtype in (("integers", onnx.TensorProto.INT64), ("floats", onnx.TensorProto.FLOAT)):
        directory = server.store / name
        directory.mkdir()
        (directory / "1.onnx").write_bytes(make_graph(dtype, is_across=True))
        server.wait_active(name, 1)
        with ThreadPoolExecutor(48) as clients:
            answers = list(clients.map(lambda row, name=name: server.predict(name, [[row]]).json(), range(600)))
        assert [answer for answer in answers if answer["predictions"] not in ([0.0], [[0.0]])] == []
        gates = {gate["gate"]: gate for gate in server.version(name, 1)["gates"]}
        assert gates["batching"]["verdict"] == "warned"
        assert "never merged: predict gives another answer to row 0" in gates["batching"]["evidence"]

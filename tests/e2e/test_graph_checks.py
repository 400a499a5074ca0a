"""Graphs on their way into a real server: what is not bounded stays outside, and what runs takes turns."""

from __future__ import annotations

import concurrent.futures
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
from graph_forger import GraphForger
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from serving.offline.keys import SigningKey, create_key, load_key
from serving.store.publishing import Publication, publish
from tests.e2e.harness import NO_TLS, PECULIAR, Server, constant, serving, until
from tests.e2e.test_signed import NOW
from tests.unit.host.graph_check.bombs import BOMBS
from tests.unit.host.graph_check.graphs import constant as tensor
from tests.unit.host.graph_check.graphs import model, node

MOST_GROWTH_BYTES = 150 << 20
FORGER = "graph_forger.GraphForger"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Iterator[Server]:
    """A server that trusts a key, and one class that turns on it."""
    settings = {
        "SERVING_SECURITY__TRUSTED_KEYS": str(key.public),
        "SERVING_SECURITY__PICKLE_TRUSTED": ",".join([*PECULIAR, FORGER]),
    }
    with serving(tmp_path_factory.mktemp("graphs"), **settings) as running:
        running.drop("good", 1, constant(5))
        running.wait_active("good", 1)
        yield running


class Growth:
    """How much more memory the server has had at most since, in bytes."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._before = psutil.Process(server.process.pid).memory_info().rss

    def bytes(self) -> int:
        lines = self._status.read_text().splitlines()
        peak = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
        return peak - self._before


def put(server: Server, name: str, content: Any, key: SigningKey | None) -> None:
    """Publish an .onnx file, signed or not."""
    publication = Publication(
        model=name,
        artefact_name="model.onnx",
        artefact=lambda file: file.write(content.SerializeToString()),
        version="1",
        sign=None if key is None else key.sign,
    )
    publish(server.store, publication, NOW)
    server.wait_active(name, 1)


def ask(server: Server, name: str, rows: int) -> httpx.Response:
    return server.predict(name, [[1.0]] * rows)


# --- files ------------------------------------------------------------------------------------------------------------


def plain() -> Any:
    made = model([node("Mul", "X factor", "y")], [tensor("factor", [2.0])])
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1]))
    return made


def test_a_file_is_compiled_when_a_trusted_key_has_signed_it_and_says_so_when_not(
    server: Server, key: SigningKey, tmp_path: Path
) -> None:
    put(server, "signed", plain(), key)
    put(server, "unsigned", plain(), None)
    create_key(tmp_path / "foreign")
    put(server, "foreign", plain(), load_key(tmp_path / "foreign"))
    compilation = server.version("signed", 1)["compilation"]
    assert compilation["engine"] == "onnx"
    assert compilation["bounds"]["rows"] == compilation["most_rows"]
    for name in ("unsigned", "foreign"):
        version = server.version(name, 1)
        assert version["compilation"]["engine"] is None
        assert "security.trusted_keys" in version["compilation"]["reason"]
        assert "serving publish --sign" in version["compilation"]["reason"]
    for name in ("signed", "unsigned", "foreign"):
        assert ask(server, name, 2).json()["predictions"] == [2.0, 2.0]


@pytest.mark.parametrize("name", ["equal", "where", "modulo", "squared", "tiled_over_each_other", "outer_product"])
def test_a_signed_bomb_stays_in_its_host_and_costs_the_server_nothing(
    server: Server, key: SigningKey, name: str
) -> None:
    made = BOMBS[name]()
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1]))
    put(server, name.replace("_", "-"), made, key)
    growth = Growth(server)
    compilation = server.version(name.replace("_", "-"), 1)["compilation"]
    assert compilation["engine"] is None
    for rows in (1, 776, 777, 778):
        ask(server, name.replace("_", "-"), rows)
    assert growth.bytes() < MOST_GROWTH_BYTES
    assert server.predict("good").json()["predictions"] == [5.0]


# --- graphs that a host forges ----------------------------------------------------------------------------------------


def two_columns(made: Any) -> Any:
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, 2]))
    return made


def _reads_settings() -> Any:
    made = model(
        [node("MatMul", "X secret", "y_"), node("ReduceSum", "y_ axis", "y", keepdims=0)],
        [tensor("secret", [[1.0]] * 2), tensor("axis", [1])],
        width=2,
    )
    secret = made.graph.initializer[0]
    secret.ClearField("raw_data")
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="settings.toml")
    return made


def _never_ends() -> Any:
    inputs = [helper.make_tensor_value_info(*each, []) for each in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
    outputs = [helper.make_tensor_value_info("d", TensorProto.BOOL, [])]
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", inputs, outputs)
    loop = helper.make_node("Loop", ["", "yes"], [], body=body)
    constants = [tensor("yes", True), tensor("axis", [1])]
    return model([loop, node("ReduceSum", "X axis", "y", keepdims=0)], constants, width=2)


FORGED = {
    "bomb": lambda: two_columns(BOMBS["equal"]()),
    "reads-settings": _reads_settings,
    "never-ends": _never_ends,
    "ends-the-process": lambda: model(
        [
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("Div", "i i", "d"),
            node("Cast", "d", "f", to=TensorProto.DOUBLE),
            node("ReduceSum", "f axis", "y", keepdims=0),
        ],
        [tensor("axis", [1])],
        width=2,
    ),
    "no-graph": onnx.ModelProto,
    "wrong-width": lambda: model([node("Identity", "X", "y")], width=2),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_graph_that_a_host_forges_never_runs_in_the_server(server: Server, name: str) -> None:
    """The model is answered by its host, which may do what it likes: to itself."""
    server.directory.joinpath("settings.toml").write_bytes(np.array([[42.0], [42.0]]).tobytes())
    growth, offset = Growth(server), server.log_path.stat().st_size
    server.drop(name, 1, GraphForger(FORGED[name]().SerializeToString() or b"\0").fit([[0.0, 0.0]]))
    try:
        server.wait_active(name, 1)
    finally:
        server.directory.joinpath("settings.toml").unlink()
    compilation = server.version(name, 1)["compilation"]
    assert compilation["engine"] is None
    assert compilation["reason"].startswith("its graph is not taken into the server: ")
    refused = [line for line in server.log(offset) if line.get("event") == "graph_refused"]
    assert [line["model"] for line in refused] == [name]
    for rows in (1, 777):
        assert server.predict(name, [[0.0, 0.0]] * rows).json()["predictions"] == [1.0] * rows
    assert growth.bytes() < MOST_GROWTH_BYTES
    assert server.client.get(server.url + "/health/ready").status_code == 200


# --- taking turns -----------------------------------------------------------------------------------------------------

WIDE = np.random.default_rng(0).normal(size=(3000, 10))
TURNS = {"SERVING_SERVER__MAX_QUEUE": "12", "SERVING_SERVER__PREDICT_SECONDS": "300"}
LIGHT = LinearRegression().fit(WIDE, WIDE[:, 0])
ROWS = np.resize(WIDE, (30_000, 10))
FEWER = 10_000


def npy(rows: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()


def post(server: Server, name: str, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    return httpx.post(f"{server.url}/models/{name}/predict", content=body, headers=headers, timeout=300, verify=NO_TLS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a heavy and of a light compiled model, where few requests may wait for one model."""
    with serving(tmp_path_factory.mktemp("turns"), **TURNS) as running:
        heavy = RandomForestRegressor(20, random_state=0).fit(WIDE, WIDE[:, 0] * WIDE[:, 1])
        for name, estimator in (("heavy", heavy), ("light", LIGHT)):
            running.drop(name, 1, estimator)
            running.wait_active(name, 1)
            assert running.version(name, 1)["engine"] == "onnx"
        yield running


def test_a_light_model_answers_while_a_heavy_one_has_more_requests_than_there_are_threads(shared: Server) -> None:
    heavy, light = npy(ROWS), npy(ROWS[:FEWER])
    assert shared.process is not None
    process = psutil.Process(shared.process.pid)
    before = process.cpu_times().user
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(post, shared, "heavy", heavy) for _ in range(12)]
        until(lambda: process.cpu_times().user > before + 0.2, "the heavy one at work")
        answer = post(shared, "light", light)
        assert not all(each.done() for each in waiting)
        assert answer.status_code == 200
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), LIGHT.predict(ROWS[:FEWER]))
        assert {each.result().status_code for each in waiting} == {200}


def test_more_requests_than_may_wait_are_turned_away(shared: Server) -> None:
    body = npy(ROWS)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: post(shared, "heavy", body), range(24)))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "12 requests are waiting for 'heavy' already" in answer.json()["detail"]


def test_requests_in_pieces_keep_their_version_through_swaps(shared: Server) -> None:
    shared.drop("swapped", 1, LIGHT)
    shared.wait_active("swapped", 1)
    body, slope = npy(ROWS), 2.0
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(post, shared, "swapped", body) for _ in range(6)]
        shared.drop("swapped", 2, LinearRegression().fit(WIDE, slope * WIDE[:, 0]))
        shared.wait_active("swapped", 2)
        asked += [pool.submit(post, shared, "swapped", body) for _ in range(6)]
        for each in asked:
            answer = each.result()
            assert answer.status_code == 200
            factor = {"1": 1.0, "2": slope}[answer.headers["x-model-version"]]
            np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), factor * ROWS[:, 0], atol=1e-9)

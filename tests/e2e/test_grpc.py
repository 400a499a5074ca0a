"""The Open Inference Protocol over gRPC, asked by the clients people have."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peculiar
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.e2e.harness import TOKEN, Server, constant, serving, until, write_version
from tests.e2e.record import Record, Reply

NO_EXTRA = "the extra grpc is not installed"
grpc = pytest.importorskip("grpc", reason=NO_EXTRA)
pytest.importorskip("grpc_reflection", reason=NO_EXTRA)
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2", reason=NO_EXTRA)
triton = pytest.importorskip("tritonclient.grpc", reason="no client of the protocol is installed")

import tritonclient.grpc.aio as triton_aio  # noqa: E402
from grpc_health.v1 import health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
ADMIN = {"authorization": f"Bearer {TOKEN}"}
SWAPS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("grpc")
    data = load_iris()
    model = LogisticRegression(max_iter=1000).fit(data.data, data.target_names[data.target])
    write_version(directory / "store" / "iris", 1, model)
    write_version(directory / "store" / "m", 1, constant(1, peculiar.Slow))
    with serving(directory, wait_ready=True, SERVING_SERVER__GRPC_PORT="0", SERVING_SERVER__GRPC_MAX_MB="1") as found:
        yield found
        assert found.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(_address(server)) as found:
        yield found


def _address(server: Server) -> str:
    return next(event["address"] for event in server.log() if event["event"] == "listening_for_grpc")


def _matrix(rows: Any, kind: Any = triton, datatype: str = "FP64") -> Any:
    tensor = kind.InferInput("input", list(np.shape(rows)), datatype)
    tensor.set_data_from_numpy(np.asarray(rows, triton_dtype(datatype)))
    return tensor


def triton_dtype(datatype: str) -> Any:
    return {"FP64": np.float64, "FP32": np.float32}[datatype]


def test_a_client_asks_for_labels_and_probabilities_of_one_version(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("predict"), triton.InferRequestedOutput("predict_proba")]
    result = client.infer("iris", [_matrix(ROWS, datatype="FP32")], outputs=outputs, request_id="seven")
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("iris", "1", "seven")
    assert result.as_numpy("predict").tolist() == [b"setosa", b"virginica"]
    assert result.as_numpy("predict_proba").sum(axis=1) == pytest.approx([1, 1])


def test_typed_contents_are_answered_with_typed_contents_and_metadata_name_the_version(server: Server) -> None:
    request = service_pb2.ModelInferRequest(model_name="iris", model_version="1")
    tensor = request.inputs.add(name="input", datatype="FP32", shape=[2, 4])
    tensor.contents.fp32_contents.extend(ROWS.ravel())
    with grpc.insecure_channel(_address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response, call = stub.ModelInfer.with_call(request)
    assert not response.raw_output_contents
    assert list(response.outputs[0].contents.bytes_contents) == [b"setosa", b"virginica"]
    metadata = {item.key: item.value for item in call.trailing_metadata()}
    assert metadata["x-model-name"] == "iris"
    assert metadata["x-model-version"] == "1"
    assert metadata["x-request-id"] == response.id


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1")
    assert client.get_server_metadata().name == "serving"
    found = client.get_model_metadata("iris", as_json=True)
    assert (found["name"], found["versions"], found["platform"]) == ("iris", ["1"], "onnx")
    assert found["inputs"] == [{"name": "input", "datatype": "FP64", "shape": ["-1", "4"]}]
    assert [output["name"] for output in found["outputs"]][:2] == ["predict", "predict_proba"]
    assert [output["datatype"] for output in found["outputs"]][:2] == ["BYTES", "FP64"]


@pytest.mark.parametrize(
    ("model", "version", "code", "words"),
    [("irsi", "", "NOT_FOUND", "no model named 'irsi'"), ("iris", "9", "NOT_FOUND", "version '9' of 'iris'")],
)
def test_names_nobody_knows(client: Any, model: str, version: str, code: str, words: str) -> None:
    for ask in (
        lambda: client.infer(model, [_matrix(ROWS)], model_version=version),
        lambda: client.get_model_metadata(model, version),
    ):
        with pytest.raises(InferenceServerException, match=words) as raised:
            ask()
        assert raised.value.status() == f"StatusCode.{code}"


def test_rows_the_model_does_not_take_are_refused_by_feature(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="row 1, feature 'x2': is NaN") as raised:
        client.infer("iris", [_matrix([[1, 2, 3, 4], [1, 2, np.nan, 4]])])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_large_messages_are_refused_compressed_or_not(client: Any) -> None:
    for compression in (None, "gzip"):
        with pytest.raises(InferenceServerException, match=r"larger than max") as raised:
            client.infer("iris", [_matrix(np.zeros((50_000, 4)))], compression_algorithm=compression)
        assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert client.infer("iris", [_matrix(np.zeros((30_000, 4)))]).as_numpy("predict").shape == (30_000,)


def test_the_deadline_of_the_client_holds_and_the_lease_is_given_back(server: Server, client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("m", [_matrix([[1.0, 77.0]])], client_timeout=0.2)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    until(lambda: 'serving_leases{model="m",version="1"} 0.0' in _metrics(server), "the lease's end")


def test_predictions_are_counted_like_those_over_http(server: Server, client: Any) -> None:
    counter = 'serving_requests_total{model="iris",status="200",version="1"}'
    before = _counted(server, counter)
    client.infer("iris", [_matrix(ROWS)])
    assert server.predict("iris", ROWS.tolist()).status_code == 200
    assert _counted(server, counter) == before + 2


def _metrics(server: Server) -> str:
    return server.client.get(server.url + "/metrics").text


def _counted(server: Server, counter: str) -> float:
    return next((float(line.split()[-1]) for line in _metrics(server).splitlines() if line.startswith(counter)), 0.0)


def test_the_repository_is_for_operators(server: Server, client: Any) -> None:
    for ask in (client.get_model_repository_index, lambda: client.load_model("iris")):
        with pytest.raises(InferenceServerException, match="send the header 'Authorization") as raised:
            ask()
        assert raised.value.status() == "StatusCode.UNAUTHENTICATED"
    index = client.get_model_repository_index(headers=ADMIN)
    found = [(one.name, one.version, one.state) for one in index.models if one.name != "swapped"]
    assert found == [("iris", "1", "READY"), ("m", "1", "READY")]
    client.load_model("iris", headers=ADMIN)
    with pytest.raises(InferenceServerException, match="no model named 'irsi'"):
        client.load_model("irsi", headers=ADMIN)
    client.unload_model("iris", headers=ADMIN)
    assert not client.is_model_ready("iris")
    with pytest.raises(InferenceServerException, match="'iris' is unloaded") as raised:
        client.get_model_metadata("iris")
    assert raised.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("iris", headers=ADMIN)
    assert client.is_model_ready("iris")
    assert server.client.get(server.url + "/models/iris/history", headers=ADMIN).status_code == 200


def test_health_service_and_reflection(server: Server) -> None:
    with grpc.insecure_channel(_address(server)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            response = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ]
        services, *files = reflection.ServerReflectionInfo(iter(questions))
    assert [one.name for one in services.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    assert all(len(answer.file_descriptor_response.file_descriptor_proto) == 1 for answer in files)


def test_every_call_while_versions_are_swapped_is_answered_by_the_version_it_names(server: Server) -> None:
    """Invariant 1, with a client that asks one after another and eight that ask at once."""
    server.drop("swapped", 1, constant(1))
    server.wait_active("swapped", 1)
    record = Record()
    address = _address(server)
    stop = concurrent.futures.Future[None]()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asking = [
            pool.submit(_ask, address, record, stop),
            pool.submit(asyncio.run, _ask_at_once(address, record, stop)),
        ]
        try:
            for version in range(1, 2 + SWAPS):
                if version > 1:
                    server.drop("swapped", version, constant(version))
                until(lambda version=version: record.last_versions() == {str(version)}, f"answers of version {version}")
        finally:
            stop.set_result(None)
        for one in asking:
            one.result()
    record.verify()
    assert {reply.version for reply in record.replies} == {str(version) for version in range(1, 2 + SWAPS)}


def _ask(address: str, record: Record, stop: concurrent.futures.Future[None]) -> None:
    with triton.InferenceServerClient(address) as client:
        while not stop.done():
            began = time.perf_counter()
            record.add(_reply(client.infer("swapped", [_matrix([[0.0, 0.0]])]), 0, began))


async def _ask_at_once(address: str, record: Record, stop: concurrent.futures.Future[None]) -> None:
    async def ask(connection: int) -> None:
        while not stop.done():
            began = time.perf_counter()
            record.add(_reply(await client.infer("swapped", [_matrix([[0.0, 0.0]], triton_aio)]), connection, began))

    async with triton_aio.InferenceServerClient(address) as client:
        await asyncio.gather(*map(ask, range(1, 9)))


def _reply(result: Any, connection: int, began: float) -> Reply:
    version = result.get_response().model_version
    value = float(result.as_numpy("predict")[0])
    return Reply(connection, began, time.perf_counter() - began, 200, version, value)


def test_without_the_setting_nothing_of_grpc_is_loaded(server: Server, tmp_path: Path) -> None:
    assert "cygrpc" in _mapped(server)
    with serving(tmp_path) as other:
        assert other.client.get(other.url + "/health/live").status_code == 200
        assert "cygrpc" not in _mapped(other)
        assert "google" not in _mapped(other)


def _mapped(server: Server) -> str:
    assert server.process is not None
    return Path(f"/proc/{server.process.pid}/maps").read_text()


def test_operators_calls_are_not_here_where_they_have_a_port_of_their_own(tmp_path: Path) -> None:
    settings = {"SERVING_SERVER__GRPC_PORT": "0", "SERVING_SERVER__ADMIN_PORT": "0"}
    with serving(tmp_path, **settings) as server, triton.InferenceServerClient(_address(server)) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()
        for ask in (client.get_model_repository_index, lambda **given: client.load_model("m", **given)):
            with pytest.raises(InferenceServerException) as raised:
                ask(headers=ADMIN)
            assert raised.value.status() == "StatusCode.UNIMPLEMENTED"

"""Traces of requests and candidates, as a collector gets them from a real server."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import peculiar
import pytest

from tests.e2e.frozen import frozen
from tests.e2e.harness import TOKEN, Server, constant, linear, serving, until, write_version
from tests.e2e.span_collector import CollectedSpan, Collector, collecting

SERVER_KIND, INTERNAL_KIND = 2, 1
ERROR = 2
CLIENT = "b7ad6b7169203331"
ADMIN = {"authorization": f"Bearer {TOKEN}"}
VALUE = 31337.25  # of rows: in no span


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("traces")
    write_version(directory / "store" / "compiled", 1, linear())
    write_version(directory / "store" / "hosted", 1, constant(1))
    write_version(directory / "store" / "slow", 1, constant(1, peculiar.Slow))
    options = {
        "SERVING_TRACES__ENDPOINT": collector.endpoint,
        "SERVING_TRACES__SERVICE": "models",
        "SERVING_SERVER__GRPC_PORT": "0",
        "SERVING_LOG__ACCESS_SAMPLE": "0",
    }
    with serving(directory, wait_ready=True, **options) as found:
        yield found
        assert found.stop() == 0
        assert not [line for line in found.log() if line.get("logger", "").startswith(("opentelemetry", "urllib3"))]


def new_trace() -> str:
    return os.urandom(16).hex()


def ask(
    server: Server, model: str, rows: Any = ((1.0, 2.0),), flags: str = "01", **headers: str
) -> tuple[str, httpx.Response]:
    """POST a prediction within a new trace, and return its number."""
    trace = new_trace()
    headers = {"traceparent": f"00-{trace}-{CLIENT}-{flags}", **headers}
    return trace, server.client.post(f"{server.url}/models/{model}/predict", json={"instances": rows}, headers=headers)


def assert_tiles(request: CollectedSpan, stages: list[CollectedSpan]) -> None:
    """The stages belong to the request, follow one another without a gap, and end with it."""
    assert {stage.parent_id for stage in stages} == {request.span_id}
    assert {stage.kind for stage in stages} == {INTERNAL_KIND}
    times = [request.begins_at, *(stage.begins_at for stage in stages), request.ends_at]
    assert times == sorted(times)
    assert [stage.ends_at for stage in stages] == [*(stage.begins_at for stage in stages[1:]), request.ends_at]


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "engine", "stage"), [("compiled", "onnx", "graph"), ("hosted", "sklearn", "host")], ids=str
)
def test_a_request_that_its_client_traces_has_a_span_with_its_stages(
    model: str, engine: str, stage: str, server: Server, collector: Collector
) -> None:
    before = time.time_ns()
    trace, response = ask(server, model, [[1.0, 2.0], [3.0, 4.0]], tracestate="vendor=7")
    after = time.time_ns()
    request, *stages = collector.wait_trace(trace)
    assert (request.name, request.kind, request.parent_id) == ("POST /models/{model}/predict", SERVER_KIND, CLIENT)
    assert before <= request.begins_at < request.ends_at <= after
    assert request.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/models/{model}/predict",
        "url.path": f"/models/{model}/predict",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "serving.model": model,
        "serving.version": "1",
        "serving.engine": engine,
        "serving.rows": 2,
        "serving.request_id": response.headers["x-request-id"],
    }
    assert request.status == 0
    assert request.trace_state == "vendor=7"
    assert request.resource["service.name"] == "models"
    assert [each.name for each in stages] == ["admission", stage, "answer"]
    assert_tiles(request, stages)


def test_requests_that_wait_for_a_host_show_it_and_name_their_batch(server: Server, collector: Collector) -> None:
    leased = 'serving_leases{model="slow",version="1"} 6.0'
    with ThreadPoolExecutor(6) as clients:
        with frozen(server.hosts()):  # until all of them have come
            asked = [clients.submit(ask, server, "slow", [[0.5, 77.0]]) for _ in range(6)]
            until(lambda: leased in server.client.get(server.url + "/metrics").text, "the requests waiting")
        traces = [one.result()[0] for one in asked]
    found = [collector.wait_trace(trace) for trace in traces]
    for request, *stages in found:
        assert_tiles(request, stages)
    waited = [stages for _, *stages in found if "wait" in {stage.name for stage in stages}]
    assert len(waited) == 5  # all but the one that found the host idle
    assert [stage.name for stage in waited[0]] == ["admission", "wait", "host", "answer"]
    batches = [stage.attributes for stages in waited for stage in stages if stage.name == "host"]
    assert {"serving.batch.rows": 5, "serving.batch.requests": 5} in batches


def test_a_large_request_to_a_compiled_model_waits_for_a_thread(server: Server, collector: Collector) -> None:
    trace, _ = ask(server, "compiled", np.ones((50_000, 2)).tolist())
    request, *stages = collector.wait_trace(trace)
    assert [stage.name for stage in stages] == ["admission", "wait", "graph", "answer"]
    assert request.attributes["serving.rows"] == 50_000
    assert_tiles(request, stages)


def test_refused_requests_are_traced_and_say_why_without_a_value(server: Server, collector: Collector) -> None:
    trace, response = ask(server, "compiled", [[VALUE, "secret"]])
    assert response.status_code == 422
    request, *stages = collector.wait_trace(trace)
    assert request.attributes["http.response.status_code"] == 422
    assert request.attributes["serving.problem"] == "invalid-input"
    assert request.status == 0  # what a client does wrong is no error of the server, by the conventions
    assert "error.type" not in request.attributes
    assert [stage.name for stage in stages] == ["admission"]
    trace, response = ask(server, "nobody")
    assert response.status_code == 404
    request, *_ = collector.wait_trace(trace)
    assert request.name == "POST /models/{model}/predict"
    assert request.attributes["serving.problem"] == "unknown-model"
    assert "serving.model" not in request.attributes


def test_a_failure_of_the_server_is_an_error(server: Server, collector: Collector) -> None:
    write_version(server.store / "failing", 1, constant(1, peculiar.Suicidal))
    server.wait_active("failing", 1)
    trace, response = ask(server, "failing", [[13.0, VALUE]])
    assert response.status_code == 503  # two hosts have died of it
    request, *stages = collector.wait_trace(trace)
    assert (request.status, request.message, request.attributes["error.type"]) == (ERROR, "status 503", "503")
    assert request.attributes["serving.problem"] == "unavailable"
    names = [(stage.name, stage.status) for stage in stages]
    assert names == [("admission", 0), ("host", 0), ("wait", 0), ("host", ERROR)]


def test_no_value_of_a_row_is_in_any_span(server: Server, collector: Collector) -> None:
    for model in ("compiled", "hosted"):
        trace, _ = ask(server, model, [[VALUE, VALUE]])
        collector.wait_trace(trace)
    everything = b"".join(span.raw for span in collector.spans())
    assert str(VALUE).encode() not in everything
    assert b"secret" not in everything
    assert np.float64(VALUE).tobytes() not in everything


def test_other_calls_are_traced_where_their_client_asks(server: Server, collector: Collector) -> None:
    wanted = {
        ("GET", "/models/hosted"): ("GET /models/{model}", 200),
        ("DELETE", "/models/hosted/pin"): ("DELETE /models/{model}/pin", 200),
        ("GET", "/no/such/thing"): ("GET", 404),
    }
    for (method, path), (name, status) in wanted.items():
        trace = new_trace()
        headers = {"traceparent": f"00-{trace}-{CLIENT}-01", **ADMIN}
        assert server.client.request(method, server.url + path, headers=headers).status_code == status
        (request,) = collector.wait_trace(trace)
        assert (request.name, request.attributes["http.response.status_code"]) == (name, status)


# --- who decides -----------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_sample_its_trace_has_no_span(server: Server, collector: Collector) -> None:
    quiet, response = ask(server, "hosted", flags="00")
    assert response.status_code == 200
    loud, _ = ask(server, "hosted")
    collector.wait_trace(loud)
    assert collector.of_trace(quiet) == []


MALFORMED = [
    "",
    "00",
    "00-{}-b7ad6b7169203331",
    "00-{}-0000000000000000-01",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "ff-{}-b7ad6b7169203331-01",
    "00-{}-b7ad6b7169203331-01-more",
    "00-{}-B7AD6B7169203331-01",
    "00-{}-b7ad6b7169203331-0x",
    "é",
]


@pytest.mark.parametrize("model", ["compiled", "hosted"])
def test_what_is_malformed_is_as_if_it_was_not_sent(model: str, server: Server, collector: Collector) -> None:
    """All of them are sent before the one that is traced: its spans come with theirs, if there are any."""
    traces = {header: new_trace() for header in MALFORMED}
    for header, trace in traces.items():
        headers = [(b"traceparent", header.format(trace).encode())]
        url = f"{server.url}/models/{model}/predict"
        response = server.client.post(url, json={"instances": [[1, 2]]}, headers=headers)
        assert response.status_code == 200, header
    later, _ = ask(server, model)
    collector.wait_trace(later)
    assert [header for header, trace in traces.items() if collector.of_trace(trace)] == []
    assert not [span for span in collector.spans() if span.parent_id == "" and span.kind == SERVER_KIND]


def test_a_later_version_of_the_header_is_understood(server: Server, collector: Collector) -> None:
    trace = new_trace()
    headers = {"traceparent": f"01-{trace}-{CLIENT}-03-later"}
    server.client.post(f"{server.url}/models/hosted/predict", json={"instances": [[1, 2]]}, headers=headers)
    request, *_ = collector.wait_trace(trace)
    assert request.parent_id == CLIENT


def test_a_tracestate_that_is_malformed_costs_no_span(server: Server, collector: Collector) -> None:
    trace, _ = ask(server, "hosted", tracestate="=,;;,a=b=c," + "x" * 600)
    assert collector.wait_trace(trace)[0].parent_id == CLIENT


def test_log_lines_of_a_request_name_its_trace(server: Server, collector: Collector) -> None:
    for flags in ("00", "01"):
        trace, response = ask(server, "hosted", [["x", "y"]], flags)
        identity = response.headers["x-request-id"]
        line = until(lambda identity=identity: [one for one in server.log() if one.get("request_id") == identity])[-1]
        assert line["trace_id"] == trace
    server.predict("hosted", [["x"]])
    line = [one for one in server.log() if one.get("event") == "request"][-1]
    assert line["status"] == 422
    assert "trace_id" not in line


# --- gRPC ------------------------------------------------------------------------------------------------------------


def test_calls_over_grpc_are_traced_alike(server: Server, collector: Collector) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="no client of the protocol is installed")
    address = next(event["address"] for event in server.log() if event["event"] == "listening_for_grpc")
    tensor = triton.InferInput("input", [1, 2], "FP64")
    tensor.set_data_from_numpy(np.array([[1.0, VALUE]]))
    good, bad = new_trace(), new_trace()
    with triton.InferenceServerClient(address) as client:
        client.infer("hosted", [tensor], headers={"traceparent": f"00-{good}-{CLIENT}-01", "tracestate": "a=1"})
        with pytest.raises(Exception, match="nobody"):
            client.infer("nobody", [tensor], headers={"traceparent": f"00-{bad}-{CLIENT}-01"})
    request, *stages = collector.wait_trace(good)
    call = "inference.GRPCInferenceService/ModelInfer"
    assert (request.name, request.kind, request.parent_id, request.trace_state) == (call, SERVER_KIND, CLIENT, "a=1")
    assert request.attributes["rpc.system"] == "grpc"
    assert request.attributes["rpc.service"] == "inference.GRPCInferenceService"
    assert request.attributes["rpc.method"] == "ModelInfer"
    assert request.attributes["rpc.grpc.status_code"] == 0
    assert request.attributes["serving.rows"] == 1
    assert [stage.name for stage in stages] == ["admission", "host", "answer"]
    assert_tiles(request, stages)
    request, *_ = collector.wait_trace(bad)
    assert (request.attributes["rpc.grpc.status_code"], request.status) == (5, 0)


# --- candidates ------------------------------------------------------------------------------------------------------


def test_a_candidate_has_a_trace_with_its_gates_as_they_were_measured(server: Server, collector: Collector) -> None:
    server.drop("hosted", 2, constant(2))
    server.wait_active("hosted", 2)
    candidate, *parts = collector.wait(
        lambda span: span.name == "candidate" and span.attributes["serving.version"] == "2", "the candidate"
    )
    status = server.version("hosted", 2)
    assert candidate.attributes == {
        "serving.model": "hosted",
        "serving.version": "2",
        "serving.digest": status["digest"],
        "serving.outcome": "ready",
    }
    assert candidate.status == 0
    assert candidate.events == {"activated": {"serving.replaces": "1"}}
    assert {part.parent_id for part in parts} == {candidate.span_id}
    assert all(candidate.begins_at <= part.begins_at <= part.ends_at <= candidate.ends_at for part in parts)
    gates = [part for part in parts if part.name.startswith("gate ")]
    assert [gate.attributes["serving.gate"] for gate in gates] == [gate["gate"] for gate in status["gates"]]
    assert [gate.attributes["serving.verdict"] for gate in gates] == [gate["verdict"] for gate in status["gates"]]
    for span, gate in zip(gates, status["gates"], strict=True):
        assert (span.ends_at - span.begins_at) / 1e9 == pytest.approx(gate["duration_seconds"], abs=1e-6)
    for earlier, later in itertools.pairwise(gates):
        assert later.begins_at >= earlier.ends_at
    assert [part.name for part in parts if part not in gates] == ["staging", "load"]


def test_a_compiled_candidate_shows_its_compiling_and_the_check_of_its_graph(
    server: Server, collector: Collector
) -> None:
    candidate, *parts = collector.wait(
        lambda span: span.name == "candidate" and span.attributes["serving.model"] == "compiled", "the candidate"
    )
    names = [part.name for part in parts]
    assert {"staging", "gate compile", "graph check", "load"} <= set(names)
    assert candidate.events == {"activated": {}}


def test_a_refused_candidate_names_the_gate_and_says_why(server: Server, collector: Collector) -> None:
    aside = server.directory / "broken"
    aside.mkdir()
    (aside / "model.joblib").write_bytes(b"no model")
    (server.store / "broken").mkdir()
    aside.rename(server.store / "broken" / "1")
    server.wait_state("broken", 1, "REJECTED")
    candidate, *parts = collector.wait(
        lambda span: span.name == "candidate" and span.attributes["serving.model"] == "broken", "the candidate"
    )
    (refusal,) = [gate for gate in server.version("broken", 1)["gates"] if gate["verdict"] == "refused"]
    assert candidate.attributes["serving.outcome"] == "refused"
    assert candidate.attributes["error.type"] == refusal["gate"]
    assert (candidate.status, candidate.message) == (ERROR, f"refused: {refusal['gate']}")
    last = parts[-1]
    assert (last.name, last.status) == (f"gate {refusal['gate']}", ERROR)
    assert refusal["evidence"].startswith(last.attributes["serving.evidence"].removesuffix("..."))

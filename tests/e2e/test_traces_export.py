"""What becomes of spans: collectors that fail, stops, the server's own sampler, several processes, applications."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness import Server, constant, linear, serving, until, write_version
from tests.e2e.launch import run
from tests.e2e.span_collector import Collector, collecting

CLIENT = "b7ad6b7169203331"
ROWS = 20


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def dropped_spans(server: Server) -> float:
    text = server.client.get(server.url + "/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return next(one.value for one in samples if one.name == "serving_trace_spans_dropped_total")


def requests_at(collector: Collector) -> list[Any]:
    return [span for span in collector.spans() if span.name.startswith("POST ")]


def test_a_collector_that_fails_is_noticed_by_no_request_and_what_is_lost_is_counted(
    collector: Collector, tmp_path: Path
) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    options = {"SERVING_TRACES__ENDPOINT": collector.endpoint, "SERVING_TRACES__SAMPLE": "1"}
    with serving(tmp_path, wait_ready=True, **options) as server:
        collector.wait(lambda span: span.name == "candidate", "the candidate")
        collector.status = 400  # as of one that does not understand it: no other attempt is made
        assert [server.predict("m").status_code for _ in range(ROWS)] == [200] * ROWS
        lost = 4 * ROWS
        until(lambda: dropped_spans(server) == lost, "all of it lost")
        lines = [line for line in server.log() if line["logger"] == "serving.traces"]
        assert [(line["event"], line["level"]) for line in lines] == [("traces_not_exported", "warning")]
        assert "400" in lines[0]["reason"]
        # slow: it takes a request, and answers when this test is over
        collector.status = 200
        collector.may_answer.clear()
        seen = collector.requests
        server.predict("m")
        until(lambda: collector.requests > seen, "an export under way")
        assert [server.predict("m").status_code for _ in range(ROWS)] == [200] * ROWS
        collector.may_answer.set()
        until(lambda: len(requests_at(collector)) >= ROWS, "the requests meanwhile")
        assert dropped_spans(server) == lost
        # gone: nothing listens there any more
        collector.close()
        assert [server.predict("m").status_code for _ in range(ROWS)] == [200] * ROWS
        until(lambda: dropped_spans(server) >= lost + 4 * ROWS, "more that is lost")
        assert len([line for line in server.log() if line["logger"] == "serving.traces"]) == 1  # not again so soon
        server.predict("m")
        assert server.stop() == 0
    foreign = [line for line in server.log() if line["logger"].startswith(("opentelemetry", "urllib3"))]
    assert foreign == []
    assert b"Traceback" not in server.log_path.read_bytes()


def test_the_sampler_takes_its_share_and_a_stop_sends_what_is_left(collector: Collector, tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "compiled", 1, linear())
    write_version(tmp_path / "store" / "hosted", 1, constant(1))
    options = {"SERVING_TRACES__ENDPOINT": collector.endpoint, "SERVING_TRACES__SAMPLE": "0.25"}
    with serving(tmp_path, wait_ready=True, **options) as server:
        for model in ("compiled", "hosted"):
            for _ in range(400):
                assert server.predict(model).status_code == 200
        quiet = {"traceparent": f"00-{os.urandom(16).hex()}-{CLIENT}-00"}
        for _ in range(50):
            server.client.post(f"{server.url}/models/hosted/predict", json={"instances": [[1, 2]]}, headers=quiet)
        assert server.stop() == 0
    for model in ("compiled", "hosted"):
        taken = [span for span in requests_at(collector) if span.attributes["serving.model"] == model]
        assert 60 <= len(taken) <= 145  # 100 expected; less likely than one in 10 million beyond
        assert {span.parent_id for span in taken} == {""}
        assert len({span.trace_id for span in taken}) == len(taken)
    assert quiet["traceparent"][3:35] not in {span.trace_id for span in collector.spans()}


def test_each_worker_exports_its_requests_and_control_the_candidates(collector: Collector, tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    options = {
        "SERVING_SERVER__WORKERS": "2",
        "SERVING_TRACES__ENDPOINT": collector.endpoint,
        "SERVING_TRACES__SAMPLE": "1",
    }
    with serving(tmp_path, wait_ready=True, **options) as server:
        pids = {one["pid"] for one in server.get("/workers")["workers"]}
        assert len(pids) == 2

        def ask_on_a_new_connection() -> set[int]:
            server.client._transport.close()  # type: ignore[attr-defined]
            assert server.predict("m").status_code == 200
            return {span.resource["process.pid"] for span in requests_at(collector)}

        until(lambda: ask_on_a_new_connection() == pids, "spans of both workers")
        (candidate,) = until(lambda: [span for span in collector.spans() if span.name == "candidate"], "the candidate")
        assert server.process is not None
        assert candidate.resource["process.pid"] == server.process.pid
        assert len({span.resource["service.instance.id"] for span in collector.spans()}) == 3
        assert dropped_spans(server) == 0
        collector.status = 400
        server.predict("m")
        until(lambda: dropped_spans(server) >= 4, "spans that a worker has dropped")
        assert server.stop() == 0
    assert len({span.span_id for span in collector.spans()}) == len(collector.spans())


APPLICATION = """
import time
from fastapi import FastAPI
from fastapi.testclient import TestClient
import serving
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

own = TracerProvider()
trace.set_tracer_provider(own)
with TestClient(serving.create_app()) as client:
    ends_at = time.monotonic() + 60
    while client.get("/health/ready").status_code != 200 and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert client.post("/models/m/predict", json={"instances": [[1, 2]]}).status_code == 200
assert trace.get_tracer_provider() is own
assert own._active_span_processor._span_processors == ()
"""


OWN_ROUTE = """
import sys, time
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
import serving
from opentelemetry.sdk.trace import TracerProvider

tracer = TracerProvider().get_tracer("theirs")
app = FastAPI(lifespan=serving.lifespan())

@app.get("/ask")
async def ask(bad: bool, model: Annotated[serving.Model, Depends(serving.model("m"))]) -> str:
    with tracer.start_as_current_span("theirs") as span:
        context = span.get_span_context()
        try:
            await model.predict([[1, "x"]] if bad else [[1, 2]])
        except Exception as error:
            pass
    return f"{context.trace_id:032x}-{context.span_id:016x}"

with TestClient(app) as client:
    ends_at = time.monotonic() + 60
    while client.get("/ask?bad=0").status_code != 200 and time.monotonic() < ends_at:
        time.sleep(0.05)
    found = client.get("/ask?bad=0").json(), client.get("/ask?bad=1").json()
    sys.stdout.write("\\nTRACES " + " ".join(found) + "\\n")  # at once: other threads write lines, too
"""
WITHOUT = """
import sys, time
from fastapi.testclient import TestClient
import serving

with TestClient(serving.create_app()) as client:
    ends_at = time.monotonic() + 60
    while client.get("/health/ready").status_code != 200 and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert client.post("/models/m/predict", json={"instances": [[1, 2]]}).status_code == 200
    assert "serving_trace" not in client.get("/metrics").text
found = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))]
assert not found, found
assert "serving.telemetry.otlp" not in sys.modules
"""


def run_application(code: str, tmp_path: Path, **options: str) -> subprocess.CompletedProcess[str]:
    write_version(tmp_path / "store" / "m", 1, linear())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SERVING_")}
    own = {"SERVING_STORE__PATH": str(tmp_path / "store"), "SERVING_STATE__PATH": str(tmp_path / "state"), **options}
    program = tmp_path / "application.py"
    program.write_text(textwrap.dedent(code))
    environment = {**clean, "SERVING_STORE__SETTLE_SECONDS": "0.2", **own}
    return run([sys.executable, str(program)], cwd=tmp_path, env=environment)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_application_keeps_its_own_provider(workers: str, collector: Collector, tmp_path: Path) -> None:
    """With several workers it is one process of those, and control is another."""
    options = {"SERVING_TRACES__ENDPOINT": collector.endpoint, "SERVING_TRACES__SAMPLE": "1"}
    done = run_application(APPLICATION, tmp_path, SERVING_SERVER__WORKERS=workers, **options)
    assert done.returncode == 0, done.stderr
    assert [span.name for span in requests_at(collector)] == ["POST /models/{model}/predict"]
    candidate, *_ = collector.wait(lambda span: span.name == "candidate", "the candidate")
    pids = {span.resource["process.pid"] for span in (candidate, *requests_at(collector))}
    assert len(pids) == int(workers)


def test_what_an_application_asks_a_model_is_a_part_of_its_own_trace(collector: Collector, tmp_path: Path) -> None:
    done = run_application(OWN_ROUTE, tmp_path, SERVING_TRACES__ENDPOINT=collector.endpoint)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TRACES"))
    good, bad = (found.split("-") for found in line.split()[1:])
    call, *stages = collector.of_trace(good[0])
    assert (call.name, call.parent_id, call.attributes["serving.rows"], call.status) == ("predict", good[1], 1, 0)
    assert [stage.name for stage in stages] == ["admission", "graph"]
    call, *stages = collector.of_trace(bad[0])
    assert (call.parent_id, call.attributes["serving.problem"], call.message) == (
        bad[1],
        "invalid-input",
        "InvalidInput",
    )


def test_without_an_endpoint_no_span_is_made_and_nothing_that_exports_is_imported(tmp_path: Path) -> None:
    done = run_application(WITHOUT, tmp_path)  # FastAPI itself imports the library's interface, where there is one
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_the_library_a_start_with_an_endpoint_says_what_to_install(workers: str, tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["opentelemetry.sdk"] = None
        from serving.cli.program import run
        sys.argv = ["serving", "serve", "--port", "0"]
        sys.exit(run())
    """
    options = {"SERVING_TRACES__ENDPOINT": "http://127.0.0.1:1/v1/traces", "SERVING_SERVER__WORKERS": workers}
    done = run_application(code, tmp_path, **options)
    assert done.returncode == 2
    assert "traces.endpoint" in done.stderr
    assert "pip install serving[otel]" in done.stderr
    assert "Traceback" not in done.stderr

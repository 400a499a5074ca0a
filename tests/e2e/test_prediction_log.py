"""The log of predictions of real servers: complete, bounded, private, whole after a kill; and asked again."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import peculiar
import psutil
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import serving as product
from tests.commands import run_command
from tests.e2e.harness import NO_TLS, Server, armed, constant, linear, serving, until, write_version
from tests.e2e.test_shared_control import TwoProcesses, running
from tests.e2e.test_workers import wait_all_serving, workers_of
from tests.files import iterate_files, read_files

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
FEATURES = [dict(zip(("x0", "x1", "x2", "x3"), row, strict=True)) for row in ROWS]
TENSOR = {"name": "rows", "shape": [2, 4], "datatype": "FP64", "data": ROWS}
CALLS: dict[str, Any] = {
    "/models/iris/predict": {"instances": ROWS},
    "/models/iris/versions/1/predict": {"instances": ROWS},
    "/v2/models/iris/infer": {"inputs": [TENSOR]},
    "/v1/models/iris:predict": {"instances": ROWS},
}
ALL = {"SERVING_RECORD__SAMPLE": "1", "SERVING_REPLAY__ROWS": "0"}


def list_files(server: Server) -> list[Path]:
    return [path for path in iterate_files(server.state / "records") if path.suffix in (".jsonl", ".parquet")]


def read_lines(server: Server) -> list[dict[str, Any]]:
    """Return all lines, each of which has to be whole; but while the server runs the last one may still be written."""
    files = [content for path, content in read_files(server.state / "records").items() if path.suffix == ".jsonl"]
    assert server.process is not None
    if server.process.poll() is None:
        files = [content[: content.rfind(b"\n") + 1] for content in files]
    return [json.loads(line) for content in files for line in content.splitlines()]


def count(server: Server, name: str) -> int:
    """Return the value of a counter of records."""
    text = server.client.get(server.url + "/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return int(next(one.value for one in samples if one.name == name))


def replay(server: Server, *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command; returns its exit status and what it printed."""
    done = run_command(["replay", *arguments, "--url", server.url], server.directory)
    return done.returncode, done.stdout, done.stderr


def replay_as_program(server: Server, *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "serving", "replay", *arguments, "--url", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=server.directory)
    return done.returncode, done.stdout, done.stderr


def fit_iris(**options: Any) -> LogisticRegression:
    X, y = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=500, **options).fit(X, np.array(["setosa", "versicolor", "virginica"])[y])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    directory = tmp_path_factory.mktemp("log")
    write_version(directory / "store" / "iris", 1, fit_iris())
    write_version(directory / "store" / "m", 1, constant(4))
    with serving(directory, wait_ready=True, SERVING_SERVER__GRPC_PORT="0", **ALL) as running:
        running.wait_active("iris", 1)
        running.wait_active("m", 1)
        yield running
        assert running.stop() == 0
        assert [
            line for line in running.log() if line.get("logger") == "serving.record" and line["level"] == "error"
        ] == []


def find_lines(server: Server, identity: str, number: int) -> list[dict[str, Any]]:
    """Wait for the lines of the request with an id, which are written a moment after its answer."""
    return until(
        lambda: len(found := [one for one in read_lines(server) if one["request_id"] == identity]) == number and found,
        f"{number} lines of {identity}",
    )


@pytest.mark.parametrize("path", CALLS)
def test_every_protocol_over_http_is_recorded(server: Server, path: str) -> None:
    identity = path.replace("/", "-").replace(":", "-")
    server.client.post(server.url + path, json=CALLS[path], headers={"x-request-id": identity}).raise_for_status()
    lines = find_lines(server, identity, 2)
    assert [line["features"] for line in lines] == FEATURES
    assert [line["answer"] for line in lines] == ["setosa", "virginica"]
    assert {(line["model"], line["version"], line["method"], line["rows"]) for line in lines} == {
        ("iris", "1", "predict", 2)
    }
    assert all(0 < line["seconds"] < 60 for line in lines)


def test_grpc_is_recorded(server: Server) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="no client of the protocol is installed")
    address = next(event["address"] for event in server.log() if event["event"] == "listening_for_grpc")
    tensor = triton.InferInput("input", [2, 4], "FP64")
    tensor.set_data_from_numpy(np.array(ROWS))
    outputs = [triton.InferRequestedOutput("predict_proba")]
    with triton.InferenceServerClient(address) as client:
        client.infer("iris", [tensor], outputs=outputs, headers={"x-request-id": "over-grpc"})
    lines = find_lines(server, "over-grpc", 2)
    assert [line["features"] for line in lines] == FEATURES
    assert [line["method"] for line in lines] == ["predict_proba"] * 2
    assert sum(lines[0]["answer"]) == pytest.approx(1.0)


def test_a_hosted_model_and_a_large_request_are_recorded(server: Server) -> None:
    rows = [[float(number), 0.0] for number in range(5000)]
    head = {"x-request-id": "large"}
    server.client.post(f"{server.url}/models/m/predict", json={"instances": rows}, headers=head).raise_for_status()
    lines = find_lines(server, "large", 1000)
    assert [line["features"]["x0"] for line in lines] == [float(number) for number in range(1000)]
    assert {(line["rows"], line["answer"]) for line in lines} == {(5000, 4.0)}


def test_what_was_refused_is_not_recorded(server: Server) -> None:
    head = {"x-request-id": "refused"}
    assert server.client.post(f"{server.url}/models/m/predict", json={"instances": [[1]]}, headers=head).is_error
    server.client.post(f"{server.url}/models/m/predict", json={"instances": [[1, 2]]}, headers={"x-request-id": "next"})
    find_lines(server, "next", 1)
    assert not [line for line in read_lines(server) if line["request_id"] == "refused"]


def test_only_its_user_can_read_the_log(server: Server) -> None:
    server.predict("m", [[1.0, 2.0]])
    until(lambda: list_files(server), "a file")
    assert {stat.S_IMODE(path.stat().st_mode) for path in list_files(server)} == {0o600}
    directories = [path for path in (server.state / "records").rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in [server.state / "records", *directories]} == {0o700}


def test_pandas_reads_the_lines(server: Server) -> None:
    pd = pytest.importorskip("pandas")
    server.client.post(f"{server.url}/models/iris/predict", json={"instances": ROWS}, headers={"x-request-id": "pd"})
    find_lines(server, "pd", 2)
    frames = [pd.read_json(path, lines=True) for path in list_files(server) if "iris" in path.parts]
    frame = pd.concat(frames).query("request_id == 'pd'")
    assert frame["answer"].tolist() == ["setosa", "virginica"]
    assert pd.json_normalize(frame["features"].tolist())["x0"].tolist() == [5.1, 6.7]


def test_a_replay_says_what_is_equal_and_what_differs_and_what_is_refused(server: Server, tmp_path: Path) -> None:
    X, _ = load_iris(return_X_y=True)
    asked = [("iris", X[start : start + 10].tolist()) for start in range(0, 150, 10)]
    asked += [("m", [[float(number), 0.0]]) for number in range(10, 20)]
    for model, rows in asked:
        url, head = f"{server.url}/models/{model}/predict", {"x-request-id": "to-be-replayed"}
        server.client.post(url, json={"instances": rows}, headers=head).raise_for_status()
    find_lines(server, "to-be-replayed", 160)
    records = server.state / "records"
    status, out, err = replay_as_program(server, records, "--model", "iris", "--version", "1")
    assert (status, err) == (0, "")
    assert out.startswith("iris/1 answers all ")
    assert "recorded of another model, m" in out

    server.drop("iris", 2, fit_iris(C=0.01))
    server.wait_active("iris", 2)
    status, out, _ = replay(server, records, "--model", "iris", "--version", "2", "--json")
    found = json.loads(out)
    assert status == 1
    assert found["is_same"] is False
    assert found["equal"] + found["different"] == found["rows"]
    assert sum(change["rows"] for change in found["changed_labels"]) > 0
    assert all(change["from"] != change["to"] for change in found["changed_labels"])
    assert found["seconds"]["p50"] > 0

    server.drop("m", 2, constant(4, peculiar.Picky))
    server.wait_active("m", 2)
    status, out, _ = replay(server, records, "--model", "m", "--version", "2", "--limit", "100000")
    assert status == 1
    assert "m/2 refuses " in out.splitlines()[0]

    status, out, _ = replay(server, records, "--model", "m", "--version", "1", "--limit", "3")
    assert (status, out.splitlines()[0]) == (0, "m/1 answers all 3 rows as recorded, within 1e-05")

    status, out, err = replay(server, records, "--model", "m", "--version", "9")
    assert (status, out) == (1, "")
    assert "version '9' of 'm' is not loaded" in err
    status, _, err = replay(server, tmp_path, "--model", "m", "--version", "1")
    assert status == 1
    assert "has no records" in err


def test_records_with_fields_left_out_are_passed_over_by_a_replay(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    with serving(tmp_path, wait_ready=True, SERVING_RECORD__LEAVE_OUT="x1, predict_proba", **ALL) as server:
        server.wait_active("m", 1)
        server.predict("m", [[1.0, 1234.5]]).raise_for_status()
        (line,) = until(lambda: read_lines(server), "a line")
        assert (line["features"], line["left_out"]) == ({"x0": 1.0}, ["x1"])
        status, out, _ = replay(server, server.state / "records", "--model", "m", "--version", "1")
        assert status == 1
        assert out.splitlines()[0] == "m/1 was asked nothing: there is no record to compare with"
        assert "values were left out: x1" in out
        assert server.stop() == 0
    assert not [path for path in (server.state / "records").rglob("*.jsonl") if b"1234" in path.read_bytes()]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_two_workers_record_into_one_directory_and_a_killed_one_leaves_whole_lines(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    write_version(tmp_path / "store" / "m", 1, linear())
    more = {"SERVING_RECORD__FORMAT": form, "SERVING_SERVER__WORKERS": "2"}
    with serving(tmp_path, wait_ready=True, **ALL, **more) as server:
        server.wait_active("m", 1)
        wait_all_serving(server)
        _ask_from_many(server, 200)
        until(lambda: count(server, "serving_records_total") == 200, "all records")
        assert len({path.name.split("-")[1] for path in list_files(server)}) == 2, "both have answered"
        victim = workers_of(server)[0]
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: not psutil.pid_exists(victim["pid"]), "its end")
        wait_all_serving(server)
        assert count(server, "serving_records_total") == 200, "what a dead worker has written stays counted"
        _ask_from_many(server, 50)
        assert server.stop() == 0
    if form == "jsonl":
        found = [line["features"]["x0"] for line in read_lines(server)]
    else:
        pd = pytest.importorskip("pandas")
        frame = pd.read_parquet(server.state / "records")
        assert {path.suffix for path in list_files(server)} == {".parquet"}, "also what the killed one has left"
        found = frame["features.x0"].tolist()
        assert (frame["answer"] - frame["features.x0"] - 2 * frame["features.x1"]).abs().max() < 1e-6
    assert sorted(found) == sorted([*map(float, range(200)), *map(float, range(50))])


def _ask_from_many(server: Server, requests: int) -> None:
    """Ask over several connections, so that every worker answers."""
    url = f"{server.url}/models/m/predict"

    def ask(first: int) -> None:
        for number in range(first, requests, 10):
            httpx.post(url, json={"instances": [[number, 1.0]]}, verify=NO_TLS, timeout=60).raise_for_status()

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_killed_server_leaves_whole_lines_and_the_next_one_goes_on(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    with serving(tmp_path, wait_ready=True, **ALL) as server:
        server.wait_active("m", 1)
        for number in range(100):
            server.predict("m", [[number, 1.0]] * 50).raise_for_status()
            if number == 50:
                until(lambda: len(read_lines(server)) >= 51 * 50, "the lines so far")
        server.kill()
        (path,) = list_files(server)
        with path.open("ab") as file:
            file.write(b'{"half a line')  # as a kill in the middle of a write leaves it
        server.start(wait_ready=True)
        until(lambda: path.read_bytes().endswith(b"}\n"), "the file being mended")
        assert len(read_lines(server)) >= 51 * 50
        server.predict("m", [[1000, 1.0]]).raise_for_status()
        until(lambda: any(line["features"]["x0"] == 1000 for line in read_lines(server)), "another line")
        assert len(list_files(server)) == 2
        assert server.stop() == 0


def test_a_full_disk_costs_records_and_no_prediction(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    with armed(tmp_path, wait_ready=True, **ALL) as (server, faults):
        server.wait_active("m", 1)
        faults.arm("record-write", "ENOSPC")
        for number in range(50):
            assert server.predict("m", [[number, 1.0]]).status_code == 200
        until(lambda: count(server, "serving_record_dropped_total") == 50, "all records being lost")
        assert count(server, "serving_record_failures_total") >= 1
        assert count(server, "serving_records_total") == 0
        faults.disarm("record-write")
        assert server.predict("m", [[77, 1.0]]).status_code == 200
        until(lambda: count(server, "serving_records_total") == 1, "a record")
        told = [line for line in server.log() if line["event"] == "records_not_written"]
        assert [line["reason"] for line in told] == ["No space left on device"], "once in a while"
        assert [line["features"]["x0"] for line in read_lines(server)] == [77.0]
        assert server.stop() == 0


def test_old_files_make_room(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    sizes = {"SERVING_RECORD__FILE_MB": "0.05", "SERVING_RECORD__KEEP_MB": "0.2", "SERVING_SERVER__WORKERS": "2"}
    with serving(tmp_path, wait_ready=True, **ALL, **sizes) as server:
        server.wait_active("m", 1)
        for number in range(100):
            server.predict("m", [[number, 1.0]] * 100).raise_for_status()
        until(lambda: count(server, "serving_records_total") == 100, "all records")
        assert server.stop() == 0
    kept = sum(path.stat().st_size for path in list_files(server))
    assert 0.05 * (1 << 20) < kept <= 0.2 * (1 << 20)
    lines = read_lines(server)
    assert max(line["features"]["x0"] for line in lines) == 99.0, "the newest ones are kept"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_records_in_the_store_stop_the_start(tmp_path: Path, workers: str) -> None:
    (tmp_path / "store").mkdir()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SERVING_")},
        "SERVING_RECORD__SAMPLE": "0.1",
        "SERVING_RECORD__PATH": "store/records",
        "SERVING_SERVER__WORKERS": workers,
    }
    command = [sys.executable, "-m", "serving", "serve", "--store", "store", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "record.path: 'store/records' and the model store 'store' overlap" in done.stderr
    assert "Traceback" not in done.stderr


ask_for_model = product.model("m")


async def answer_own_way(model: Annotated[product.Model, Depends(ask_for_model)]) -> list[Any]:
    """Be a handler of an application."""
    return await model.predict([[1.0, 2.0]])


def test_an_application_of_somebodys_own_records(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    groups = {"store": {"path": tmp_path / "store"}, "state": {"path": tmp_path / "state"}, "record": {"sample": 1.0}}
    app = FastAPI(lifespan=product.lifespan(product.Settings.model_validate(groups)))
    app.post("/ask")(answer_own_way)
    with TestClient(app) as client:
        until(lambda: client.post("/ask").status_code == 200, "an answer")
    (path,) = (tmp_path / "state" / "records").rglob("*.jsonl")
    (line,) = map(json.loads, path.read_bytes().splitlines())
    assert (line["features"], line["answer"]) == ({"x0": 1.0, "x1": 2.0}, pytest.approx(5.0))


@pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")
def test_the_processes_of_one_application_record_each(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    with running(tmp_path, TwoProcesses, **ALL) as application:
        application.wait_ready()
        application.wait_active("m", 1)
        _ask_from_many(application, 100)
        until(lambda: count(application, "serving_records_total") == 100, "all records")
        assert application.stop() == 0
        assert sorted(line["features"]["x0"] for line in read_lines(application)) == [*map(float, range(100))]

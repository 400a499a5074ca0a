"""CSV, NumPy arrays and Arrow streams against a real server: through swaps, on the short way, and in large."""

from __future__ import annotations

import io
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.record import Record, Reply

ipc = pytest.importorskip("pyarrow.ipc", reason="the extra arrow is not installed")
pa = pytest.importorskip("pyarrow")

CSV, NPY, ARROW = "text/csv", "application/x-npy", "application/vnd.apache.arrow.stream"
SWAPS = 6
BEYOND = 2**53 + 1  # in float64 it is 2**53
X, Y = load_iris(return_X_y=True)


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def stream_of(array: Any) -> bytes:
    return stream_of_columns(**{f"x{place}": column for place, column in enumerate(np.asarray(array).T)})


def stream_of_columns(**columns: Any) -> bytes:
    table = pa.table(columns)
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


BODIES: dict[str, Callable[[Any], bytes]] = {
    CSV: lambda array: "\n".join(",".join(map(repr, row)) for row in np.asarray(array).tolist()).encode(),
    NPY: saved,
    ARROW: stream_of,
}
ANSWERS: dict[str, Callable[[bytes], list[Any]]] = {
    CSV: lambda raw: [float(line) for line in raw.decode().split()[1:]],
    NPY: lambda raw: np.load(io.BytesIO(raw)).tolist(),
    ARROW: lambda raw: ipc.open_stream(raw).read_all().column(0).to_pylist(),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("formats")
    names = np.array(["setosa", "versicolor", "virginica"])
    write_version(directory / "store" / "iris", 1, LogisticRegression(max_iter=1000).fit(X, names[Y]))
    write_version(directory / "store" / "m", 1, constant(1))
    ids = pd.DataFrame({"id": [2**53, BEYOND] * 50})
    encoded = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    write_version(directory / "store" / "ids", 1, encoded.fit(ids, [0, 1] * 50))
    flags = pd.DataFrame({"size": np.arange(60.0), "flag": np.arange(60) % 3 == 0})
    write_version(directory / "store" / "flags", 1, DecisionTreeClassifier().fit(flags, flags.flag))
    with serving(directory, wait_ready=True) as server:
        yield server


@contextmanager
def asking(server: Server, media_type: str, record: Record) -> Iterator[None]:
    """Ask the model `m` in one format, one request after another, from a thread of its own."""
    body = BODIES[media_type](np.zeros((2, 2)))
    headers = {"content-type": media_type, "accept": media_type}
    is_over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not is_over.is_set():
                sent_at = time.perf_counter()
                response = client.post(server.url + "/models/m/predict", content=body, headers=headers)
                seconds = time.perf_counter() - sent_at
                version, value = response.headers.get("x-model-version", ""), None
                error = "" if response.status_code == 200 else response.text
                if not error:
                    value, *others = ANSWERS[media_type](response.content)
                    error = "" if others == [value] else f"{others} beside {value}"
                record.add(Reply(0, sent_at, seconds, response.status_code, version, value, error, media_type, "m"))

    thread = threading.Thread(target=ask, name=media_type)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(60)


def test_nobody_who_asks_in_a_format_notices_a_swap(server: Server) -> None:
    """Invariant 1, for every format at once: no failure, each answer is its version's own, versions only go up."""
    record = Record()
    with asking(server, CSV, record), asking(server, NPY, record), asking(server, ARROW, record):
        for version in range(2, 2 + SWAPS):
            server.drop("m", version, constant(version))
            until(lambda version=version: record.last_versions() == {str(version)}, f"answers of version {version}")
    record.verify()
    last = {reply.client: reply.version for reply in record.replies}
    assert last == dict.fromkeys(BODIES, str(1 + SWAPS))


@pytest.mark.parametrize("media_type", BODIES)
@pytest.mark.parametrize("rows", [1, 150, 9000])
def test_every_format_gives_what_json_gives(server: Server, media_type: str, rows: int) -> None:
    asked = np.resize(X, (rows, 4))
    url = server.url + "/models/iris/predict"
    expected = server.client.post(url, json={"instances": asked.tolist(), "method": "predict_proba"}).json()
    headers = {"content-type": media_type, "accept": NPY}
    found = server.client.post(f"{url}?method=predict_proba", content=BODIES[media_type](asked), headers=headers)
    assert found.status_code == 200, found.text
    np.testing.assert_allclose(np.load(io.BytesIO(found.content)), expected["predictions"], rtol=1e-9)
    assert found.headers["x-model-version"] == expected["version"]


def test_labels_that_are_text_come_in_every_format(server: Server) -> None:
    url = server.url + "/models/iris/predict"
    for accept, read in ((NPY, ANSWERS[NPY]), (ARROW, ANSWERS[ARROW]), (CSV, lambda raw: raw.decode().split()[1:])):
        found = server.client.post(url, content=saved(X[[0, 50, 100]]), headers={"content-type": NPY, "accept": accept})
        assert read(found.content) == ["setosa", "versicolor", "virginica"]
    header = server.client.post(
        url + "?method=predict_proba", content=saved(X[:1]), headers={"content-type": NPY, "accept": CSV}
    )
    assert header.text.splitlines()[0] == "setosa,versicolor,virginica"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nobody else is told to")
def test_large_bodies_use_the_memory_of_those_before(server: Server) -> None:
    """Having it from the system again, page by page, would take longer than anything else that is done with them."""
    rows = np.resize(X, (10_000, 30))
    server.drop("wide", 1, LogisticRegression(max_iter=1000).fit(rows[:300], np.arange(300) % 2))
    server.wait_active("wide", 1)
    assert server.process is not None
    stat = Path(f"/proc/{server.process.pid}/stat")

    def page_faults() -> int:
        return int(stat.read_text().rpartition(") ")[2].split()[7])

    def ask(times: int) -> None:
        for _ in range(times):
            answer = server.client.post(
                f"{server.url}/models/wide/predict", content=body, headers={"content-type": NPY}
            )
            assert answer.status_code == 200

    def faults_of_each() -> float:
        before = page_faults()
        ask(20)
        return (page_faults() - before) / 20

    body = saved(rows)
    # a thread that takes such a body for the first time has no memory of one before, and there are a few of them
    until(lambda: faults_of_each() < 100, "fewer than the 586 pages that the body alone has")


INTEGERS: dict[str, tuple[str, str, bytes | dict[str, Any]]] = {
    "objects": ("/models/ids/predict", "application/json", {"instances": [{"id": BEYOND}]}),
    "arrays": ("/models/ids/predict", "application/json", {"instances": [[BEYOND]]}),
    "one": ("/models/ids/predict", "application/json", {"input": [BEYOND]}),
    "csv": ("/models/ids/predict", CSV, f"id\n{BEYOND}\n".encode()),
    "npy": ("/models/ids/predict", NPY, saved(np.array([[BEYOND]]))),
    "arrow": ("/models/ids/predict", ARROW, stream_of(np.array([[BEYOND]])).replace(b"x0", b"id")),
    "mlflow records": ("/models/ids/invocations", "application/json", {"dataframe_records": [{"id": BEYOND}]}),
    "mlflow split": (
        "/models/ids/invocations",
        "application/json",
        {"dataframe_split": {"columns": ["id"], "data": [[BEYOND]]}},
    ),
    "mlflow inputs": ("/models/ids/invocations", "application/json", {"inputs": {"id": [BEYOND]}}),
    "mlflow csv": ("/models/ids/invocations", CSV, f"id\n{BEYOND}\n".encode()),
    "tensorflow": ("/v1/models/ids:predict", "application/json", {"instances": [BEYOND]}),
    "tensorflow columns": ("/v1/models/ids:predict", "application/json", {"inputs": {"id": [BEYOND]}}),
    "open inference": (
        "/v2/models/ids/infer",
        "application/json",
        {"inputs": [{"name": "id", "shape": [1, 1], "datatype": "INT64", "data": [BEYOND]}]},
    ),
}


def answered(server: Server, path: str, media_type: str, body: bytes | dict[str, Any]) -> Any:
    """Return what one row is answered with, in whatever protocol."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    found = server.client.post(server.url + path, content=content, headers={"content-type": media_type})
    assert found.status_code == 200, found.text
    answer = found.json()
    given = answer["outputs"] if "outputs" in answer else answer.get("predictions", answer.get("prediction"))
    return given[0]["data"] if isinstance(given, list) and isinstance(given[0], dict) else given


@pytest.mark.parametrize("form", INTEGERS)
def test_integers_that_floats_would_round_reach_the_model_whole(server: Server, form: str) -> None:
    assert answered(server, *INTEGERS[form]) in (1, [1])


FLAGS: dict[str, tuple[str, str, bytes | dict[str, Any]]] = {
    "true": ("/models/flags/predict", "application/json", {"instances": [{"size": 1, "flag": True}]}),
    "one": ("/models/flags/predict", "application/json", {"instances": [[1, 1]]}),
    "float": ("/models/flags/predict", "application/json", {"instances": [[1, 1.0]]}),
    "csv": ("/models/flags/predict", CSV, b"size,flag\n1,True\n"),
    "csv one": ("/models/flags/predict", CSV, b"size,flag\n1,1\n"),
    "npy": ("/models/flags/predict", NPY, saved(np.array([(1.0, True)], dtype=[("size", "f8"), ("flag", "?")]))),
    "arrow": ("/models/flags/predict", ARROW, stream_of_columns(size=[1.0], flag=[True])),
    "mlflow": (
        "/models/flags/invocations",
        "application/json",
        {"dataframe_split": {"columns": ["flag", "size"], "data": [[True, 1]]}},
    ),
    "tensorflow": ("/v1/models/flags:predict", "application/json", {"instances": [{"size": 1, "flag": True}]}),
    "open inference": (
        "/v2/models/flags/infer",
        "application/json",
        {
            "inputs": [
                {"name": "size", "shape": [1], "datatype": "INT32", "data": [1]},
                {"name": "flag", "shape": [1], "datatype": "BOOL", "data": [True]},
            ]
        },
    ),
}


@pytest.mark.parametrize("form", FLAGS)
def test_bools_of_a_table_are_taken_in_every_form(server: Server, form: str) -> None:
    assert answered(server, *FLAGS[form]) in (True, [True])


def test_a_large_body_of_large_integers_is_read_whole(server: Server) -> None:
    rows = [[BEYOND], [2**53]] * 20_000
    found = server.client.post(server.url + "/models/ids/predict", json={"instances": rows})
    assert found.json()["predictions"] == [1, 0] * 20_000


def test_integers_that_cannot_be_whole_are_refused_by_name(server: Server) -> None:
    mixed = server.client.post(server.url + "/models/ids/predict", json={"instances": [[0.5], [BEYOND]]})
    assert mixed.status_code == 422
    assert f"row 1, feature 'id': the number {BEYOND} would be rounded" in mixed.json()["detail"]
    tensor = {"name": "id", "shape": [1, 1], "datatype": "FP64", "data": [BEYOND]}
    typed = server.client.post(server.url + "/v2/models/ids/infer", json={"inputs": [tensor]})
    assert typed.status_code == 400
    assert f"FP64 would round the number {BEYOND}" in typed.text
    compiled = server.client.post(server.url + "/models/iris/predict", json={"instances": [[1, 1, 1, BEYOND]]})
    assert compiled.status_code == 422
    assert f"feature 'x3': {BEYOND} would be rounded" in compiled.json()["detail"]

"""Bodies within every limit that would become a hundred times as large: refused by their structure, in every protocol.

Each took between a quarter of a second and half a minute, up to 2.6 GB, or held the event loop for seconds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import Server, serving, write_version

WIDTH = 30
MEGABYTES = [4, pytest.param(16, marks=pytest.mark.soak)]  # of a body; the second is the most that is taken
MOST_MB = 12.5  # of memory for each, beyond what there was before; an array of places in the body is most of it
NATIVE, OPEN, TENSORFLOW, MLFLOW = (
    f"/{path}" for path in ("models/m/predict", "v2/models/m/infer", "v1/models/m:predict", "models/m/invocations")
)
CSV, NPY, JSON = "text/csv", "application/x-npy", "application/json"


def fill(size: int, start: str, unit: str, end: str) -> bytes:
    """Repeat a unit, which ends in a comma, as often as there is room for, but for the last comma."""
    count = (size - len(start) - len(end)) // len(unit)
    return start.encode() + (unit * count)[:-1].encode() + end.encode()


def tensor(size: int, shape: str, datatype: str, unit: str) -> bytes:
    start = f'{{"inputs": [{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data": ['
    return fill(size, start, unit, "]}]}")


def array(shape: tuple[int, ...], dtype: str, values: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


HEADER = ",".join(["1"] * WIDTH) + "\n"
BOMBS = {
    "a CSV line": (NATIVE, CSV, lambda size: fill(size, "", "1,", "\n")),
    "a second CSV line": (NATIVE, CSV, lambda size: fill(size, HEADER, "1,", "\n")),
    "a CSV line of names": (NATIVE, CSV, lambda size: fill(size, "", "ab,", "\n")),
    "a CSV line of empty quotes": (NATIVE, CSV, lambda size: fill(size, "", '"",', "\n")),
    "a CSV row of many lines": (NATIVE, CSV, lambda size: fill(size, "", '"\n",', "\n")),
    "a quote in the middle of a CSV cell": (NATIVE, CSV, lambda size: fill(size, 'x",', "1,", '"\n')),
    "quotes as CSV": (NATIVE, CSV, lambda size: b'"' * size),
    "one CSV cell": (NATIVE, CSV, lambda size: b"1" * size),
    "empty CSV lines": (NATIVE, CSV, lambda size: b"\n" * size),
    "short CSV lines": (NATIVE, CSV, lambda size: b"1\n" * (size // 2)),
    "a CSV line for MLflow": (MLFLOW, CSV, lambda size: fill(size, "", "a,", "\n")),
    "a wide array": (NATIVE, NPY, lambda size: array((1, size), "|u1", bytes(size))),
    "a wide array of text": (NATIVE, NPY, lambda size: array((1, size // 4), "<U1", b"a\0\0\0" * (size // 4))),
    "a row": (NATIVE, JSON, lambda size: fill(size, '{"instances": [[', "1,", "]]}")),
    "one row as input": (NATIVE, JSON, lambda size: fill(size, '{"input": [', "1,", "]}")),
    "a second row": (NATIVE, JSON, lambda size: fill(size, f'{{"instances": [{[1] * WIDTH}, [', "1,", "]]}")),
    "a row of texts": (NATIVE, JSON, lambda size: fill(size, '{"instances": [[', '"",', "]]}")),
    "a row of objects": (NATIVE, JSON, lambda size: fill(size, '{"instances": [[', "{},", "]]}")),
    "a row of one name": (NATIVE, JSON, lambda size: fill(size, '{"instances": [{', '"a":1,', "}]}")),
    "a row of NaN": (NATIVE, JSON, lambda size: fill(size, '{"instances": [[', "NaN,", "]]}")),
    "arrays without an object": (NATIVE, JSON, lambda size: fill(size, "[", "[],", "]")),
    "arrays beside an array": (NATIVE, JSON, lambda size: fill(size, '{"x": [[1]], "instances": [', "[],", "]}")),
    "a body of names": (NATIVE, JSON, lambda size: fill(size, "{", '"a":1,', "}")),
    "a row that is cut off": (NATIVE, JSON, lambda size: fill(size, '{"instances": [[', "1,", "")),
    "empty rows": (NATIVE, JSON, lambda size: fill(size, '{"instances": [', "[],", "]}")),
    "data of arrays": (OPEN, JSON, lambda size: tensor(size, "[1, 30]", "FP64", "[],")),
    "data of short rows": (OPEN, JSON, lambda size: tensor(size, "[100000, 30]", "FP64", "[1],")),
    "data of numbers": (OPEN, JSON, lambda size: tensor(size, "[1, 30]", "FP64", "1,")),
    "data of integers": (OPEN, JSON, lambda size: tensor(size, "[266666, 30]", "INT64", "1,")),
    "data of texts": (OPEN, JSON, lambda size: tensor(size, "[1, 30]", "BYTES", '"",')),
    "many inputs": (OPEN, JSON, lambda size: fill(size, '{"inputs": [', '{"name": "a"},', "]}")),
    "many outputs": (OPEN, JSON, lambda size: fill(size, '{"inputs": [], "outputs": [', '{"name": "a"},', "]}")),
    "a long shape": (OPEN, JSON, lambda size: fill(size, '{"inputs": [{"name": "x", "shape": [', "1,", "]}]}")),
    "parameters": (OPEN, JSON, lambda size: fill(size, '{"inputs": [], "parameters": {"a": [', "[],", "]}}")),
    "arrays instead of inputs": (OPEN, JSON, lambda size: fill(size, "[", "[],", "]")),
    "instances": (TENSORFLOW, JSON, lambda size: fill(size, '{"instances": [[', "1,", "]]}")),
    "a column": (TENSORFLOW, JSON, lambda size: fill(size, '{"inputs": {"x0": [', "1,", "]}}")),
    "long columns": (TENSORFLOW, JSON, lambda size: fill(size, '{"inputs": {', '"a":[' + "1," * 129 + "1],", "}}")),
    "columns": (TENSORFLOW, JSON, lambda size: fill(size, '{"inputs": {', '"a":[1],', "}}")),
    "base64": (TENSORFLOW, JSON, lambda size: fill(size, '{"instances": [', '{"b64":""},', "]}")),
    "split": (MLFLOW, JSON, lambda size: fill(size, '{"dataframe_split": {"columns": ["x0"], "data": [', "[],", "]}}")),
    "a split row": (MLFLOW, JSON, lambda size: fill(size, '{"dataframe_split": {"data": [[', "1,", "]]}}")),
    "names of columns": (
        MLFLOW,
        JSON,
        lambda size: fill(size, '{"dataframe_split": {"data": [[1]], "columns": [', '"a",', "]}}"),
    ),
    "an index": (MLFLOW, JSON, lambda size: fill(size, '{"dataframe_split": {"data": [[1]], "index": [', "[],", "]}}")),
    "records": (MLFLOW, JSON, lambda size: fill(size, '{"dataframe_records": [', "{},", "]}")),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("bombs")
    rows = np.eye(WIDTH)
    write_version(directory / "store" / "m", 1, LinearRegression().fit(rows, np.arange(WIDTH)))
    with serving(directory, wait_ready=True) as found:
        warm = json.dumps({"instances": rows.tolist() * 1000})
        assert found.client.post(found.url + NATIVE, content=warm).status_code == 200
        yield found


def reset_peak(server: Server) -> float:
    """Begin to measure the largest memory anew and return the present one, in MB."""
    assert server.process is not None
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return psutil.Process(server.process.pid).memory_info().rss / (1 << 20)


def peak_mb(server: Server) -> float:
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@pytest.mark.parametrize("megabytes", MEGABYTES)
@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_is_refused_before_it_is_large(server: Server, name: str, megabytes: int) -> None:
    path, kind, make = BOMBS[name]
    body = make(megabytes * (1 << 20) - 500)
    before = reset_peak(server)
    response = server.client.post(server.url + path, content=body, headers={"Content-Type": kind})
    assert response.status_code in (400, 413, 422), response.text[:200]
    assert peak_mb(server) - before < MOST_MB * megabytes
    document = response.json()
    assert len(document.get("detail") or document.get("error") or document.get("message")) < 300


LARGE = 4_000  # with so many cells a body has more values than are parsed in one go
MANY = 1_200  # lines of CSV, in more than one piece
ROWS = [[index / 7 + place for place in range(WIDTH)] for index in range(LARGE)]
NAMES = [f"x{place}" for place in range(WIDTH)]
COLUMNS = {name: [row[place] for row in ROWS] for place, name in enumerate(NAMES)}
NESTED = {"name": "x", "shape": [LARGE, WIDTH], "datatype": "FP64", "data": ROWS}
BY_COLUMN = [{"name": name, "shape": [LARGE, 1], "datatype": "FP64", "data": COLUMNS[name]} for name in NAMES]
BY_NAME = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
SOUND = {
    "instances": (NATIVE, {"instances": ROWS}, "predictions"),
    "instances by name": (NATIVE, {"instances": BY_NAME}, "predictions"),
    "instances and a method": (NATIVE, {"method": "predict", "instances": ROWS}, "predictions"),
    "rows for TensorFlow": (TENSORFLOW, {"instances": ROWS}, "predictions"),
    "columns for TensorFlow": (TENSORFLOW, {"inputs": COLUMNS}, "outputs"),
    "columns for MLflow": (MLFLOW, {"inputs": COLUMNS}, "predictions"),
    "split": (MLFLOW, {"dataframe_split": {"columns": NAMES, "data": ROWS}}, "predictions"),
    "split with an index": (
        MLFLOW,
        {"dataframe_split": {"index": list(range(LARGE)), "columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}},
        "predictions",
    ),
    "records": (MLFLOW, {"dataframe_records": BY_NAME}, "predictions"),
    "a nested tensor": (OPEN, {"inputs": [NESTED]}, "outputs"),
    "a flat tensor": (OPEN, {"inputs": [{**NESTED, "data": [cell for row in ROWS for cell in row]}]}, "outputs"),
    "tensors by column": (OPEN, {"inputs": BY_COLUMN}, "outputs"),
}


@pytest.mark.parametrize("name", list(SOUND))
def test_large_bodies_that_are_sound_are_answered(server: Server, name: str) -> None:
    path, body, key = SOUND[name]
    one = server.client.post(server.url + NATIVE, json={"instances": ROWS[:3]}).json()["predictions"]
    response: httpx.Response = server.client.post(server.url + path, json=body)
    assert response.status_code == 200, response.text[:300]
    found = response.json()[key]
    values = found[0]["data"] if path == OPEN else found
    assert len(values) == LARGE
    assert values[:3] == pytest.approx(one)


def test_large_csv_is_answered_like_small_csv(server: Server) -> None:
    line = ",".join(map(repr, ROWS[1]))
    for text in (f"{line}\n", f"{line}\r\n", f'"1.5",{line.partition(",")[2]}\n', f"{line}\r"):
        for head in ("", ",".join(NAMES) + text[len(text.rstrip()) :], "\ufeff"):
            few, many = (
                server.client.post(
                    server.url + NATIVE, content=(head + text * count).encode(), headers={"Content-Type": CSV}
                )
                for count in (1, MANY)
            )
            assert (few.status_code, many.status_code) == (200, 200), (text[-3:], head, few.text, many.text[:300])
            assert many.json()["predictions"] == pytest.approx(few.json()["predictions"] * MANY)

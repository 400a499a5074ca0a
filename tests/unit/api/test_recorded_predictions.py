"""Every way in is recorded: each protocol, the short way and the long one, and applications. Refusals are not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.api.services import services_of
from serving.domain.errors import InvalidInput
from serving.domain.signature import Method
from serving.recording import recorder
from serving.rows.batch import Batch, Prediction
from tests.fakes import MIXED, FakeEngine, echo, make_app, make_reference, make_servable
from tests.unit.api.test_shortcut import Immediate

ROW = [5.1, 3.5, 1.4, 0.2]
FEATURES = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}
TENSOR = {"name": "rows", "shape": [1, 4], "datatype": "FP64", "data": [ROW]}
CALLS: dict[str, Any] = {
    "/models/iris/predict": {"instances": [ROW]},
    "/models/iris/versions/3/predict": {"input": ROW},
    "/v2/models/iris/infer": {"inputs": [TENSOR]},
    "/v1/models/iris:predict": {"instances": [ROW]},
    "/invocations": {"inputs": [ROW]},
}


@pytest.fixture(autouse=True)
def _patient_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all that waits written, however slow the machine is."""
    monkeypatch.setattr(recorder, "STOP_SECONDS", 60.0)


class Recorded:
    """An application that records all predictions, and what it has recorded."""

    def __init__(self, directory: Path, engine: FakeEngine, **record: Any) -> None:
        self.directory = directory / "records"
        servables = {
            "iris": make_servable("iris", "3", engine),
            "mixed": make_servable("mixed", "1", FakeEngine(echo), MIXED),
        }
        settings = {"sample": 1.0, "path": self.directory, **record}
        self.app: FastAPI = make_app(make_reference(**servables), record=settings, server={"default_model": "iris"})
        self.client = TestClient(self.app)
        self.services = services_of(self.app)
        assert self.services.recorder is not None
        self.services.recorder.start()

    def read(self) -> list[dict[str, Any]]:
        """Stop recording and return all lines, in the order of their times."""
        assert self.services.recorder is not None
        self.services.recorder.stop()
        lines = [line for path in self.directory.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
        return sorted(map(orjson.loads, lines), key=lambda one: str(one["time"]))


@pytest.fixture(params=[FakeEngine, Immediate])
def recorded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Recorded]:
    made = Recorded(tmp_path, request.param())
    yield made
    made.read()


@pytest.mark.parametrize("path", CALLS)
def test_a_prediction_is_recorded_with_its_id_whatever_the_protocol(recorded: Recorded, path: str) -> None:
    answer = recorded.client.post(path, json=CALLS[path], headers={"x-request-id": "mine"})
    assert answer.status_code == 200, answer.text
    (line,) = recorded.read()
    assert (line["request_id"], line["model"], line["version"], line["method"]) == ("mine", "iris", "3", "predict")
    assert (line["features"], line["answer"]) == (FEATURES, 0)
    assert line["seconds"] >= 0


def test_the_short_way_is_still_taken_and_recorded(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, Immediate())
    raw = orjson.dumps({"instances": [ROW]})
    head = {b"content-type": b"application/json"}
    found = recorded.services.shortcut.respond("/models/iris/predict", head, raw)
    assert found is not None
    given = next(line for line in found[0].split(b"\r\n") if line.startswith(b"x-request-id")).split()[1].decode()
    (line,) = recorded.read()
    assert line["request_id"] == given, "the id that the client was given"
    assert line["features"] == FEATURES
    assert line["seconds"] >= 0


def test_csv_and_numpy_and_tensors_in_bytes_are_recorded_as_rows(recorded: Recorded) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([ROW]))
    recorded.client.post(
        "/models/iris/predict", content=buffer.getvalue(), headers={"content-type": "application/x-npy"}
    ).raise_for_status()
    text = "age,town,is_new\n,Bern,true\n"
    recorded.client.post("/models/mixed/predict", content=text, headers={"content-type": "text/csv"}).raise_for_status()
    tensor = {**TENSOR, "parameters": {"binary_data_size": 32}}
    del tensor["data"]
    document = orjson.dumps({"inputs": [tensor]})
    recorded.client.post(
        "/v2/models/iris/infer",
        content=document + np.array(ROW).tobytes(),
        headers={"inference-header-content-length": str(len(document))},
    ).raise_for_status()
    assert [line["features"] for line in recorded.read()] == [
        FEATURES,
        {"age": None, "town": "Bern", "is_new": True},
        FEATURES,
    ]


def test_several_methods_are_recorded_each(recorded: Recorded) -> None:
    outputs = [{"name": "predict"}, {"name": "predict_proba"}]
    recorded.client.post("/v2/models/iris/infer", json={"inputs": [TENSOR], "outputs": outputs}).raise_for_status()
    lines = sorted(recorded.read(), key=lambda one: str(one["method"]))
    assert [(line["method"], line["answer"]) for line in lines] == [
        ("predict", 0),
        ("predict_proba", pytest.approx([0.98, 0.01, 0.01])),
    ]


def test_what_was_refused_is_not_recorded(recorded: Recorded) -> None:
    assert recorded.client.post("/models/iris/predict", json={"instances": [[1.0]]}).status_code == 422
    assert recorded.client.post("/models/none/predict", json={"instances": [ROW]}).status_code == 404
    assert recorded.client.post("/models/iris/predict", content=b"{").status_code == 400
    assert recorded.read() == []


def test_an_application_is_recorded_and_its_refusals_are_not(recorded: Recorded) -> None:
    servable = recorded.app.state.active.models["iris"].active
    predictor = recorded.services.predictor
    asyncio.run(predictor.answer_held(servable, [ROW, ROW], "predict_proba"))
    with pytest.raises(InvalidInput):
        asyncio.run(predictor.answer_held(servable, [[1.0]], None))
    lines = recorded.read()
    assert [(line["row"], line["rows"], line["method"], line["request_id"]) for line in lines] == [
        (0, 2, "predict_proba", None),
        (1, 2, "predict_proba", None),
    ]
    assert lines[0]["features"] == FEATURES


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("engine", [FakeEngine, Immediate])
def test_what_is_left_out_is_left_out_of_every_protocol(tmp_path: Path, engine: type[FakeEngine], path: str) -> None:
    recorded = Recorded(tmp_path, engine(), leave_out=["x0", "predict"])
    recorded.client.post(path, json=CALLS[path]).raise_for_status()
    (line,) = recorded.read()
    assert line["left_out"] == ["predict", "x0"]
    assert line["features"] == {"x1": 3.5, "x2": 1.4, "x3": 0.2}
    assert "answer" not in line
    written = b"".join(file.read_bytes() for file in recorded.directory.rglob("*.jsonl"))
    assert not re.search(rb"[:,\[]5\.1\b", written), "as a value; a time may have these digits"


def test_a_buffer_that_an_engine_uses_again_does_not_change_what_is_recorded(tmp_path: Path) -> None:
    class Reusing(FakeEngine):
        buffer = np.zeros(10)

        async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
            self.buffer[:] += 1
            return Prediction((self.buffer[: batch.rows],))

    recorded = Recorded(tmp_path, Reusing())
    for _ in range(20):
        recorded.client.post("/models/iris/predict", json={"instances": [ROW]}).raise_for_status()
    assert [line["answer"] for line in recorded.read()] == list(range(1, 21))

"""Which predictions are recorded is chance alone, and where they may go is decided at the start."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import structlog

from serving.plane.prediction import Answer
from serving.recording import recorder as recorder_module
from serving.recording.answered_request import AnsweredRequest
from serving.recording.record_upkeep import RecordUpkeep
from serving.recording.record_writer import RecordWriter
from serving.recording.recorder import Recorder, find_record_directory, keep_recording, make_recorder
from serving.rows.batch import Batch, Prediction
from serving.settings import Settings, SettingsError
from serving.telemetry.metrics import Metrics
from tests.fakes import NUMBERS
from tests.unit.recording.test_record_files import list_files

ANSWER = Answer(
    "iris", "3", "predict", 1, Prediction((np.zeros(1),)), False, (), Batch(1, matrix=np.arange(4.0).reshape(1, 4))
)


class Offered:
    """Takes the place of the writer."""

    def __init__(self) -> None:
        self.requests: list[AnsweredRequest] = []
        self.dropped = 0

    def offer(self, request: AnsweredRequest) -> None:
        self.requests.append(request)

    def count_dropped(self) -> None:
        self.dropped += 1


def make(sample: float, seed: int = 1) -> tuple[Recorder, Offered]:
    offered = Offered()
    made = Recorder(sample, cast("RecordWriter", offered), cast("RecordUpkeep", None), lambda *_: NUMBERS, Random(seed))
    return made, offered


def test_all_are_recorded_when_all_should_be() -> None:
    recorder, offered = make(1.0)
    for number in range(100):
        recorder.note(ANSWER, f"id-{number}", 0.5, 10)
    assert [one.request_id for one in offered.requests] == [f"id-{number}" for number in range(100)]


@pytest.mark.parametrize("sample", [0.5, 0.01])
def test_each_is_chosen_with_the_same_chance_whatever_came_before(sample: float) -> None:
    recorder, offered = make(sample)
    asked = int(2000 / sample)
    for number in range(asked):
        recorder.note(ANSWER, str(number), 0.5, 10)
    chosen = np.array([int(str(one.request_id)) for one in offered.requests])
    assert abs(len(chosen) - 2000) < 4 * np.sqrt(2000)
    first, second = np.histogram(chosen, 2, (0, asked))[0]
    assert abs(first - second) < 4 * np.sqrt(2000)
    follows = np.count_nonzero(np.diff(chosen) == 1) / len(chosen)
    assert abs(follows - sample) < 4 * np.sqrt(sample / 2000), "the one after a chosen one is as likely as any"


def test_a_chance_that_is_tiny_is_possible() -> None:
    recorder, offered = make(1e-12)
    recorder.note(ANSWER, "a", 0.5, 10)
    assert not offered.requests


def test_the_signature_is_looked_up_only_for_what_is_chosen() -> None:
    looked: list[str] = []

    def look(model: str, version: str) -> Any:
        looked.append(f"{model}/{version}")
        return NUMBERS

    offered = Offered()
    recorder = Recorder(0.25, cast("RecordWriter", offered), cast("RecordUpkeep", None), look, Random(1))
    for _ in range(100):
        recorder.note(ANSWER, "a", 0.5, 10)
    assert looked == ["iris/3"] * len(offered.requests)
    assert 0 < len(looked) < 100
    recorder.note(ANSWER, "a", 0.5, 10, NUMBERS)


def test_what_cannot_be_copied_fails_no_prediction() -> None:
    recorder, offered = make(1.0)
    with structlog.testing.capture_logs() as logs:
        recorder.note(ANSWER._replace(batch=Batch(1, columns=cast("Any", (5,)))), "a", 0.5, 10)
    assert (offered.requests, offered.dropped) == ([], 1)
    assert [(line["event"], line["reason"]) for line in logs] == [("record_not_copied", "TypeError")]


def settings(tmp_path: Path, **record: Any) -> Settings:
    paths = {"store": {"path": tmp_path / "store"}, "state": {"path": tmp_path / "state"}}
    return Settings.model_validate({**paths, "record": {"sample": 0.5, **record}})


def test_nothing_is_made_when_nothing_is_to_be_recorded(tmp_path: Path) -> None:
    off = settings(tmp_path, sample=0, path=tmp_path / "store")
    assert find_record_directory(off) is None
    metrics = Metrics("0")
    assert make_recorder(off, metrics, lambda *_: NUMBERS) is None
    assert b"serving_record" not in metrics.render(())[0]


def test_records_are_in_the_state_or_where_they_should_be(tmp_path: Path) -> None:
    assert find_record_directory(settings(tmp_path)) == tmp_path / "state" / "records"
    assert find_record_directory(settings(tmp_path, path=tmp_path / "own")) == tmp_path / "own"


@pytest.mark.parametrize("place", ["store", "store/records", "store/../store/m", "link/records", "."])
def test_records_are_never_in_the_model_store(tmp_path: Path, place: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with pytest.raises(SettingsError, match=r"record\.path.*overlap"):
        find_record_directory(settings(tmp_path, path=tmp_path / place))


def test_parquet_without_pyarrow_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(recorder_module, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(SettingsError, match=r"record\.format.*extra arrow"):
        find_record_directory(settings(tmp_path, format="parquet"))
    find_record_directory(settings(tmp_path))


def test_what_waits_at_the_end_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "STOP_SECONDS", 60.0)
    metrics = Metrics("0")

    async def record() -> None:
        made = make_recorder(settings(tmp_path, sample=1), metrics, lambda *_: NUMBERS)
        async with keep_recording(made):
            assert made is not None
            for _ in range(50):
                made.note(ANSWER, "a", 0.5, 10)

    asyncio.run(record())
    (file,) = [path for path in list_files(tmp_path) if path.suffix == ".jsonl"]
    assert len(file.read_bytes().splitlines()) == 50
    text = metrics.render(())[0].decode()
    assert "serving_records_total 50.0" in text
    assert "serving_record_dropped_total 0.0" in text
    assert "serving_record_failures_total 0.0" in text


def test_without_a_recorder_there_is_nothing_to_start_or_end() -> None:
    async def run() -> None:
        async with keep_recording(None):
            pass

    asyncio.run(run())

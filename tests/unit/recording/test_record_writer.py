"""The queue of records is bounded, and nothing that goes wrong behind it concerns who offers."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog

from serving.domain.signature import Method
from serving.failpoints import arm
from serving.recording import record_writer
from serving.recording.answered_request import AnsweredRequest
from serving.recording.record_files import RecordFiles
from serving.recording.record_lines import RecordEncoder
from serving.recording.record_writer import RecordWriter
from serving.telemetry.record_counts import DROPPED, FAILURES, LOST, WRITTEN, RecordCounts
from tests.e2e.harness import until
from tests.unit.recording.test_record_files import list_files
from tests.unit.recording.test_record_lines import make_request


class Writing:
    """A writer with its files and counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.counts = RecordCounts()
        self.closings = threading.Semaphore(0)
        files = RecordFiles(directory / "records", 1 << 20, 3600.0)
        self.writer = RecordWriter(files, RecordEncoder(), self.counts, self.closings.release)

    def read_ids(self) -> list[str]:
        lines = [line for path in list_files(self.directory) for line in path.read_bytes().splitlines()]
        return [orjson.loads(line)["request_id"] for line in lines]

    def count(self, place: int) -> int:
        return int(self.counts.numbers[place])


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path)
    yield made
    arm("record-write", None)
    if made.writer._thread.ident is not None:
        made.writer.stop(10.0)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def request(name: str, *methods: Method) -> AnsweredRequest:
    made = make_request(request_id=name)
    return made._replace(outputs=tuple((method, made.outputs[0][1]) for method in methods or ("predict",)))


def test_what_is_offered_is_written_in_order(writing: Writing) -> None:
    writing.writer.start()
    names = [f"id-{number}" for number in range(500)]
    for name in names:
        writing.writer.offer(request(name))
    until(lambda: writing.count(WRITTEN) == 500, "all records")
    assert writing.read_ids() == names


def test_a_stop_writes_what_waits(writing: Writing) -> None:
    for number in range(100):
        writing.writer.offer(request(f"id-{number}"))
    writing.writer.start()
    writing.writer.stop(30.0)
    assert len(writing.read_ids()) == writing.count(WRITTEN) == 100


def test_a_stop_has_a_deadline(writing: Writing) -> None:
    release = threading.Event()
    arm("record-write", lambda: release.wait(60) and None)
    writing.writer.start()
    writing.writer.offer(request("a"))
    with structlog.testing.capture_logs() as logs:
        writing.writer.stop(0.2)
    assert [line["event"] for line in logs] == ["records_lost"]
    release.set()


def test_a_full_queue_drops_and_counts(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "MOST_WAITING", 10)
    for number in range(15):
        writing.writer.offer(request(f"id-{number}"))
    assert writing.count(DROPPED) == 5
    writing.writer.start()
    until(lambda: writing.count(WRITTEN) == 10, "what was kept")
    writing.writer.offer(request("later"))
    until(lambda: writing.count(WRITTEN) == 11, "what comes when there is room again")
    assert writing.read_ids() == [*(f"id-{number}" for number in range(10)), "later"]


def test_bytes_bound_the_queue_too(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "MOST_WAITING_BYTES", 250)
    for number in range(4):
        writing.writer.offer(request(f"id-{number}"))  # of 100 bytes
    assert writing.count(DROPPED) == 2
    writing.writer.start()
    until(lambda: writing.count(WRITTEN) == 2, "what was kept")
    writing.writer.offer(request("later"))
    until(lambda: writing.count(WRITTEN) == 3, "room again")


def test_a_full_disk_is_counted_and_said_once_and_tried_again(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_writer, "RETRY_SECONDS", 0.01)
    arm("record-write", full)
    with structlog.testing.capture_logs() as logs:
        writing.writer.start()
        for number in range(1, 4):
            writing.writer.offer(request(f"id-{number}"))
            until(lambda wanted=number: writing.count(LOST) == wanted, "a loss")  # type: ignore[misc]
        assert writing.count(FAILURES) == 3
        arm("record-write", None)
        writing.writer.offer(request("later"))
        until(lambda: writing.count(WRITTEN) == 1, "a record")
    assert [(line["event"], line["reason"]) for line in logs] == [("records_not_written", "No space left on device")]
    assert writing.read_ids() == ["later"]


def test_a_directory_that_cannot_be_made_is_counted(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "RETRY_SECONDS", 0.01)
    (writing.directory / "records").write_text("a file in its place")
    writing.writer.start()
    writing.writer.offer(request("a"))
    until(lambda: writing.count(FAILURES) == 1, "a failure")
    (writing.directory / "records").unlink()
    writing.writer.offer(request("b"))
    until(lambda: writing.count(WRITTEN) == 1, "a record")


def test_what_cannot_be_encoded_costs_no_other_record(writing: Writing) -> None:
    odd = request("odd")._replace(outputs=(("predict", ([object()],)),))
    with structlog.testing.capture_logs() as logs:
        writing.writer.start()
        for each in (request("a"), odd, request("b")):
            writing.writer.offer(each)
        until(lambda: writing.count(WRITTEN) == 2 and writing.count(LOST) == 1, "two records")
    assert writing.read_ids() == ["a", "b"]
    assert [line["event"] for line in logs] == ["record_not_encoded"]


def test_a_request_of_several_methods_is_one_record_in_two_files(writing: Writing) -> None:
    writing.writer.start()
    writing.writer.offer(request("a", "predict", "predict_proba"))
    until(lambda: writing.count(WRITTEN) == 1, "a record")
    writing.writer.stop(10.0)
    assert [path.parent.name for path in list_files(writing.directory)] == ["predict", "predict_proba"]


def test_files_can_be_closed_from_outside(writing: Writing) -> None:
    writing.writer.start()
    for name in ("a", "b"):
        writing.writer.offer(request(name))
        until(lambda wanted=name: wanted in writing.read_ids(), "a record")  # type: ignore[misc]
        writing.writer.close_files()
        assert writing.closings.acquire(timeout=30)
    assert len(list_files(writing.directory)) == 2

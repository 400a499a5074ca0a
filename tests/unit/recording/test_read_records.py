"""Records are read as the requests that they were, from both formats and whole directories."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest

from serving.recording.parquet_records import write_parquet
from serving.recording.read_records import UnreadableRecords, list_record_files, read_requests
from serving.recording.record_lines import RecordEncoder
from serving.rows.batch import Batch
from tests.unit.recording.test_record_lines import make_request

TWO_ROWS = make_request(Batch(2, matrix=np.arange(8.0).reshape(2, 4)), ("predict", ["a", "b"]), request_id="two")


def write(path: Path, *requests: object, leave_out: tuple[str, ...] = ()) -> Path:
    encoder = RecordEncoder(leave_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for each in requests for part in encoder.encode(each) for line in part.lines]  # type: ignore[arg-type]
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("is_parquet", [False, True])
def test_rows_of_one_request_are_together(tmp_path: Path, is_parquet: bool) -> None:
    one = make_request(request_id="same")
    path = write(tmp_path / "a.jsonl", TWO_ROWS, TWO_ROWS, one, one, one._replace(at=2.0))
    if is_parquet:
        pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
        assert write_parquet(path, tmp_path / "a.parquet", lambda: False)
        path = tmp_path / "a.parquet"
    found = list(read_requests(path))
    assert [(each.request_id, len(each.rows)) for each in found] == [("two", 2), ("two", 2), *[("same", 1)] * 3]
    assert found[0].answers == ["a", "b"]
    assert found[0].rows[1] == {"x0": 4.0, "x1": 5.0, "x2": 6.0, "x3": 7.0}
    assert (found[0].model, found[0].version, found[0].method, found[0].seconds) == ("iris", "3", "predict", 0.25)


def test_what_was_left_out_of_any_row_is_named(tmp_path: Path) -> None:
    (found,) = read_requests(write(tmp_path / "a.jsonl", TWO_ROWS, leave_out=("x1", "predict")))
    assert found.left_out == ("predict", "x1")
    assert found.answers == [None, None]


def test_a_directory_gives_its_files_in_the_order_of_their_times(tmp_path: Path) -> None:
    names = ("m/2/predict/20260103T000000Z-1-1.jsonl", "m/1/predict/_20260102T000000Z-1-1.jsonl")
    for name in names:
        write(tmp_path / name, TWO_ROWS)
    (tmp_path / "notes.txt").touch()
    last = write(tmp_path / "elsewhere" / "20260101T000000Z-1-1.jsonl", TWO_ROWS)
    assert list_record_files([tmp_path / "m", last]) == [last, tmp_path / names[1], tmp_path / names[0]]


def test_a_file_that_is_made_into_another_one_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "_a.jsonl", TWO_ROWS)
    (tmp_path / "a.parquet").touch()
    (tmp_path / "_b.parquet").touch()
    write(tmp_path / "_b.jsonl", TWO_ROWS)
    assert [path.name for path in list_record_files([tmp_path])] == ["a.parquet", "_b.jsonl"]


def test_what_is_removed_or_finished_after_it_was_listed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    path = write(tmp_path / "_a.jsonl", TWO_ROWS)
    (found,) = list_record_files([tmp_path])
    assert write_parquet(path, tmp_path / "a.parquet", lambda: False)
    path.unlink()
    assert len(list(read_requests(found))) == 1
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        list(read_requests(found))


@pytest.mark.parametrize("vanishing", ["m/1/predict", "m"])
def test_directories_that_are_removed_meanwhile(
    tmp_path: Path, vanishing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m/1/predict/20260101T000000Z-1-1.jsonl", TWO_ROWS)
    kept = write(tmp_path / "n/1/predict/20260101T000000Z-1-2.jsonl", TWO_ROWS)
    scandir = os.scandir

    def remove_first(path: str) -> object:
        if path == str(tmp_path / vanishing):
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert list_record_files([tmp_path]) == [kept]


def test_a_file_that_is_finished_while_they_are_listed_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = write(tmp_path / "_a.jsonl", TWO_ROWS)
    walk = os.walk

    def finish_after(top: Path) -> list[tuple[str, list[str], list[str]]]:
        found = list(walk(top))
        unfinished.rename(tmp_path / "a.parquet")
        return found

    monkeypatch.setattr(os, "walk", finish_after)
    assert list_record_files([tmp_path]) == [tmp_path / "a.parquet"]


def test_what_is_no_record_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UnreadableRecords, match=r"neither with \.jsonl nor \.parquet"):
        list_record_files([tmp_path / "notes.txt"])
    with pytest.raises(UnreadableRecords, match="has no records"):
        list_record_files([tmp_path])
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps({"features": {}, "time": "now"}))
    with pytest.raises(UnreadableRecords, match="lacks a field"):
        list(read_requests(tmp_path / "a.jsonl"))
    pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UnreadableRecords, match="no Parquet file"):
        list(read_requests(tmp_path / "a.parquet"))

"""Each row is one line of JSON, with the names of its features, and without what is to be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.recording import record_lines
from serving.recording.answered_request import AnsweredRequest
from serving.recording.record_lines import MOST_RECORD_BYTES, RecordEncoder, RecordTooLarge
from serving.rows.batch import Batch
from tests.fakes import MIXED, NUMBERS, TEXTS
from tests.unit.recording.test_answered_request import OBJECTS

ROW = Batch(1, matrix=np.array([[5.1, 3.5, 1.4, 0.2]]))


def make_request(
    batch: Batch = ROW, *outputs: Any, signature: Signature = NUMBERS, request_id: Any = b"id-1"
) -> AnsweredRequest:
    given = tuple((method, tensors if isinstance(tensors, tuple) else (tensors,)) for method, tensors in outputs)
    answers = given or (("predict", (np.zeros(batch.rows, np.int64),)),)
    return AnsweredRequest(1.5, request_id, "iris", "3", signature, batch.rows, batch, answers, 0.25, 100)


def encode(request: AnsweredRequest, *leave_out: str) -> list[dict[str, Any]]:
    encoder = RecordEncoder(leave_out, pause=lambda _: None)
    lines = [line for part in encoder.encode(request) for line in part.lines]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [orjson.loads(line) for line in lines]


def test_a_line_says_who_was_asked_what_and_what_was_answered() -> None:
    assert encode(make_request()) == [
        {
            "time": "1970-01-01T00:00:01.500000+00:00",
            "request_id": "id-1",
            "model": "iris",
            "version": "3",
            "method": "predict",
            "rows": 1,
            "seconds": 0.25,
            "row": 0,
            "features": {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2},
            "answer": 0,
        }
    ]


def test_each_row_and_each_method_has_a_line() -> None:
    batch = Batch(2, matrix=np.arange(8.0).reshape(2, 4))
    chances = np.array([[0.1, 0.9], [0.5, 0.5]])
    found = encode(make_request(batch, ("predict", ["a", "b"]), ("predict_proba", chances), request_id=None))
    assert [(one["method"], one["row"], one["rows"], one["answer"]) for one in found] == [
        ("predict", 0, 2, "a"),
        ("predict", 1, 2, "b"),
        ("predict_proba", 0, 2, [0.1, 0.9]),
        ("predict_proba", 1, 2, [0.5, 0.5]),
    ]
    assert found[3]["features"] == {"x0": 4.0, "x1": 5.0, "x2": 6.0, "x3": 7.0}
    assert found[0]["request_id"] is None


def test_values_are_as_an_answer_in_json_has_them() -> None:
    columns = (np.array([np.nan]), ["Bern"], np.array([True]))
    request = make_request(Batch(1, columns=columns), ("predict", np.array([np.inf])), signature=MIXED)
    (found,) = encode(request)
    assert found["features"] == {"age": None, "town": "Bern", "is_new": True}
    assert found["answer"] is None
    several = make_request(ROW, ("predict_proba", (np.array([[0.1, 0.9]]), np.array([[1.0, 0.0]]))))
    assert encode(several)[0]["answer"] == [[0.1, 0.9], [1.0, 0.0]]


def test_rows_of_texts_and_of_objects_are_as_clients_send_them() -> None:
    (text,) = encode(make_request(Batch(1, columns=(["hello"],)), signature=TEXTS))
    assert text["features"] == {"text": "hello"}
    row = {"any": [1, {"more": None}]}
    (found,) = encode(make_request(Batch(1, columns=([row],)), ("predict", [{"a": 1}]), signature=OBJECTS))
    assert (found["features"], found["answer"]) == (row, {"a": 1})


def test_features_of_one_name_are_a_list_and_unused_ones_are_absent() -> None:
    twice = Signature(features=(Feature(name="a"), Feature(name="a"), Feature(name="b")), methods=("predict",))
    batch = Batch(1, matrix=np.array([[1.0, 2.0, 3.0]]))
    assert encode(make_request(batch, signature=twice))[0]["features"] == [1.0, 2.0, 3.0]
    left = encode(make_request(batch, signature=twice), "b")[0]
    assert (left["features"], left["left_out"]) == ([1.0, 2.0, None], ["b"])
    unused = Signature(features=(Feature(name="a"), Feature(name="b", is_used=False)), methods=("predict",))
    found = encode(make_request(Batch(1, matrix=np.array([[1.0, np.nan]])), signature=unused))[0]
    assert found["features"] == {"a": 1.0}
    assert "left_out" not in found


@pytest.mark.parametrize("is_matrix", [True, False])
def test_a_feature_that_is_left_out_is_absent_and_named(is_matrix: bool) -> None:
    if is_matrix:
        (found,) = encode(make_request(), "x1", "x3", "elsewhere")
        assert found["features"] == {"x0": 5.1, "x2": 1.4}
        assert found["left_out"] == ["x1", "x3"]
    else:
        columns = (np.array([3.0]), ["secret"], [None])
        (found,) = encode(make_request(Batch(1, columns=columns), signature=MIXED), "town")
        assert found["features"] == {"age": 3.0, "is_new": None}
        assert found["left_out"] == ["town"]
        assert "secret" not in str(found)


def test_a_method_that_is_left_out_has_no_answer() -> None:
    request = make_request(ROW, ("predict", ["yes"]), ("predict_proba", np.array([[0.123, 0.877]])))
    label, chances = encode(request, "predict_proba")
    assert label["answer"] == "yes"
    assert "left_out" not in label
    assert "answer" not in chances
    assert chances["left_out"] == ["predict_proba"]


def test_keys_of_objects_are_left_out_at_any_depth_of_rows_and_answers() -> None:
    row = {"name": "secret", "pets": [{"name": "secret", "age": 3}], "age": 4}
    request = make_request(Batch(1, columns=([row],)), ("predict", [{"name": "secret", "is": 1}]), signature=OBJECTS)
    (found,) = encode(request, "name")
    assert found["features"] == {"pets": [{"age": 3}], "age": 4}
    assert found["answer"] == {"is": 1}
    assert found["left_out"] == ["name"]
    assert row["name"] == "secret", "what a client sent is not changed"


def test_an_object_can_be_left_out_whole() -> None:
    (found,) = encode(make_request(Batch(1, columns=([{"name": "secret"}],)), signature=OBJECTS), "object")
    assert (found["features"], found["left_out"]) == ({}, ["object"])


def test_a_text_model_can_be_recorded_without_the_text() -> None:
    (found,) = encode(make_request(Batch(1, columns=(["secret"],)), signature=TEXTS), "text")
    assert (found["features"], found["left_out"]) == ({}, ["text"])


def test_a_large_request_is_cut_after_whole_rows() -> None:
    texts = ["x" * 300_000] * 10
    found = encode(make_request(Batch(10, columns=(texts,)), signature=TEXTS))
    assert 1 <= len(found) < 10
    assert {one["rows"] for one in found} == {10}
    assert sum(len(orjson.dumps(one)) for one in found) <= MOST_RECORD_BYTES
    (long,) = encode(make_request(Batch(2, columns=(["x" * 2_000_000] * 2,)), signature=TEXTS))
    assert len(long["features"]["text"]) == 2_000_000, "the first row is always written"


def test_a_row_that_is_far_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_lines, "MOST_LINE_BYTES", 1000)
    monkeypatch.setattr(record_lines, "MOST_RECORD_BYTES", 500)
    with pytest.raises(RecordTooLarge):
        encode(make_request(Batch(1, columns=(["x" * 2000],)), signature=TEXTS))


def test_an_encoder_pauses_for_the_event_loop() -> None:
    pauses: list[float] = []
    encoder = RecordEncoder(pause=pauses.append)
    for _ in range(200):
        encoder.encode(make_request(Batch(500, matrix=np.ones((500, 4)))))
    assert len(pauses) > 10


def test_a_version_of_the_same_name_may_have_other_features() -> None:
    encoder = RecordEncoder(pause=lambda _: None)
    encoder.encode(make_request())
    other = Signature(features=(Feature(name="width", dtype=Dtype.NUMBER),), methods=("predict",))
    (part,) = encoder.encode(make_request(Batch(1, matrix=np.array([[2.0]])), signature=other))
    assert orjson.loads(part.lines[0])["features"] == {"width": 2.0}
    assert other.container is Container.ARRAY

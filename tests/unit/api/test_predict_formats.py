"""Predictions in forms other than JSON, over HTTP: what comes in, what goes out, and what is refused."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from serving.api.formats import ARROW, FORMATS, RowFormat, pace
from tests.fakes import TEXTS, FakeEngine, call, make_app, make_reference, make_servable

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]])
PATH = "/models/iris/predict"
CSV = "text/csv"
NPY = "application/x-npy"


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ask(content: bytes, media_type: str, path: str = PATH, accept: str = "*/*", app: Any = None) -> httpx.Response:
    headers = {"content-type": media_type, "accept": accept}
    return call(app or make_app(), "POST", path, content=content, headers=headers)


def test_a_body_in_a_format_is_answered_in_json_unless_another_answer_is_asked_for() -> None:
    response = ask(saved(ROWS), NPY)
    assert response.json() == {"model": "iris", "version": "3", "predictions": [0, 1]}
    assert response.headers["content-type"] == "application/json"


def test_the_answer_has_the_form_that_is_asked_for_and_names_the_version() -> None:
    response = ask(saved(ROWS), NPY, accept=NPY)
    assert np.load(io.BytesIO(response.content)).tolist() == [0, 1]
    assert response.headers["content-type"] == NPY
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("iris", "3")
    response = ask(b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}', "application/json", accept=CSV)
    assert (response.text, response.headers["content-type"]) == ("predict\r\n0\r\n", CSV)


@pytest.mark.parametrize("path", [PATH, "/models/iris/versions/3/predict", "/predict"])
def test_the_method_may_be_in_the_query(path: str) -> None:
    response = ask(saved(ROWS), NPY, f"{path}?method=predict_proba&other=1", CSV)
    assert response.text == "0,1,2\r\n0.98,0.01,0.01\r\n0.01,0.98,0.01\r\n"


@pytest.mark.parametrize(
    ("query", "body", "detail"),
    [
        ("method=transform", '{"input": [1, 2, 3, 4]}', "method 'transform' is not one this model offers"),
        ("method=predict", '{"input": [1, 2, 3, 4], "method": "predict_proba"}', "name it once"),
        ("method=predict&method=predict", '{"input": [1, 2, 3, 4]}', "more than once"),
        ("method=", '{"input": [1, 2, 3, 4]}', "method '' is not one"),
        ("&".join("a=1" for _ in range(99)), '{"input": [1, 2, 3, 4]}', "more than 16 fields"),
    ],
)
def test_a_method_that_is_not_clear_is_refused(query: str, body: str, detail: str) -> None:
    response = ask(body.encode(), "application/json", f"{PATH}?{query}")
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_a_query_names_no_model() -> None:
    assert (
        ask(b'{"input": [5.1, 3.5, 1.4, 0.2]}', "application/json", "/predict?model=none&version=9").status_code == 200
    )


@pytest.mark.parametrize(
    ("content", "media_type", "accept", "status", "slug"),
    [
        (b"nonsense", NPY, "*/*", 400, "malformed"),
        (b"\xff", CSV, CSV, 400, "malformed"),
        (b"1,2,3,x", CSV, CSV, 422, "invalid-input"),
        (b"1,2,3,4", CSV, "image/png", 406, "not-acceptable"),
        (b"1,2,3,4", "text/html", CSV, 415, "unsupported-media"),
        (saved(np.zeros((100_001, 1), np.int8)), NPY, NPY, 413, "body-too-large"),
    ],
)
def test_what_is_wrong_is_a_problem(content: bytes, media_type: str, accept: str, status: int, slug: str) -> None:
    response = ask(content, media_type, accept=accept)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith(":" + slug)


def test_an_answer_that_does_not_fit_its_form_is_406_and_names_the_version() -> None:
    engine = FakeEngine(lambda _method, batch: ["a", 1][: batch.rows])
    app = make_app(make_reference(iris=make_servable("iris", "3", engine, TEXTS)))
    response = ask(b"good\nbad\n", CSV, accept=NPY, app=app)
    assert (response.status_code, response.headers["x-model-version"]) == (406, "3")
    assert "ask for application/json or text/csv" in response.json()["detail"]


def test_large_bodies_are_read_and_large_answers_written_too() -> None:
    many = np.tile(ROWS, (10_000, 1))
    response = ask(saved(many), NPY, PATH + "?method=predict_proba", NPY)
    assert np.load(io.BytesIO(response.content)).shape == (20_000, 3)
    assert len(ask(b"\n".join(b"5.1,3.5,1.4,0.2" for _ in range(20_000)), CSV).json()["predictions"]) == 20_000


def test_what_may_be_long_in_the_reading_is_not_for_the_event_loop() -> None:
    assert pace(b"1," * 10_000, FORMATS[CSV], FORMATS[CSV]) == (True, True)
    assert pace(b"1," * 100_000, FORMATS[NPY], FORMATS[NPY]) == (True, False)
    assert pace(b"1,2", FORMATS[CSV], FORMATS[NPY]) == (False, False)
    assert pace(b"1," * 100_000, None, None) == (False, False)


@pytest.mark.parametrize("reads_slowly", [False, True])
@pytest.mark.parametrize("writes_slowly", [False, True])
def test_what_is_slow_is_done_in_a_thread_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, reads_slowly: bool, writes_slowly: bool
) -> None:
    done_in: list[threading.Thread] = []

    def noted(does: Callable[..., Any]) -> Callable[..., Any]:
        def does_and_notes(*given: Any) -> Any:
            done_in.append(threading.current_thread())
            return does(*given)

        return does_and_notes

    usual = FORMATS[NPY]
    form = RowFormat(
        NPY, noted(usual.read), noted(usual.write), lambda _: reads_slowly, lambda _: writes_slowly, usual.why_not
    )
    monkeypatch.setattr("serving.api.predict.form_of_body", lambda _: form)
    monkeypatch.setattr("serving.api.predict.form_of_answer", lambda _: form)
    assert ask(saved(ROWS), NPY).status_code == 200
    assert [thread is not threading.current_thread() for thread in done_in] == [reads_slowly, writes_slowly]


def test_an_arrow_stream_is_answered_with_one() -> None:
    pa = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    media_type = ARROW.media_type
    sink = io.BytesIO()
    table = pa.table({f"x{place}": ROWS[:, place] for place in (3, 1, 0, 2)})
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    response = ask(sink.getvalue(), media_type, PATH + "?method=predict_proba", media_type)
    answer = ipc.open_stream(response.content).read_all()
    assert answer.to_pydict() == {"0": [0.98, 0.01], "1": [0.01, 0.98], "2": [0.01, 0.01]}
    assert answer.schema.metadata[b"version"] == b"3"

"""Whatever is sent, the answer is a document and never the server's fault."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.plane.active_reference import ActiveReference
from tests.fakes import (
    ADMIN,
    MIXED,
    TEXTS,
    FakeEngine,
    echo,
    exchange,
    make_app,
    make_reference,
    make_servable,
    part,
    run,
)

APP = make_app(
    make_reference(
        iris=make_servable("iris", "3"),
        mixed=make_servable("mixed", "1", FakeEngine(echo), MIXED),
        texts=make_servable("texts", "1", FakeEngine(echo), TEXTS),
    )
)
MODELS = st.sampled_from(["iris", "mixed", "texts"])

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([5.1, 0, "x0"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["x0", "x1", "x2", "x3", "age", "town"]) | st.text(max_size=3), inner, max_size=5
        )
    ),
    max_leaves=15,
)
documents = values | st.dictionaries(
    st.sampled_from(["instances", "input", "method"]) | st.text(max_size=4),
    values | st.lists(st.lists(scalars, min_size=3, max_size=4), max_size=4) | st.just("predict_proba"),
    max_size=3,
)
WORDS = rb"""{"instances": {"input": {"method":"predict" "x0": [ ] { } , " \ ' 1 - 1e999 NaN true null \ud800"""
fragments = st.sampled_from([*WORDS.split(), b"\xff", b"\x00", b" ", b"9" * 400, b"\xf0\x9f"])


def send(path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    answer = run(exchange(APP, part(body, is_last=True), path=path, **headers))
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
    if answer.status != 200:
        assert answer.document["status"] == answer.status
        assert "Traceback" not in answer.document["detail"]
    return answer.status, answer.document


@given(MODELS, st.binary(max_size=200) | st.lists(fragments, max_size=12).map(b"".join))
@settings(max_examples=400)
def test_random_bytes_are_4xx(model: str, body: bytes) -> None:
    assert send(f"/models/{model}/predict", body)[0] in (200, 400, 422)


@given(MODELS, documents)
@settings(max_examples=400)
def test_random_json_is_answered_or_refused(model: str, document: Any) -> None:
    try:
        body = orjson.dumps(document)
    except orjson.JSONEncodeError:  # integers beyond 64 bits, which others can write
        return
    status, _ = send(f"/models/{model}/predict", body)
    assert status in (200, 422)


INT64, UINT64 = range(-(1 << 63), 1 << 63), range(1 << 64)
LARGE = st.integers(2**53 - 2, 2**53 + 4) | st.integers(2**63 - 2, 2**64 + 2) | st.integers(-(2**63) - 2, -(2**63) + 2)


@given(MODELS, st.lists(st.lists(st.floats() | st.integers() | LARGE, min_size=4, max_size=4), min_size=1, max_size=3))
def test_random_rows_are_answered_unless_they_hold_what_no_float_can(model: str, rows: list[Any]) -> None:
    status, document = send(f"/models/{model}/predict", json.dumps({"instances": rows}).encode())
    if model == "iris":
        assert status == (200 if all(map(_fits, zip(*rows, strict=True))) else 422)
        assert status == 422 or len(document["predictions"]) == len(rows)
    else:
        assert status == 422


def _fits(column: tuple[Any, ...]) -> bool:
    """Say whether one feature's numbers are those of float64, or all of them integers of one 64-bit kind."""
    try:
        cells = [_as_read(cell) for cell in column]
        if all(math.isfinite(float(cell)) and float(cell) == cell for cell in cells):
            return True
    except OverflowError:
        return False
    is_whole = all(type(cell) is int for cell in cells)
    return is_whole and any(all(cell in kind for cell in cells) for kind in (INT64, UINT64))


def _as_read(cell: float) -> float:
    """Return a number as JSON is read: an integer beyond 64 bits is a float, because clients write floats so, too."""
    return float(cell) if type(cell) is int and cell not in INT64 and cell not in UINT64 else cell


names = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda name: "/" not in name)


@given(names, names, st.sampled_from(["predict", "pin", "rollback", "rollout", "release", "history", "active", ""]))
def test_random_paths_are_4xx(model: str, version: str, call: str) -> None:
    for path in (f"/models/{model}/{call}", f"/models/{model}/versions/{version}/{call}", f"/{model}/{version}"):
        answer = run(exchange(APP, part(b"{}", is_last=True), path=path, **ADMIN))
        assert answer.status < 500


@given(
    st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "content-length", "x-request-id"]), st.text(max_size=9)
    )
)
def test_random_headers_are_never_the_servers_fault(headers: dict[str, str]) -> None:
    encoded = {name.replace("-", "_"): value for name, value in headers.items()}
    assert send("/models/iris/predict", b'{"input": [1, 2, 3, 4]}', **encoded)[0] in (200, 413, 415)


@pytest.mark.parametrize("active", [ActiveReference(), make_reference(iris=None)])
def test_even_a_service_without_a_model_answers(active: ActiveReference) -> None:
    app = make_app(active)
    answer = run(exchange(app, part(b'{"input": [1]}', is_last=True), path="/predict"))
    assert answer.status in (404, 503)

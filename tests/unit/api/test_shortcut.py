"""The short way of predictions: open for what needs no waiting and succeeds, shut for everything else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from serving.api import predict, shortcut
from serving.domain.errors import ModelFailed
from serving.domain.signature import Method
from serving.plane.active_reference import ActiveReference
from serving.rows.batch import Batch, Prediction
from tests.fakes import FakeEngine, call, make_app, make_model_reference, make_reference, make_servable

ROW = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PATH = "/models/iris/predict"
JSON = {b"content-type": b"application/json"}


class Immediate(FakeEngine):
    """Answers without waiting, unless it is told that it cannot."""

    is_immediate = True
    can = True

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
        self.batches.append(batch)
        if self.error is not None:
            raise self.error
        return Prediction((self.rule(method, batch),)) if self.can else None


def app_with(engine: Any, **settings: dict[str, Any]) -> Any:
    return make_app(make_reference(iris=make_servable("iris", "3", engine)), **settings)


def test_a_prediction_that_needs_no_waiting_is_answered_whole() -> None:
    app = app_with(Immediate())
    found = app.state.services.shortcut.respond(PATH, JSON, ROW)
    assert found is not None
    head, body = found
    lines = dict(line.split(b": ") for line in head.splitlines())
    assert lines[b"content-length"] == b"%d" % len(body)
    assert (lines[b"x-model-name"], lines[b"x-model-version"]) == (b"iris", b"3")
    assert orjson.loads(body)["version"] == "3"
    assert app.state.services.metrics.traffic("iris", "3").statuses == {200: 1}


@pytest.mark.parametrize("path", ["/models/iris/labels/best/predict", "/v1/models/iris/labels/best:predict"])
def test_a_label_is_answered_without_waiting_by_the_version_that_it_names(path: str) -> None:
    one, two = (make_servable("iris", version, Immediate()) for version in "12")
    app = make_app(ActiveReference({"iris": make_model_reference(two, one, best=one)}))
    found = app.state.services.shortcut.respond(path, JSON, ROW)
    assert found is not None
    assert b"x-model-version: 1\r\n" in found[0]
    app.state.active = ActiveReference({"iris": make_model_reference(two, one, best=two)})
    moved = app.state.services.shortcut.respond(path, JSON, ROW)
    assert moved is not None
    assert b"x-model-version: 2\r\n" in moved[0], "what a path means is looked up for each request"


def test_an_engine_that_always_waits_costs_no_look_at_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read on the long way, once."""
    looked: list[bytes] = []
    monkeypatch.setattr(predict, "parse", lambda raw, _: looked.append(raw))
    engine = Immediate()
    engine.is_immediate = False
    assert app_with(engine).state.services.shortcut.respond(PATH, JSON, b"no JSON") is None
    assert not engine.batches
    assert not looked


@pytest.mark.parametrize(
    ("path", "headers", "raw"),
    [
        ("/models/iris", JSON, ROW),
        ("/models/other/predict", JSON, ROW),
        ("/models/iris/versions/9/predict", JSON, ROW),
        (PATH, {b"content-type": b"text/csv"}, ROW),
        (PATH, {**JSON, b"content-encoding": b"gzip"}, ROW),
        (PATH, JSON, b"no JSON"),
        (PATH, JSON, b'{"instances": [[1]]}'),
    ],
)
def test_what_is_not_answered_with_200_is_left_to_the_long_way(path: str, headers: Any, raw: bytes) -> None:
    app = app_with(Immediate())
    assert app.state.services.shortcut.respond(path, headers, raw) is None
    assert app.state.services.metrics.traffic("iris", "3").statuses == {}


def test_a_model_that_fails_or_cannot_now_is_left_to_the_long_way() -> None:
    engine = Immediate()
    app = app_with(engine)
    engine.can = False
    assert app.state.services.shortcut.respond(PATH, JSON, ROW) is None
    engine.can, engine.error = True, ModelFailed("no")
    assert app.state.services.shortcut.respond(PATH, JSON, ROW) is None


def test_errors_it_leaves_to_the_long_way_are_counted_by_their_kind() -> None:
    """Also a bug of the short way alone, which no answer would show."""
    engine = Immediate()
    app = app_with(engine)
    respond = app.state.services.shortcut.respond
    assert respond(PATH, JSON, ROW) is not None
    engine.can = False
    assert respond(PATH, JSON, ROW) is None
    assert _fallbacks(app) == {}
    engine.error = ZeroDivisionError("a bug")
    for raw in (ROW, b"no JSON", b'{"instances": [[1]]}', b'{"instances": [[2]]}'):
        assert respond(PATH, JSON, raw) is None
    assert _fallbacks(app) == {"internal": 1, "not-json": 1, "invalid-input": 2}
    page = call(app, "GET", "/metrics").text
    assert 'serving_shortcut_fallbacks_total{problem="internal"} 1.0' in page


def _fallbacks(app: Any) -> dict[str, float]:
    registry = app.state.services.metrics.registry
    families = [family for family in registry.collect() if family.name == "serving_shortcut_fallbacks"]
    return {
        sample.labels["problem"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_what_is_slow_to_read_or_to_write_goes_the_long_way() -> None:
    respond = app_with(Immediate()).state.services.shortcut.respond
    csv = {b"content-type": b"text/csv"}
    assert respond(PATH, csv, b"5.1,3.5,1.4,0.2\n" * 10) is not None
    assert respond(PATH, csv, b"5.1,3.5,1.4,0.2\n" * 600) is None
    rows = b'{"instances": [' + b",".join([b"[5.1, 3.5, 1.4, 0.2]"] * 600) + b"]}"
    assert respond(PATH, JSON, rows) is not None
    assert respond(PATH, {**JSON, b"accept": b"text/csv"}, rows) is None


def test_a_body_beyond_the_limit_does_not_slip_in() -> None:
    large = b'{"instances": [' + b",".join([b"[5.1, 3.5, 1.4, 0.2]"] * 200) + b"]}"
    assert app_with(Immediate()).state.services.shortcut.respond(PATH, JSON, large) is not None
    small = app_with(Immediate(), server={"max_body_mb": 0.001})
    assert small.state.services.shortcut.respond(PATH, JSON, large) is None
    assert small.state.services.shortcut.respond(PATH, JSON, ROW) is not None


def test_where_requests_are_logged_all_of_them_go_the_long_way() -> None:
    assert app_with(Immediate(), log={"access_sample": 0.5}).state.services.shortcut.respond(PATH, JSON, ROW) is None


def test_clients_cannot_make_it_remember_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "MOST_PATHS", 3)
    respond = app_with(Immediate()).state.services.shortcut
    for number in range(20):
        respond.respond(f"/models/m{number}/predict", JSON, ROW)
    assert len(respond._calls) <= 3
    respond._calls.clear()
    respond.respond(f"/models/{'m' * 30_000}/predict", JSON, ROW)
    assert not respond._calls
    assert respond.respond(PATH, JSON, ROW) is not None

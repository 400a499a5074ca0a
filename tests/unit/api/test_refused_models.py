"""A model that has only refused versions says which and why, wherever it is asked."""

from __future__ import annotations

from serving.domain.state import State
from tests.fakes import call, make_app, make_model_status, make_reference, make_refused_status, make_status

ROW = {"input": [5.1, 3.5, 1.4, 0.2]}
REASON = "golden: row 3: expected 1, got 2"


def detail_of(*states: State, path: str = "/models/iris/predict", **settings: dict[str, str]) -> str:
    app = make_app(make_reference(iris=None), make_status(make_refused_status(*states)), **settings)
    response = call(app, "POST", path, json=ROW)
    assert response.status_code == 503
    return str(response.json()["detail"])


def test_the_refused_version_is_named_with_the_reason() -> None:
    assert detail_of(State.REJECTED) == (
        f"'iris' has no active version: version '2' was refused: {REASON}; GET /models/iris says why"
    )


def test_the_newest_of_several_is_named() -> None:
    assert f"version '3' (and 1 older) was refused: {REASON}" in detail_of(State.QUARANTINED, State.REJECTED)
    assert "version '3' (and 1 older) is in quarantine" in detail_of(State.REJECTED, State.QUARANTINED)


def test_the_default_model_says_it_too() -> None:
    assert f"version '2' was refused: {REASON}" in detail_of(State.REJECTED, path="/predict")


def test_a_model_with_a_version_that_may_still_come_is_not_active_yet() -> None:
    assert "no active version yet" in detail_of(State.REJECTED, State.DISCOVERED)
    assert "no active version yet" in detail_of(State.REJECTED, State.FAILED)


def test_a_version_on_its_way_is_waited_for() -> None:
    app = make_app(make_reference(iris=None), make_status(make_model_status(active=None)))
    assert "no active version yet" in call(app, "POST", "/models/iris/predict", json=ROW).json()["detail"]


def test_the_reason_is_kept_back_where_reading_needs_a_token() -> None:
    assert "no active version yet" in detail_of(State.REJECTED, security={"read_token": "r" * 20})


def test_metadata_says_it_too() -> None:
    app = make_app(make_reference(iris=None), make_status(make_refused_status()))
    assert REASON in call(app, "GET", "/v2/models/iris").json()["error"]

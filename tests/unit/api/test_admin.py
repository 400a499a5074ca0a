"""Operator calls: who may make them, what they do, and that each leaves a line in the log."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from serving.domain.decision import (
    AcceptStateLoss,
    PinVersion,
    RefreshStore,
    ReleaseVersion,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    SteerRollout,
    UnpinModel,
)
from serving.domain.errors import OperationRefused, StateUnavailable, UnknownVersion
from serving.domain.event_page import HistoryQuery
from serving.domain.rollout import RolloutAction
from tests.fakes import ADMIN, TOKEN, call, exchange, make_app, part, run

CALLS = [
    ("POST", "/models/iris/pin", {"version": "2"}),
    ("DELETE", "/models/iris/pin", None),
    ("PUT", "/models/iris/labels/best", {"version": "2"}),
    ("DELETE", "/models/iris/labels/best", None),
    ("POST", "/models/iris/rollback", None),
    ("POST", "/models/iris/versions/2/release", None),
    ("POST", "/models/iris/rollout", {"action": "hold"}),
    ("POST", "/refresh", None),
    ("POST", "/accept-state-loss", None),
]
OF_THE_SERVER = ("/refresh", "/accept-state-loss")
ACTOR = "admin@127.0.0.1"


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_without_a_configured_token_every_call_is_403_and_says_how_to_set_one(
    method: str, path: str, body: Any
) -> None:
    app = make_app(security={})
    for headers in ({}, ADMIN, {"authorization": "Bearer "}):
        response = call(app, method, path, json=body, headers=headers)
        assert response.status_code == 403
        assert "SERVING_SECURITY__ADMIN_TOKEN" in response.json()["detail"]
    assert app.state.services.operator.calls == []


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_without_the_token_every_call_is_401_with_a_challenge(method: str, path: str, body: Any) -> None:
    app = make_app()
    missing = call(app, method, path, json=body)
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    assert missing.headers["content-type"] == "application/problem+json"
    wrong = call(app, method, path, json=body, headers={"authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert app.state.services.operator.calls == []


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN} ", f"Bearer {TOKEN}x", "Bearer \xff\xfe"],
)
def test_no_other_header_lets_anybody_in(header: str) -> None:
    app = make_app()
    answer = run(_raw(app, header))
    is_right = header.strip() == f"Bearer {TOKEN}"
    assert answer.status == (200 if is_right else 401)


async def _raw(app: Any, header: str) -> Any:
    return await exchange(app, part(b"", is_last=True), path="/refresh", authorization=header)


def test_a_stranger_is_turned_away_before_a_body_is_read() -> None:
    answer = run(exchange(make_app(), part(b"{}", is_last=True), path="/models/iris/pin"))
    assert (answer.status, answer.unread) == (401, 1)


def test_every_call_reaches_the_operator_with_the_actor_and_answers_the_models_new_summary() -> None:
    app = make_app()
    for method, path, body in CALLS:
        response = call(app, method, path, json=body, headers=ADMIN)
        assert response.status_code == 200
        answer = response.json()["models"][0] if path in OF_THE_SERVER else response.json()
        assert answer["name"] == "iris"
        assert answer["pinned"] == ("2" if path.endswith("/pin") and body else None)
        assert answer["labels"] == ({"best": "2"} if method == "PUT" else {})
        assert "versions" not in answer
    assert app.state.services.operator.calls == [
        (PinVersion("iris", "2"), ACTOR),
        (UnpinModel("iris"), ACTOR),
        (SetLabel("iris", "best", "2"), ACTOR),
        (RemoveLabel("iris", "best"), ACTOR),
        (RollBackModel("iris"), ACTOR),
        (ReleaseVersion("iris", "2"), ACTOR),
        (SteerRollout("iris", RolloutAction.HOLD), ACTOR),
        (RefreshStore(), ACTOR),
        (AcceptStateLoss(), ACTOR),
    ]


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"version": null}'])
def test_a_rollback_without_a_version_leaves_whatever_is_active(body: bytes) -> None:
    app = make_app()
    assert call(app, "POST", "/models/iris/rollback", content=body, headers=ADMIN).status_code == 200
    assert app.state.services.operator.calls == [(RollBackModel("iris"), ACTOR)]


def test_a_rollback_with_a_version_leaves_only_that_one() -> None:
    app = make_app()
    assert call(app, "POST", "/models/iris/rollback", json={"version": "3"}, headers=ADMIN).status_code == 200
    refused = call(app, "POST", "/models/iris/rollback", json={"version": "2"}, headers=ADMIN)
    assert (refused.status_code, refused.json()["model"]) == (409, "iris")


@pytest.mark.parametrize("action", RolloutAction)
def test_a_rollout_is_steered_and_only_that_of_the_version_that_is_meant(action: RolloutAction) -> None:
    app = make_app()
    meant = {"action": action.value, "version": "4"}
    assert call(app, "POST", "/models/iris/rollout", json=meant, headers=ADMIN).json()["name"] == "iris"
    assert app.state.services.operator.calls == [(SteerRollout("iris", action, "4"), ACTOR)]
    refused = call(app, "POST", "/models/iris/rollout", json={**meant, "version": "3"}, headers=ADMIN)
    assert (refused.status_code, refused.json()["detail"]) == (409, "no rollout of version '3' is under way")
    assert call(app, "POST", "/models/wine/rollout", json=meant, headers=ADMIN).status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "'action' in the body: Field required"),
        (b'{"action": "stop"}', "'action' in the body: Input should be 'promote', 'rollback', 'hold' or 'resume'"),
        (b'{"action": "hold", "version": 4}', "'version' in the body: Input should be a valid string"),
        (b'{"action": "hold", "force": true}', "'force' in the body: Extra inputs are not permitted"),
    ],
)
def test_what_is_to_be_done_with_a_rollout_has_to_be_known(body: bytes, said: str) -> None:
    app = make_app()
    response = call(app, "POST", "/models/iris/rollout", content=body, headers=ADMIN)
    assert (response.status_code, response.json()["detail"]) == (422, said)
    assert app.state.services.operator.calls == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "'version' in the body: Field required"),
        (b"[]", 422, "the body: Input should be a valid dictionary"),
        (b'{"version": 2}', 422, "'version' in the body: Input should be a valid string"),
        (b'{"version": ""}', 422, "'version' in the body"),
        (b'{"version": "2", "force": true}', 422, "'force' in the body: Extra inputs are not permitted"),
        (b'{"version": "2", "version": "3"}', 422, "'version' appears twice"),
        (b'{"version": NaN}', 422, "'version' in the body"),
        (b'{"version": ', 400, "ends too early"),
        (b"\xff", 400, "not UTF-8"),
        (b"[" * 60_000, 400, "nested deeper than 16"),
        (b'{"version": ' + b"1" * 5000 + b"}", 422, "'version' in the body"),
        (b'"' + b"x" * 70_000 + b'"', 413, "65536 bytes"),
        (b'{"version": "%s"}' % (b"x" * 300), 422, "'version' in the body"),
    ],
)
def test_a_body_that_does_not_fit_says_why(body: bytes, status: int, said: str) -> None:
    app = make_app()
    response = call(app, "POST", "/models/iris/pin", content=body, headers=ADMIN)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert said in response.json()["detail"]
    assert app.state.services.operator.calls == []


def test_a_body_of_another_kind_is_415() -> None:
    headers = {**ADMIN, "content-type": "application/x-www-form-urlencoded"}
    assert call(make_app(), "POST", "/models/iris/pin", content="version=2", headers=headers).status_code == 415


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OperationRefused("version '2' was rejected by gate golden"), 409),
        (UnknownVersion("'iris' has no version '2'"), 404),
        (StateUnavailable("the state cannot be written: disk full"), 503),
        (RuntimeError("secret"), 500),
    ],
)
def test_what_the_operator_refuses_is_answered_and_audited(error: Exception, status: int) -> None:
    app = make_app()
    app.state.services.operator.error = error
    with capture_logs() as logs:
        response = call(app, "POST", "/models/iris/pin", json={"version": "2"}, headers=ADMIN)
    assert response.status_code == status
    assert "secret" not in response.text
    assert response.json().get("detail") == str(error) or status == 500
    line = next(line for line in logs if line["event"] == "admin")
    assert (line["call"], line["actor"], line["outcome"]) == ("pin", ACTOR, "refused")
    assert "secret" not in str(line)


def test_every_call_is_audited_and_the_token_is_in_no_line() -> None:
    app = make_app()
    with capture_logs() as logs:
        for method, path, body in CALLS:
            call(app, method, path, json=body, headers=ADMIN)
        call(app, "POST", "/refresh", headers={"authorization": "Bearer nearly-right"})
    audited = [line for line in logs if line["event"] == "admin"]
    done, refused = audited[: len(CALLS)], audited[len(CALLS)]
    calls = ["pin", "unpin", "label", "unlabel", "rollback", "release", "rollout", "refresh", "accept-state-loss"]
    assert [line["call"] for line in done] == calls
    assert all(line["outcome"] == "done" and line["actor"] == ACTOR for line in done)
    assert audited[0]["version"] == "2"
    assert (audited[2]["label"], audited[2]["version"]) == ("best", "2")
    assert audited[6]["action"] == "hold"
    assert (refused["outcome"], refused["call"]) == ("refused", "POST /refresh")
    assert TOKEN not in str(logs)
    assert "nearly-right" not in str(logs)


def test_a_known_token_of_another_scope_is_403_and_audited_without_the_token() -> None:
    app = make_app(security={"admin_token": TOKEN, "read_token": "only-reads", "predict_token": "only-predicts"})
    for token in ("only-reads", "only-predicts"):
        with capture_logs() as logs:
            response = call(app, "POST", "/refresh", headers={"authorization": f"Bearer {token}"})
        assert response.status_code == 403
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
        (line,) = [line for line in logs if line["event"] == "admin"]
        assert (line["outcome"], line["actor"], line["call"]) == ("refused", ACTOR, "POST /refresh")
        assert token not in str(logs)
    assert app.state.services.operator.calls == []


@pytest.mark.parametrize("name", ["%2e%2e", "..", "a%00b", "x" * 300, "a%2Fb", "%F0%9F%98%80", "active", "a b", "-a"])
def test_a_name_that_no_model_can_have_reaches_nobody(name: str) -> None:
    app = make_app()
    for method, path in [
        ("POST", f"/models/{name}/pin"),
        ("DELETE", f"/models/{name}/pin"),
        ("POST", f"/models/{name}/rollback"),
        ("POST", f"/models/iris/versions/{name}/release"),
        ("GET", f"/models/{name}/rollout"),
        ("POST", f"/models/{name}/rollout"),
        ("GET", f"/models/{name}/history"),
        ("GET", f"/models/{name}"),
        ("GET", f"/models/iris/versions/{name}"),
        ("POST", f"/models/{name}/predict"),
        ("POST", f"/models/iris/versions/{name}/predict"),
    ]:
        response = call(app, method, path, json={"version": "2"} if method == "POST" else None, headers=ADMIN)
        assert response.status_code in (200, 404, 405, 422), (method, path)
        if response.status_code != 200:  # "/models/active" and "/models/.." are paths of their own
            assert response.headers["content-type"] == "application/problem+json"
    expected = [("history", HistoryQuery())] if name == ".." else []  # "/models/../history" is "/history"
    assert app.state.services.operator.calls == expected

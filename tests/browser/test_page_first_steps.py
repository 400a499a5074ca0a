"""A server without models, and one that has lost its decisions: the page says what to do, and sees it done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import joblib
import pytest

from serving import __version__
from tests.browser.browsing import Browser, Page, PageWatch, expect
from tests.e2e.harness import Server, linear, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Server]:
    """A server whose store is empty: it runs, and is not ready."""
    with serving(tmp_path_factory.mktemp("empty")) as running:
        yield running


def test_an_empty_store_asks_for_a_first_file_and_shows_it(page: Page, server: Server) -> None:
    expect(page.get_by_label("The store is empty.")).to_contain_text("serving demo")
    expect(page.locator(".head-facts")).to_contain_text("Not ready")
    expect(page.get_by_label("Filter models")).to_be_hidden()
    joblib.dump(linear(), server.store / "first.joblib")
    expect(page.get_by_role("link", name="first", exact=True)).to_be_visible()
    expect(page.locator(".cell-active")).to_contain_text("active")
    expect(page.get_by_label("The store is empty.")).to_have_count(0)
    expect(page.locator(".head-facts")).to_contain_text("1 of 1 model active")


def test_lost_decisions_are_said_with_the_command_that_accepts_it(page: Page, server: Server, watch: PageWatch) -> None:
    watch.allow_lost_connections()
    server.wait_ready()
    expect(page.locator("#connection")).to_have_text("Live")
    server.stop()
    for path in server.state.glob("state.sqlite*"):
        path.unlink()
    (server.state / "state.sqlite").write_bytes(b"this is no database" * 1000)
    server.start(port=urlsplit(server.url).port or 0)
    banner = page.get_by_label("Held: operators’ decisions have been lost")
    expect(banner.locator("code")).to_have_text("serving accept-state-loss")
    page.get_by_label("Views").get_by_role("link", name="Store").click()
    expect(page.locator(".card", has_text="State database")).to_contain_text("Held")
    assert server.operate("POST", "/accept-state-loss").is_success
    expect(page.locator(".card", has_text="State database")).to_contain_text("Kept")
    page.get_by_label("Views").get_by_role("link", name="Models").click()
    expect(page.locator(".model-link")).to_have_text(["first"])
    expect(banner).to_have_count(0)


# --- a view whose module does not arrive ------------------------------------------------------------------------------

HISTORY = "**/views/history_view.js"


def open_history_without_its_module(page: Page, watch: PageWatch) -> None:
    watch.allow_lost_connections()
    page.route(HISTORY, lambda route: route.abort())
    page.get_by_label("Views").get_by_role("link", name="History").click()
    expect(page.locator("h1")).to_have_text("The view could not be shown")
    page.unroute(HISTORY)


def test_a_view_that_did_not_arrive_can_be_tried_again(page: Page, watch: PageWatch) -> None:
    open_history_without_its_module(page, watch)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("h1")).to_have_text("History")


def test_a_view_that_did_not_arrive_is_shown_when_the_server_is_back(
    page: Page, server: Server, watch: PageWatch
) -> None:
    expect(page.locator("#connection")).to_have_text("Live")
    open_history_without_its_module(page, watch)
    server.stop()
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    server.start(port=urlsplit(server.url).port or 0)
    expect(page.locator("h1")).to_have_text("History")


def test_a_server_of_another_version_asks_for_the_page_to_be_loaded_again(
    page: Page, server: Server, watch: PageWatch
) -> None:
    watch.allow_lost_connections()
    expect(page.locator(".foot")).to_contain_text(__version__)
    notice = page.get_by_label("The server has version 999.1 now")
    expect(notice).to_have_count(0)
    start = {"server_version": "999.1", "models": [], "page": None}
    page.route("**/events*", lambda route: route.fulfill(content_type="text/event-stream", body=event("start", start)))
    server.stop()
    server.start(port=urlsplit(server.url).port or 0)
    expect(notice).to_contain_text(f"This page is that of version {__version__}.")
    notice.get_by_role("button", name="Load again").click()
    page.unroute("**/events*")  # not before: the notice goes when the page hears of its own version again
    expect(page.locator("#connection")).to_have_text("Live")
    expect(notice).to_have_count(0)


def event(kind: str, content: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"

"""A server without models, and one that has lost its decisions: the page says what to do, and sees it done."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import joblib
import pytest

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

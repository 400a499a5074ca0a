"""Signing in and out where reading needs a token, on a server of two workers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import httpx
import psutil
import pytest

from tests.browser.browsing import Page, PageWatch, expect, sign_in
from tests.browser.demo_models import COMPILED
from tests.e2e.harness import TOKEN, Server, until

READ_TOKEN = "token-for-reading"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """Reading needs a token; two processes answer."""
    return {"SERVING_SECURITY__READ_TOKEN": READ_TOKEN, "SERVING_SERVER__WORKERS": "2"}


def enter_token(page: Page, token: str) -> None:
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog.get_by_label("Token")).to_be_focused()
    dialog.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def test_nothing_is_shown_or_asked_before_the_sign_in(open_page: Open) -> None:
    asked: list[str] = []
    page = open_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/ui/#/store")
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to look")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert [url for url in asked if "/ui/" not in url] == []


def test_a_token_opens_the_view_that_was_asked_for(open_page: Open, watch: PageWatch) -> None:
    watch.allow_status(401)
    page = open_page("/ui/#/history")
    enter_token(page, "wrong")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_have_text("The server does not know this token.")
    expect(dialog.get_by_label("Token")).to_have_attribute("type", "password")
    dialog.get_by_label("Token").fill(READ_TOKEN)
    dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.get_by_text(f"{COMPILED} 2 became active")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Live")
    assert page.evaluate("document.cookie") == ""  # scripts cannot read it
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.documentElement.outerHTML])")
    assert READ_TOKEN not in kept
    assert READ_TOKEN not in page.url


def test_signing_out_shows_nothing_any_more(open_page: Open) -> None:
    page = open_page("/ui/")
    enter_token(page, TOKEN)
    expect(page.locator(".model-link").first).to_be_visible()
    expect(page.get_by_text("Admin", exact=True)).to_be_visible()
    links = page.get_by_label("Views").get_by_role("link")
    expect(links.first).to_have_text(re.compile(r"Models\d"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to look")).to_be_visible()
    expect(page.locator(".model-link")).to_have_count(0)
    expect(links.first).to_have_text("Models")
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to look")).to_be_visible()


def test_a_session_that_ends_leaves_the_view_and_says_so(open_page: Open, watch: PageWatch) -> None:
    watch.allow_status(401)
    page = open_page("/ui/")
    sign_in(page, READ_TOKEN)
    page.get_by_role("link", name="History").click()
    entry = page.get_by_text(f"{COMPILED} 2 became active")
    expect(entry).to_be_visible()
    page.context.clear_cookies()
    page.get_by_label("Actor").fill("system")
    notice = page.get_by_label("Your session has ended")
    expect(notice).to_be_visible()
    expect(entry).to_be_visible()
    notice.get_by_role("button", name="Sign in").click()
    page.get_by_role("dialog").get_by_label("Token").fill(READ_TOKEN)
    page.keyboard.press("Enter")
    expect(notice).to_have_count(0)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(entry).to_be_visible()


def test_the_dialog_closes_without_a_token(open_page: Open) -> None:
    page = open_page("/ui/")
    button = page.get_by_role("main").get_by_role("button", name="Sign in")
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.get_by_role("button", name="Cancel").click()):
        button.click()
        page.get_by_role("dialog").get_by_label("Token").fill("half a tok")
        close()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(button).to_be_focused()
    button.click()
    expect(page.get_by_role("dialog").get_by_label("Token")).to_have_value("")


def test_every_worker_is_a_row_and_its_death_is_told(open_page: Open, server: Server, watch: PageWatch) -> None:
    watch.allow_lost_connections()  # the worker may be the one with the stream
    page = open_page("/ui/#/workers")
    sign_in(page, READ_TOKEN)
    rows = page.locator(".workers tbody tr")
    expect(rows).to_have_count(2)
    for place in range(2):
        expect(rows.nth(place).locator(".cell-state")).to_have_text("Serving")
    headers = {"Authorization": f"Bearer {READ_TOKEN}", "Connection": "close"}  # not that of the killed worker

    def find_workers() -> list[dict[str, object]]:
        found: list[dict[str, object]] = server.client.get(f"{server.url}/workers", headers=headers).json()["workers"]
        return found

    generation = {worker["generation"] for worker in find_workers()}
    expect(rows.first.locator(".cell-generation")).to_have_text(str(*generation))
    psutil.Process(int(str(find_workers()[1]["pid"]))).kill()

    def is_replaced() -> bool:
        with contextlib.suppress(httpx.TransportError):  # the connection was the killed worker's
            return bool(find_workers()[1]["restarts"])
        return False

    until(is_replaced, "the worker being replaced")
    expect(rows.nth(1).locator(".cell-restarts")).to_have_text("1")
    expect(rows.nth(1).locator(".cell-state")).to_have_text("Serving")
    expect(page.get_by_text(re.compile("2 of 2 serve .* 1 restart"))).to_be_visible()

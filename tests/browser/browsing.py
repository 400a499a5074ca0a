"""Drives a real Chromium, and notices whatever a page should not do. Skips what imports it where Playwright is missing.

    from tests.browser.browsing import Page, expect, sign_in

Wait with `expect` and locators.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="no Playwright here: make install")

from playwright.sync_api import (
    Browser,
    BrowserContext,
    BrowserType,
    ConsoleMessage,
    Page,
    Request,
    WebError,
    expect,
    sync_playwright,
)

from tests.e2e.harness import TOKEN

__all__ = [
    "Browser",
    "BrowserContext",
    "Page",
    "PageWatch",
    "expect",
    "find_chromium",
    "launch",
    "new_context",
    "open_browser",
    "sign_in",
    "sync_playwright",
]

WAIT_MILLISECONDS = 30_000  # the most: other tests may take all processors
PAGE = "/ui/"
_OWN_SCHEMES = ("about", "blob", "data")  # nobody is asked for these

# The browser tells the page of what its policy forbade; the console has the rest.
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
    "CSP report:", event.violatedDirective, event.blockedURI, event.sourceFile, event.lineNumber, event.sample))
"""


class PageWatch:
    """Collects the faults of every page of the contexts it follows, and fails for those that no test has allowed."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._hosts: set[str] = set()
        self._allowed: list[re.Pattern[str]] = []
        self._contexts: list[BrowserContext] = []

    def follow(self, context: BrowserContext, url: str) -> None:
        """Watch all pages that `context` opens from now on; they may ask the host of `url` only."""
        self._hosts.add(urlsplit(url).netloc)
        self._contexts.append(context)
        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("console", self._note_message)
        context.on("weberror", self._note_error)
        context.on("request", self._note_request)

    def allow(self, *patterns: str) -> None:
        """Expect faults that match one of these regular expressions, in the whole test."""
        self._allowed += [re.compile(pattern) for pattern in patterns]

    def allow_status(self, *statuses: int) -> None:
        """Expect answers with these statuses, for which Chromium writes an error to the console."""
        self.allow(
            *(rf"Failed to load resource: the server responded with a status of {status} " for status in statuses)
        )

    def allow_lost_connections(self) -> None:
        """Expect that the server cannot be reached for a while, as when it restarts."""
        self.allow(r"net::ERR_")

    def allow_host(self, url: str) -> None:
        """Let pages ask the host of `url`, too."""
        self._hosts.add(urlsplit(url).netloc)

    def settle(self) -> None:
        """Wait until open pages have told their faults so far."""
        for context in self._contexts:
            for page in context.pages:
                with contextlib.suppress(Exception):  # it is closing, or has no document: there is nothing to wait for
                    page.evaluate("1")

    def list_unexpected(self) -> list[str]:
        """Return the faults so far that no test has allowed."""
        self.settle()
        return [fault for fault in self.faults if not any(pattern.search(fault) for pattern in self._allowed)]

    def check(self) -> None:
        """Fail if there are unexpected faults."""
        unexpected = self.list_unexpected()
        assert not unexpected, "the page did what it should not:\n" + "\n".join(unexpected)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            where = message.location
            self.faults.append(f"console {message.type}: {message.text} ({where['url']}:{where['lineNumber']})")

    def _note_error(self, error: WebError) -> None:
        self.faults.append(f"uncaught error: {error.error.stack or error.error.message}")

    def _note_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in _OWN_SCHEMES and url.netloc not in self._hosts:
            self.faults.append(f"request to another host: {request.method} {request.url}")


def find_chromium() -> str:
    """Return Chromium's path; skip the test where there is none. The variable CHROMIUM names another one."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium here (Debian's package chromium)")
    return found


def launch(chromium: BrowserType, *arguments: str) -> Browser:
    """Start a headless Chromium of its own; `chromium` is ``browser.browser_type`` where one runs already."""
    return chromium.launch(
        executable_path=find_chromium(),
        chromium_sandbox=os.geteuid() != 0,  # root cannot have it
        args=list(arguments),
        timeout=60_000,
    )


@contextlib.contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    """Run Chromium for the length of a ``with`` block. No asyncio loop of this thread may run in it."""
    find_chromium()
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MILLISECONDS)
        browser = launch(playwright.chromium, *arguments)
        try:
            yield browser
        finally:
            browser.close()


def new_context(browser: Browser, watch: PageWatch, url: str, **options: Any) -> BrowserContext:
    """Return a context whose relative addresses begin at `url`, and whose pages are watched."""
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(WAIT_MILLISECONDS)
    watch.follow(context, url)
    return context


def sign_in(page: Page, token: str = TOKEN) -> None:
    """Give the page a session with the scopes of `token`, then load it anew. The dialog has a test of its own."""
    base = page.url.partition("/ui/")[0]
    answer = page.request.post(f"{base}/ui/session", data={"token": token}, headers={"Origin": base})
    assert answer.ok, answer.text()
    page.reload()

"""Fixtures of tests in a browser: one server and one Chromium for each module, watched pages for each test.

A module changes its server by a fixture `server_environment` of its own (settings as variables), or `fill`, which puts
models into the store before the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.demo_models import fill_store
from tests.e2e.harness import Server, serving

if TYPE_CHECKING:
    from tests.browser.browsing import Browser, Page, PageWatch


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """Settings of the module's server besides those of the harness, as SERVING_ variables."""
    return {}


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    """What puts models into the store before the server starts."""
    return fill_store


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    server_environment: dict[str, str],
    fill: Callable[[Path], None],
    browser: Browser,
) -> Iterator[Server]:
    """The module's server, ready. It depends on the browser so that nothing starts where there is none."""
    directory = tmp_path_factory.mktemp("browser")
    fill(directory / "store")
    with serving(directory, wait_ready=True, **server_environment) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The module's Chromium. Playwright's loop runs in this thread until the module's tests have ended."""
    from tests.browser.browsing import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture
def watch() -> Iterator[PageWatch]:
    """What notices faults of the test's pages; allow expected ones with it. The test fails at its end for others."""
    from tests.browser.browsing import PageWatch

    watching = PageWatch()
    yield watching
    watching.check()


@pytest.fixture
def open_page(browser: Browser, server: Server, watch: PageWatch) -> Iterator[Callable[..., Page]]:
    """``open_page(path, **options)``: open a watched page in a context of its own, with options of a context.

    `url` names another server than the module's.
    """
    from tests.browser.browsing import PAGE, new_context

    contexts = []

    def open_one(path: str = PAGE, *, url: str | None = None, **options: Any) -> Page:
        contexts.append(new_context(browser, watch, url or server.url, **options))
        page = contexts[-1].new_page()
        page.goto(path)
        return page

    yield open_one
    watch.settle()
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The page at ``/ui/``, open and watched."""
    return open_page()

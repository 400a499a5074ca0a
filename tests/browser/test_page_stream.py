"""The page follows the server through restarts and through proxies, misses nothing, and says how it does so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.browser.browsing import Page, PageWatch, expect
from tests.browser.demo_models import HOSTED
from tests.browser.holding_proxy import HoldingProxy, Treatment, holding_proxy
from tests.e2e.harness import Server, constant, until

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """A page that only shows."""
    return {"SERVING_SERVER__UI": "read"}


@pytest.fixture
def proxy(server: Server) -> Iterator[HoldingProxy]:
    with holding_proxy(server.url) as running:
        yield running


def connection(page: Page) -> Page:
    return page.locator("#connection")


def active(page: Page, model: str) -> Page:
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
    return row.locator(".cell-active")


def count_versions(server: Server) -> int:
    """Return the newest version of the hosted model; the next test publishes the one after it."""
    return max(int(one["version"]) for one in server.model(HOSTED)["versions"])


def publish_next(server: Server) -> str:
    version = count_versions(server) + 1
    server.drop(HOSTED, version, constant(version))
    return str(version)


def open_with_clock(open_page: Open, url: str) -> Page:
    """Open the page with a clock that can be put forward."""
    page = open_page("/ui/", url=url)
    page.clock.install()
    page.reload()
    return page


def list_ids(page: Page) -> list[int]:
    return [int(one) for one in page.locator(".entry").evaluate_all("all => all.map((one) => one.dataset.id)")]


def test_nothing_is_missed_while_the_server_restarts(open_page: Open, server: Server, watch: PageWatch) -> None:
    watch.allow_lost_connections()
    models, history = open_page("/ui/"), open_page("/ui/#/history")
    for page in (models, history):
        expect(connection(page)).to_have_text("Live")
        page.evaluate("window.isTheSame = true")
    port = urlsplit(server.url).port or 0
    server.kill()
    for page in (models, history):
        expect(connection(page)).to_have_text("Reconnecting")
        expect(page.get_by_label("Reconnecting to the server")).to_contain_text("What is shown was true")
        page.context.set_offline(True)  # so that all of it happens while no page looks
    version = str(max(int(one.name) for one in (server.store / HOSTED).iterdir() if one.name.isdecimal()) + 1)
    server.drop(HOSTED, version, constant(5))
    server.start(wait_ready=True, port=port)
    server.wait_active(HOSTED, version)
    for page in (models, history):
        page.context.set_offline(False)
    expect(active(models, HOSTED)).to_have_text(f"{version} active")
    expect(history.get_by_text(f"{HOSTED} {version} became active")).to_be_visible()
    for page in (models, history):
        expect(connection(page)).to_have_text("Live")
        expect(page.get_by_label("Reconnecting to the server")).to_have_count(0)
        assert page.evaluate("window.isTheSame")

    def shows_the_newest() -> list[int] | None:  # another entry may come at any time
        shown = list_ids(history)
        told = [entry["id"] for entry in server.get("/history?limit=1000")["history"]]
        return shown if shown == told[: len(shown)] else None

    shown = until(shows_the_newest, "the newest entries of the history on the page")
    assert len(shown) == len(set(shown))


def test_a_stop_ends_streams_and_the_next_start_goes_on(open_page: Open, server: Server, watch: PageWatch) -> None:
    watch.allow_lost_connections()
    page = open_page("/ui/")
    expect(connection(page)).to_have_text("Live")
    port = urlsplit(server.url).port or 0
    assert server.stop() == 0
    expect(connection(page)).to_have_text("Reconnecting")
    server.start(wait_ready=True, port=port)
    expect(connection(page)).to_have_text("Live")


def test_a_held_stream_is_replaced_by_asking(open_page: Open, server: Server, proxy: HoldingProxy) -> None:
    proxy.treatment = Treatment.HOLD
    page = open_with_clock(open_page, proxy.url)
    expect(connection(page)).to_have_text("Connecting")
    page.clock.fast_forward(15_000)
    expect(connection(page)).to_have_text("Polling")
    expect(connection(page)).to_have_attribute("title", re.compile("asks every two seconds"))
    version = publish_next(server)
    expect(active(page, HOSTED)).to_have_text(f"{version} active")
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text(f"{HOSTED} {version} became active")).to_be_visible()
    version = publish_next(server)
    expect(page.get_by_text(f"{HOSTED} {version} became active")).to_be_visible()


def test_a_stream_is_tried_again_beside_the_asking(open_page: Open, server: Server, proxy: HoldingProxy) -> None:
    proxy.treatment = Treatment.HOLD
    page = open_with_clock(open_page, proxy.url)
    page.clock.fast_forward(15_000)
    expect(connection(page)).to_have_text("Polling")
    streams = proxy.streams
    page.clock.fast_forward(61_000)
    until(lambda: proxy.streams == streams + 1, "another stream")
    version = publish_next(server)
    expect(active(page, HOSTED)).to_have_text(f"{version} active")  # it is held, too, and the page goes on to ask
    expect(connection(page)).to_have_text("Polling")
    proxy.treatment = Treatment.PASS
    page.clock.fast_forward(61_000)
    expect(connection(page)).to_have_text("Live")
    version = publish_next(server)
    expect(active(page, HOSTED)).to_have_text(f"{version} active")


def test_a_refused_stream_is_tried_three_times(
    open_page: Open, server: Server, proxy: HoldingProxy, watch: PageWatch
) -> None:
    watch.allow_status(502)
    proxy.treatment = Treatment.REFUSE
    page = open_page("/ui/", url=proxy.url)
    expect(connection(page)).to_have_text("Polling")
    assert proxy.streams == 3
    version = publish_next(server)
    expect(active(page, HOSTED)).to_have_text(f"{version} active")


def test_a_stream_that_dies_without_a_word_is_noticed(open_page: Open, server: Server, proxy: HoldingProxy) -> None:
    """Its connection stays open, so the browser sees no end; the history has an entry that did not come."""
    page = open_with_clock(open_page, proxy.url)
    expect(connection(page)).to_have_text("Live")
    version = publish_next(server)
    expect(active(page, HOSTED)).to_have_text(f"{version} active")
    proxy.treatment = Treatment.FREEZE
    streams = proxy.streams
    version = publish_next(server)
    server.wait_active(HOSTED, version)
    until(lambda: proxy.frozen, "the stream being cut off")
    proxy.treatment = Treatment.PASS
    page.clock.fast_forward(20_000)  # silence: the page asks whether it is owed something
    expect(active(page, HOSTED)).to_have_text(f"{version} active")
    assert proxy.streams == streams + 1


def test_a_page_that_nobody_sees_gives_its_connection_back(
    open_page: Open, server: Server, proxy: HoldingProxy
) -> None:
    """Browsers open six connections to a server at most, so hidden tabs would lock out others."""

    def set_hidden(is_hidden: bool) -> None:
        page.evaluate(
            "(is) => { Object.defineProperty(document, 'hidden', {value: is, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')) }",
            is_hidden,
        )

    page = open_with_clock(open_page, proxy.url)
    expect(connection(page)).to_have_text("Live")
    streams = proxy.streams
    set_hidden(True)
    page.clock.fast_forward(30_000)
    expect(connection(page)).to_have_text("Paused")
    version = publish_next(server)
    server.wait_active(HOSTED, version)
    expect(active(page, HOSTED)).not_to_have_text(f"{version} active")
    set_hidden(False)
    expect(connection(page)).to_have_text("Live")
    expect(active(page, HOSTED)).to_have_text(f"{version} active")
    assert proxy.streams == streams + 1
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text(f"{HOSTED} {version} became active")).to_be_visible()


def test_a_page_that_only_shows_says_why(open_page: Open) -> None:
    page = open_page("/ui/")
    chip = page.get_by_text("Read only")
    expect(chip).to_have_attribute("title", re.compile(r'server\.ui = "read"'))

"""The views of models, history, store and workers show what a real server does, while it does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.browsing import Page, expect
from tests.browser.demo_models import COMPILED, HOSTED, NUMBERS, REFUSED, fill_store
from tests.e2e.harness import Server, constant, linear

MARKUP = "<img src=x onerror=alert(1)>"
VIEWS = ("#/", "#/history", "#/store", "#/workers")
NARROW = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    """Beside the models there is a file that is none, whose name is markup."""

    def fill_all(store: Path) -> None:
        fill_store(store)
        (store / f"{MARKUP}.txt").write_text("no model")

    return fill_all


def row(page: Page, model: str) -> Page:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))


def cell(page: Page, model: str, column: str) -> Page:
    return row(page, model).locator(f".cell-{column}")


def list_names(page: Page) -> list[str]:
    return page.locator(".model-link").all_inner_texts()


def wait_for_all(page: Page) -> None:
    """Until the stream has told everything that was there at the start."""
    expect(page.locator("#connection")).to_have_text("Live")
    expect(row(page, COMPILED)).to_have_count(1)


# --- models -----------------------------------------------------------------------------------------------------------


def test_every_model_is_a_row_that_says_what_answers(page: Page, server: Server) -> None:
    server.wait_state(*REFUSED, "REJECTED")
    expect(cell(page, COMPILED, "active")).to_have_text("2 active")
    expect(cell(page, COMPILED, "engine")).to_have_text("onnx")
    expect(cell(page, HOSTED, "engine")).not_to_have_text("onnx")
    expect(page.locator(".head-facts")).to_contain_text("Ready")
    expect(page.locator(".head-facts")).to_contain_text(re.compile(r"\d+ of \d+ models active"))
    assert page.title() == "Models · serving"


def test_a_refused_version_is_shown_with_its_gate_and_reason(page: Page, server: Server) -> None:
    failed = server.wait_state(*REFUSED, "REJECTED")
    shown = cell(page, REFUSED[0], "failure")
    expect(shown).to_contain_text(failed["reason"].partition(": ")[2])
    expect(shown.locator(".version")).to_have_text(REFUSED[1])


def test_a_dropped_version_becomes_active_before_the_eyes(page: Page, server: Server) -> None:
    wait_for_all(page)
    page.evaluate("window.isTheSame = true")
    server.drop(HOSTED, 2, constant(2))
    expect(cell(page, HOSTED, "active")).to_have_text("2 active")
    server.drop("new_one", 1, linear())
    expect(cell(page, "new_one", "active")).to_have_text("1 active")
    assert page.evaluate("window.isTheSame")


def test_reasons_and_names_of_files_are_text(page: Page, server: Server) -> None:
    wait_for_all(page)
    broken = server.store / NUMBERS / "2"
    broken.mkdir()
    (broken / f"{MARKUP}.joblib").write_bytes(f"{MARKUP}\n".encode())
    expect(cell(page, NUMBERS, "failure").locator(".version")).to_have_text("2")
    expect(page.locator(".banners")).to_contain_text(MARKUP)
    assert page.locator("main img, .banners img").count() == 0


def test_requests_are_counted_while_they_run(page: Page, server: Server) -> None:
    wait_for_all(page)
    busy = cell(page, HOSTED, "requests")
    while not re.fullmatch(r"[\d.,]*[1-9][\d.,]*", busy.inner_text()):
        assert server.predict(HOSTED).status_code == 200
    expect(cell(page, HOSTED, "p99")).to_contain_text(re.compile("ms|µs|s"))
    expect(cell(page, HOSTED, "errors")).to_have_text("0")


def test_columns_sort_and_the_address_remembers_how(page: Page) -> None:
    wait_for_all(page)
    assert list_names(page) == sorted(list_names(page))
    head = page.get_by_role("columnheader", name="Model")
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert list_names(page) == sorted(list_names(page), reverse=True)
    page.reload()
    wait_for_all(page)
    assert list_names(page) == sorted(list_names(page), reverse=True)


def test_what_is_not_known_is_sorted_last_either_way(page: Page, server: Server) -> None:
    server.wait_state(*REFUSED, "REJECTED")
    wait_for_all(page)
    expect(cell(page, COMPILED, "failure")).not_to_have_text("–")
    failed = {model["name"] for model in server.get("/models/active")["models"] if model["last_failure"]}
    assert len(failed) < len(list_names(page))
    head = page.get_by_role("columnheader", name="Last failure")
    for _ in range(2):
        head.get_by_role("button").click()
        assert set(list_names(page)[: len(failed)]) == failed


def test_a_filter_leaves_what_matches_and_is_a_link(page: Page, open_page: Callable[..., Page]) -> None:
    wait_for_all(page)
    page.keyboard.press("/")
    page.keyboard.type("PRICES 2")
    expect(page.locator(".model-link")).to_have_text([HOSTED])
    expect(page.locator(".shown-count")).to_contain_text("1 of ")
    other = open_page(f"/ui/{page.evaluate('location.hash')}")
    expect(other.locator(".model-link")).to_have_text([HOSTED])
    other.get_by_label("Filter models").fill("nothing like it")
    expect(other.get_by_text("No model matches the filter.")).to_be_visible()


# --- history ----------------------------------------------------------------------------------------------------------


def test_every_entry_of_the_history_reads_as_a_sentence(open_page: Callable[..., Page], server: Server) -> None:
    server.wait_state(*REFUSED, "REJECTED")
    page = open_page(f"/ui/#/history?model={COMPILED}")
    expect(page.get_by_text(f"{COMPILED} 2 became active")).to_be_visible()
    refused = page.locator(".entry").filter(has_text=f"{REFUSED[0]} {REFUSED[1]} was refused")
    expect(refused).to_contain_text(server.version(*REFUSED)["reason"])


def test_new_entries_come_by_themselves_where_they_pass_the_filters(
    open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page(f"/ui/#/history?event=pin&model={COMPILED}")
    expect(page.get_by_text("Nothing matches the filters.")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Live")
    assert server.operate("POST", f"/models/{NUMBERS}/pin", {"version": "1"}).is_success
    assert server.operate("POST", f"/models/{COMPILED}/pin", {"version": "2"}).is_success
    entry = page.locator(".entry")
    expect(entry).to_have_text(re.compile(rf"Pinned {COMPILED} 2 by admin@127\.0\.0\.1$"))
    for model in (NUMBERS, COMPILED):
        assert server.operate("DELETE", f"/models/{model}/pin").is_success


def test_filters_are_fields_and_the_address(page: Page, server: Server) -> None:
    page.get_by_role("link", name="History").click()
    page.get_by_label("Model", exact=True).fill(HOSTED)
    page.get_by_label("State", exact=True).select_option("ACTIVE")
    expect(page).to_have_url(f"{server.url}/ui/#/history?model={HOSTED}&state=ACTIVE")
    expect(page.locator(".entry").first).to_contain_text("became active")
    expect(page.locator(".entry").filter(has_text=COMPILED)).to_have_count(0)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".entry").filter(has_text=COMPILED).first).to_be_visible()
    assert page.evaluate("location.hash") == "#/history"


def test_times_are_filtered_and_shown_in_the_zone_that_is_said(open_page: Callable[..., Page], server: Server) -> None:
    newest, *_ = server.get("/history?limit=1")["history"]
    until = newest["at"][:19] + "Z"
    page = open_page(f"/ui/#/history?until={quote(until)}", timezone_id="Asia/Tokyo")
    expect(page.get_by_text("Times are in Asia/Tokyo (UTC+9).")).to_be_visible()
    expect(page.locator(".entry").first).to_be_visible()
    expect(page.locator(f'.entry[data-id="{newest["id"]}"]')).to_have_count(0)
    shown = page.locator(".entry time").first
    local, field = shown.inner_text(), page.get_by_label("Until")
    entered = field.input_value()
    page.get_by_role("button", name="Times are in").click()
    expect(page.get_by_text("Times are in UTC.")).to_be_visible()
    utc = shown.inner_text()
    assert (int(local[:2]) - int(utc[:2])) % 24 == 9
    assert local[2:] == utc[2:]
    assert field.input_value() != entered
    assert field.input_value().startswith(until[:16])
    page.reload()
    expect(page.get_by_text("Times are in UTC.")).to_be_visible()


def test_older_entries_come_when_somebody_asks(open_page: Callable[..., Page], server: Server) -> None:
    server.wait_active(COMPILED, 2)
    for _ in range(48):
        assert server.operate("POST", f"/models/{COMPILED}/pin", {"version": "2"}).is_success
        assert server.operate("DELETE", f"/models/{COMPILED}/pin").is_success
    page = open_page(f"/ui/#/history?model={COMPILED}")
    expect(page.locator(".entry")).to_have_count(100)
    page.get_by_role("button", name="Show older").click()
    expect(page.get_by_text("That is all.")).to_be_visible()
    ids = [int(one) for one in page.locator(".entry").evaluate_all("all => all.map((one) => one.dataset.id)")]
    assert ids == sorted(ids, reverse=True)
    assert ids == [entry["id"] for entry in server.get(f"/history?model={COMPILED}&limit=1000")["history"]]


# --- store and workers ------------------------------------------------------------------------------------------------


def test_the_store_tells_its_problems_and_what_to_do(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page("/ui/#/store")
    problem = page.get_by_role("listitem").filter(has_text=MARKUP).first
    expect(problem).to_contain_text(server.get("/models")["store"]["problems"][0])
    expect(page.locator(".card", has_text="Listing")).to_contain_text("Available")
    expect(page.locator(".card", has_text="Sandbox")).to_contain_text("seccomp")
    assert page.locator("main img").count() == 0


def test_a_store_that_is_away_is_said_with_what_to_do(page: Page, server: Server) -> None:
    wait_for_all(page)
    aside = server.store.with_name("aside")
    server.store.rename(aside)
    try:
        banner = page.get_by_label("The store cannot be listed")
        expect(banner).to_be_visible()
        expect(cell(page, COMPILED, "active")).to_have_text("2 active")
        page.get_by_role("link", name="Store", exact=True).first.click()
        expect(page.get_by_text("serving refresh")).to_be_visible()
    finally:
        aside.rename(server.store)
    expect(page.locator(".card", has_text="Listing")).to_contain_text("Available", timeout=60_000)


def test_one_worker_is_said_to_be_one(open_page: Callable[..., Page]) -> None:
    page = open_page("/ui/#/workers")
    expect(page.get_by_text("One process answers")).to_be_visible()
    expect(page.locator("table")).to_be_hidden()


# --- using it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_a_narrow_screen_shows_everything_without_scrolling_sideways(open_page: Callable[..., Page], view: str) -> None:
    page = open_page(f"/ui/{view}", viewport=NARROW)
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    too_wide = "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.className)"
    assert page.locator(".table-box, .card, .entries").evaluate_all(too_wide) == []


def test_it_is_dark_where_that_is_preferred(open_page: Callable[..., Page]) -> None:
    def brightness(page: Page) -> tuple[int, int]:
        colours = page.evaluate(
            "['backgroundColor', 'color'].map((key) => getComputedStyle(document.body)[key].match(/\\d+/g).map(Number))"
        )
        return sum(colours[0]), sum(colours[1])

    background, text = brightness(open_page(color_scheme="dark"))
    assert background < 120
    assert text > 600
    background, text = brightness(open_page(color_scheme="light"))
    assert text < 120
    assert background > 600


def test_focus_and_title_follow_the_view(page: Page) -> None:
    wait_for_all(page)
    for name in ("History", "Store", "Workers", "Models"):
        link = page.get_by_label("Views").get_by_role("link", name=name)
        link.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        expect(page).to_have_title(f"{name} · serving")
        expect(link).to_have_attribute("aria-current", "page")


def test_the_first_stop_of_the_keyboard_skips_to_the_content(page: Page) -> None:
    wait_for_all(page)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    assert page.evaluate("location.hash") in ("", "#/")


@pytest.mark.parametrize("name", [quote(MARKUP), "constructor"])
def test_a_view_that_does_not_exist_says_so(open_page: Callable[..., Page], name: str) -> None:
    page = open_page(f"/ui/#/{name}")
    expect(page.get_by_text("This page has no view called")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="All models").click()
    expect(page.locator(".model-link").first).to_be_visible()

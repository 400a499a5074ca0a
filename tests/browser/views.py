"""Opens each view of the page, on a server that has something to show in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.browser.browsing import Page, expect
from tests.browser.demo_models import COMPILED, HOSTED, REFUSED, fill_store
from tests.e2e.harness import Server, constant, write_version

ROLLED_OUT = "canary"
ENVIRONMENT = {
    "SERVING_SERVER__WORKERS": "2",
    "SERVING_STORE__UPLOADS": "true",
    "SERVING_MODELS__CANARY__ROLLOUT__STRATEGY": "canary",
    "SERVING_MODELS__CANARY__ROLLOUT__STEP_SECONDS": "3600",
}


def fill_views(store: Path) -> None:
    """Fill the demo store, and add a model for a rollout and a name that is a problem of the store."""
    fill_store(store)
    write_version(store / ROLLED_OUT, 1, constant(1))
    (store / "not a name!").mkdir()


def begin_views(server: Server) -> None:
    """Wait until a version was refused, and begin a rollout."""
    server.wait_state(*REFUSED, "REJECTED")
    server.wait_active(HOSTED, 1)
    server.wait_active(ROLLED_OUT, 1)
    server.drop(ROLLED_OUT, 2, constant(2))
    server.wait_state(ROLLED_OUT, 2, "CANARY")
    for _ in range(20):
        server.predict(ROLLED_OUT)
    assert server.operate("PUT", f"/models/{COMPILED}/labels/champion", {"version": "1"}).is_success


def open_models(page: Page) -> None:
    expect(page.locator("table tbody tr")).to_have_count(4)


def open_model(page: Page) -> None:
    page.goto(f"/ui/#/models/{COMPILED}")
    expect(page.locator(".version-row")).to_have_count(3)
    page.locator('.version-row[data-version="2"] .version-button').click()
    expect(page.locator(".version-details")).to_be_visible()


def open_refused(page: Page) -> None:
    page.goto(f"/ui/#/models/{COMPILED}?version={REFUSED[1]}")
    expect(page.locator(".version-details")).to_be_visible()


def open_answer(page: Page) -> None:
    open_model(page)
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator(".try-value").first).to_be_visible()


def open_rollout(page: Page) -> None:
    page.goto(f"/ui/#/models/{ROLLED_OUT}")
    expect(page.locator("#rollout")).to_contain_text("Promote")


def open_unknown_model(page: Page) -> None:
    page.goto("/ui/#/models/nothing")
    expect(page.locator(".outcome, .banner").first).to_be_visible()


def open_history(page: Page) -> None:
    page.goto("/ui/#/history")
    expect(page.locator("#main")).to_contain_text(COMPILED)


def open_store(page: Page) -> None:
    page.goto("/ui/#/store")
    expect(page.locator("#main")).to_contain_text("not a name!")


def open_workers(page: Page) -> None:
    page.goto("/ui/#/workers")
    expect(page.locator("table tbody tr")).to_have_count(2)


def open_nothing(page: Page) -> None:
    page.goto("/ui/#/elsewhere")
    expect(page.locator("h1")).to_have_text("Nothing here")


def open_sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def open_deed(page: Page) -> None:
    open_model(page)
    page.locator('[data-deed="rollback"] > .button').click()
    expect(page.get_by_role("dialog")).to_be_visible()


VIEWS: list[Callable[[Page], None]] = [
    open_models,
    open_model,
    open_refused,
    open_answer,
    open_rollout,
    open_unknown_model,
    open_history,
    open_store,
    open_workers,
    open_nothing,
    open_sign_in,
    open_deed,
]

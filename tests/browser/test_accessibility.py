"""Each view can be used by everybody: no rule of axe-core is broken, in light and dark, on wide and narrow screens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.axe import find_violations, needs_axe
from tests.browser.browsing import Page, expect, sign_in
from tests.browser.demo_models import COMPILED, HOSTED, REFUSED, fill_store
from tests.e2e.harness import Server, constant, write_version

pytestmark = needs_axe

ROLLED_OUT = "canary"
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 360)]


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    """Two workers, so that the view of these has something to show; new versions of one model come by rollout."""
    return {
        "SERVING_SERVER__WORKERS": "2",
        "SERVING_STORE__UPLOADS": "true",
        "SERVING_MODELS__CANARY__ROLLOUT__STRATEGY": "canary",
        "SERVING_MODELS__CANARY__ROLLOUT__STEP_SECONDS": "3600",
    }


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    """The demo store, a model for a rollout, and a name that is a problem of the store."""

    def fill_more(store: Path) -> None:
        fill_store(store)
        write_version(store / ROLLED_OUT, 1, constant(1))
        (store / "not a name!").mkdir()

    return fill_more


@pytest.fixture(scope="module")
def ready_server(server: Server) -> Server:
    """The server, when a rollout is under way, a version was refused, and all models have a version."""
    server.wait_state(*REFUSED, "REJECTED")
    server.wait_active(HOSTED, 1)
    server.wait_active(ROLLED_OUT, 1)
    server.drop(ROLLED_OUT, 2, constant(2))
    server.wait_state(ROLLED_OUT, 2, "CANARY")
    for _ in range(20):
        server.predict(ROLLED_OUT)
    assert server.operate("PUT", f"/models/{COMPILED}/labels/champion", {"version": "1"}).is_success
    return server


def open_models(page: Page) -> None:
    expect(page.locator("table tbody tr")).to_have_count(4)


def open_model(page: Page) -> None:
    page.goto(f"/ui/#/models/{COMPILED}")
    expect(page.locator(".version")).to_have_count(3)
    page.locator('.version[data-version="2"] .version-button').click()
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


@pytest.mark.parametrize("view", VIEWS, ids=[view.__name__.removeprefix("open_") for view in VIEWS])
def test_no_rule_is_broken(
    ready_server: Server, open_page: Callable[..., Page], watch: object, view: Callable[[Page], None]
) -> None:
    page = open_page(reduced_motion="reduce")
    sign_in(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    if view is open_unknown_model:
        watch.allow_status(404)  # type: ignore[attr-defined]
    view(page)
    broken = {}
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        for found in find_violations(page):
            broken.setdefault(found, f"{scheme}, {width} wide")
    assert not broken, "\n".join(f"[{look}] {found}" for found, look in broken.items())


def test_a_broken_rule_is_seen(server: Server, open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.locator("h1")).to_have_text("Models")
    page.evaluate("document.querySelector('h1').after(document.createElement('button'))")
    assert any(found.startswith("button-name: ") for found in find_violations(page))

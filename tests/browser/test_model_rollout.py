"""A canary in the page: its curve appears and grows, and it is held, resumed, taken back and promoted by clicks."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from serving.offline import publish
from tests.browser.browsing import Page, expect, sign_in
from tests.browser.demo_models import publish_iris
from tests.e2e.harness import NO_TLS, Server

GOOD = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
BAD = {"instances": [[5.1, "<i>wide</i>", 1.4, 0.2]]}


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    return {
        "SERVING_ROLLOUT__STRATEGY": "canary",
        "SERVING_ROLLOUT__STEPS": "40,60",
        "SERVING_ROLLOUT__STEP_SECONDS": "3600",  # it stays where it is until somebody clicks
        "SERVING_ROLLOUT__BAKE_SECONDS": "0",
        "SERVING_ROLLOUT__HOLDBACK": "0",
        "SERVING_ROLLOUT__TOLERANCE": "10",
        "SERVING_REPLAY__ROWS": "0",
    }


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    return lambda store: publish_iris(store, 1)


@pytest.fixture(scope="module")
def traffic(server: Server) -> Iterator[None]:
    """Requests of which every fifth has a row that both versions refuse."""
    is_stopping = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=20.0, verify=NO_TLS) as client:
            count = 0
            while not is_stopping.wait(0.01):
                count += 1
                client.post(f"{server.url}/models/iris/predict", json=BAD if count % 5 == 0 else GOOD)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    is_stopping.set()
    thread.join(60)


@pytest.fixture
def canary(open_page: Callable[..., Page], server: Server, traffic: None) -> tuple[Page, str]:
    """The view of a model while a canary is under way, and the canary's version."""
    model = server.get("/models/iris")
    version = str(max(int(one["version"]) for one in model["versions"]) + 1)
    page = open_page("/ui/#/models/iris")
    sign_in(page)
    expect(page.locator("h1")).to_have_text("iris")
    rows, answers = load_iris(return_X_y=True, as_frame=True)
    estimator = LogisticRegression(C=float(version), max_iter=1000).fit(rows, answers)
    publish(estimator, "iris", version=version, store=server.store, X=rows, golden=rows[::30], check=False)
    expect(page.locator(".rollout-running")).to_have_attribute("data-version", version)
    return page, version


def click(page: Page, deed: str, confirm: bool = False) -> None:
    page.locator(f'#rollout [data-deed="rollout-{deed}"] > .button').click()
    if confirm:
        page.get_by_role("dialog").locator(".button").last.click()


def points(page: Page) -> int:
    path: Any = page.locator(".curve-line").get_attribute("d")
    return len(re.findall("[ML]", path or ""))


def test_the_curve_grows_and_a_canary_is_held_resumed_and_promoted(canary: tuple[Page, str], server: Server) -> None:
    page, version = canary
    curve = page.get_by_role("img", name=re.compile(f"Evidence against version {version}"))
    expect(curve).to_be_visible()
    expect(curve.locator(".curve-threshold-name")).to_have_text("goes back at 100")
    seen = points(page)
    expect(page.locator(".curve-line")).to_have_attribute("d", re.compile(rf"(?:[ML][^ML]*){{{seen + 2},}}"))
    expect(page.locator(".counts").first.locator("tbody tr").first).to_contain_text(f"{version} (new)")
    expect(page.locator(".examples")).to_contain_text("422")
    page.get_by_text("Show as a table").click()
    expect(page.locator(".curve-table tbody tr").first).to_be_visible()
    expect(page.locator('[data-deed="rollout-hold"] code')).to_have_text(
        f"serving rollout iris hold --version {version}"
    )
    click(page, "hold")
    expect(page.locator(".rollout-head")).to_contain_text("held")
    assert server.get("/models/iris/rollout")["running"]["is_held"]
    click(page, "resume")
    expect(page.locator(".rollout-head")).not_to_contain_text("held")
    click(page, "promote", confirm=True)
    expect(page.locator(".model-active")).to_have_attribute("data-version", version)
    expect(page.locator(".rollout-last")).to_have_attribute("data-version", version)
    expect(page.locator(".rollout-last")).to_contain_text("promoted")
    expect(page.locator(".rollout-last")).to_contain_text("admin@127.0.0.1")
    expect(page.locator(".rollout-running")).to_have_count(0)
    assert page.locator("#main i").count() == 0


def test_a_canary_is_taken_back_by_a_click(canary: tuple[Page, str], server: Server) -> None:
    page, version = canary
    active = server.get("/models/iris/active")["active"]["version"]
    click(page, "rollback", confirm=True)
    expect(page.locator(".rollout-last")).to_contain_text("rolled back")
    expect(page.locator(".rollout-last")).to_have_attribute("data-version", version)
    expect(page.locator(f'.version-row[data-version="{version}"] .version-state')).to_have_text("Quarantined")
    assert server.get("/models/iris/active")["active"]["version"] == active


def test_an_open_table_of_the_curve_stays_open_and_filled(canary: tuple[Page, str]) -> None:
    page, _ = canary
    page.get_by_text("Show as a table").click()
    rows = page.locator(".curve-table tbody tr")
    expect(rows.first).to_be_visible()
    page.locator(".curve").evaluate("curve => curve.dataset.seen = 'yes'")
    expect(page.locator(".curve[data-seen]")).to_have_count(0)  # it was drawn anew
    expect(rows.first).to_be_visible()
    expect(page.locator(".curve-table summary")).to_be_focused()
    click(page, "rollback", confirm=True)
    expect(page.locator(".rollout-running")).to_have_count(0)

"""Takes the pictures of the page in the docs: ``python -m benchmarks.pictures``. Needs Chromium; takes two minutes.

A server with the demo models is asked rows, refuses a broken file, and lets a new version take over step by step. What
the page shows of it is what is in ``docs/pictures``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from sklearn.linear_model import LogisticRegression

import serving
from benchmarks.run import ROOT, begin
from benchmarks.server import running
from serving.demo import demo_versions
from tests.e2e.harness import TOKEN, Server, until

PICTURES = ROOT / "docs" / "pictures"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
LIGHT, DARK = "light", "dark"
SETTINGS = {
    "SERVING_SECURITY__ADMIN_TOKEN": TOKEN,
    "SERVING_STORE__UPLOADS": "true",
    "SERVING_MODELS__IRIS__ROLLOUT__STRATEGY": "canary",
    "SERVING_MODELS__IRIS__ROLLOUT__STEPS": "20,50",
    "SERVING_MODELS__IRIS__ROLLOUT__STEP_SECONDS": "15",
    "SERVING_MODELS__IRIS__ROLLOUT__MIN_REQUESTS": "1000",
}
REQUESTS_PER_SECOND = 400


def main() -> None:
    """Write the pictures anew."""
    PICTURES.mkdir(exist_ok=True)
    with begin(is_quick=False) as run:
        store = run.scratch / "model_store"
        for version in demo_versions():
            version.publish(store)
        with running(run.scratch, store=store, **SETTINGS) as server, _asking(server), _chromium() as browser:
            _take_pictures(server, browser)


def _take_pictures(server: Server, browser: Browser) -> None:
    until(lambda: all(one["active"] for one in server.get("/models/active")["models"]), "all models being active", 120)
    (server.store / "iris" / "3.joblib").write_text("oops\n")
    server.wait_state("iris", "3", "REJECTED")
    page = _open(server, browser, WIDE, LIGHT)
    _publish_better(server.store)
    until(lambda: (_running(server) or {}).get("step", 0) >= 2, "the second step of the rollout", 180)
    _show(page, "#/", "models")
    _show(page, "#/models/iris", "model")
    page.locator("[data-version='3'] button").first.click()
    page.wait_for_timeout(500)
    page.screenshot(path=PICTURES / "refused.png", full_page=True, animations="disabled")
    _show(page, "#/history", "history")
    _show(_open(server, browser, WIDE, DARK), "#/models/iris", "dark")
    _show(_open(server, browser, NARROW, LIGHT), "#/", "narrow")


def _running(server: Server) -> Any:
    return server.get("/models/iris/rollout")["running"]


def _publish_better(store: Path) -> None:
    iris = next(one for one in demo_versions() if one.model == "iris")
    rows, answers = iris.load()
    estimator = LogisticRegression(max_iter=500).fit(rows, answers)
    serving.publish(estimator, "iris", version="4", store=store, X=rows, golden=rows[::15], check=False)


def _open(server: Server, browser: Browser, size: Any, scheme: Any) -> Page:
    page = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1).new_page()
    page.goto(f"{server.url}/ui/")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    return page


def _show(page: Page, address: str, name: str) -> None:
    """Go to a view, wait until rates are known, and take its picture."""
    page.evaluate("address => { location.hash = address }", address)
    page.wait_for_timeout(6000)
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


@contextmanager
def _chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@contextmanager
def _asking(server: Server) -> Iterator[None]:
    """Send rows to all models meanwhile."""
    is_over = threading.Event()
    rows = {
        path.parent.parent.name: json.loads(path.read_text())["instances"]
        for path in server.store.glob("*/*/golden.json")
    }
    names = [name for name in rows for _ in range(9 if name == "iris" else 1)]

    def ask() -> None:
        chance = random.Random(7)
        for name in cycle(names):
            server.client.post(f"{server.url}/models/{name}/predict", json={"instances": [chance.choice(rows[name])]})
            if is_over.wait(chance.expovariate(REQUESTS_PER_SECOND)):
                return

    thread = threading.Thread(target=ask, name="asking")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    main()

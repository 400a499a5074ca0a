"""Files that are dropped on the page or chosen there: they go through the gates, and are versions if none refuses."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.browser.browsing import Page, expect, sign_in
from tests.e2e.harness import Server, linear, write_version

DROP = """([selector, name, text]) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name));
    const target = document.querySelector(selector);
    for (const kind of ["dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: files}));
    }
}"""


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    return {"SERVING_STORE__UPLOADS": "true"}


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    return _fill


def _fill(store: Path) -> None:
    for version in (1, 2):
        write_version(store / "m", version, linear())


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    page = open_page("/ui/#/models/m")
    sign_in(page)
    expect(page.locator(".drop")).to_be_visible()
    return page


def dump(estimator: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return file.getvalue()


def drop(page: Page, name: str, content: bytes, where: str = "#versions") -> None:
    expect(page.locator(".drop")).to_be_visible()  # nothing is being sent
    page.evaluate(DROP, [where, name, base64.b64encode(content).decode()])


def test_a_dropped_file_passes_the_gates_and_is_the_next_version(page: Page, server: Server) -> None:
    drop(page, "model.joblib", dump(linear()))
    version = page.get_by_label("Name of the version")
    expect(version).to_have_value("3")
    expect(version).to_be_focused()
    page.keyboard.press("Enter")
    entry = page.locator(".upload-entry").first
    expect(entry).to_have_attribute("data-state", "published")
    expect(entry).to_contain_text("published as 3")
    expect(page.locator("#announcer")).to_have_text("published as m 3")
    expect(page.locator(".model-active")).to_have_attribute("data-version", "3")
    assert server.predict("m").json()["version"] == "3"


def test_a_refused_file_shows_gate_and_reason_and_is_no_version(page: Page, server: Server, watch: Any) -> None:
    watch.allow_status(422)
    before = server.get("/models/m")["versions"]
    drop(page, "<b>m<b>.joblib", b"<i>no model</i>")
    expect(page.locator(".upload-file")).to_contain_text("<b>m<b>.joblib, 15 B, as model.joblib")
    page.get_by_label("Name of the version").fill("9")
    page.get_by_role("button", name="Send it through the gates").click()
    entry = page.locator('.upload-entry[data-state="refused"]').first
    expect(entry.locator(".upload-reason")).to_contain_text("format: ")
    expect(entry.locator('.gate[data-verdict="refused"]')).to_have_attribute("data-gate", "format")
    expect(page.locator("#announcer")).to_contain_text("not published: ")
    assert page.locator("#main i, #main b").count() == 0
    assert [one["version"] for one in server.get("/models/m")["versions"]] == [one["version"] for one in before]


def test_a_version_that_breaks_clients_has_to_be_allowed(page: Page, watch: Any) -> None:
    watch.allow_status(422)
    for is_allowed in (False, True):
        drop(page, "model.joblib", dump(LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0])))
        page.get_by_label("Name of the version").fill("20")
        page.get_by_label("It may break clients of the version before").set_checked(is_allowed)
        page.get_by_role("button", name="Send it through the gates").click()
        entry = page.locator(".upload-entry").first
        expect(entry).to_have_attribute("data-state", "published" if is_allowed else "refused")
        expect(entry.locator('.gate[data-gate="contract"]')).to_have_count(1)


def test_a_file_is_chosen_by_keyboard_and_an_existing_version_is_not_overwritten(page: Page, watch: Any) -> None:
    watch.allow_status(409)
    page.on("filechooser", lambda _: None)
    page.get_by_role("button", name="Choose a file").focus()  # waits until the browser knows of the line above
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files({"name": "model.joblib", "mimeType": "", "buffer": dump(linear())})
    page.get_by_label("Name of the version").fill("1")
    page.keyboard.press("Enter")
    expect(page.locator(".upload-entry").first).to_contain_text("not published")


def test_a_file_becomes_a_new_model_on_the_page_of_all_models(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page("/ui/")
    sign_in(page)
    drop(page, "new one.joblib", dump(linear()), where=".drop")
    expect(page.get_by_label("Name of the model")).to_have_value("new-one")
    expect(page.get_by_label("Name of the version")).to_have_value("1")
    page.get_by_label("Name of the model").fill("fresh")
    page.keyboard.press("Enter")
    expect(page.locator(".upload-entry").first).to_contain_text("published as fresh 1")
    expect(page.locator("table.models tbody")).to_contain_text("fresh")


def test_without_admin_nothing_can_be_dropped(open_page: Callable[..., Page]) -> None:
    page = open_page("/ui/#/models/m")
    expect(page.locator(".drop-closed")).to_contain_text("Sign in with a token")
    expect(page.locator(".drop-closed code")).to_have_text("serving publish FILE --model m")
    expect(page.locator(".drop")).to_be_hidden()

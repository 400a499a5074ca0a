"""The page's view of one model: what it shows, its deeds, and the form to try it, against a real server."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from peculiar import HangsWhileLoading, NotFinite
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from serving.offline import publish
from tests.browser.browsing import Page, expect, sign_in
from tests.browser.demo_models import fill_store
from tests.e2e.harness import NO_TLS, Server, constant, until, write_version

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def server_environment() -> dict[str, str]:
    return {"SERVING_CANDIDATE__TIMEOUT_SECONDS": "8"}


@pytest.fixture(scope="module")
def fill() -> Callable[[Path], None]:
    """The demo store, a model whose features and classes are named with markup, and one of 50 versions."""
    return _fill


def _fill(store: Path) -> None:
    fill_store(store)
    for model in ("replaced", "hangs"):
        write_version(store / model, 1, constant(1))
    for model in ("deeds", "swapped"):
        for version in (1, 2):
            write_version(store / model, version, constant(version))
    rows = pd.DataFrame({MARKUP: ["red", "blue", "red", "blue"], "size": [1.0, 2.0, 3.0, 4.0]})
    columns = make_column_transformer((OneHotEncoder(), [MARKUP]), ("passthrough", ["size"]))
    labels = np.array(["<b>yes</b>", "no", "<b>yes</b>", "no"])
    estimator = make_pipeline(columns, LogisticRegression()).fit(rows, labels)
    publish(estimator, "markup", version=1, store=store, X=rows, golden=rows[:2], check=False)
    for version in range(1, 51):
        write_version(store / "many", version, constant(1))


@pytest.fixture
def open_model(open_page: Callable[..., Page]) -> Callable[..., Page]:
    """``open_model(name, is_admin=True, **options)``: open the view of a model."""

    def open_one(name: str, *, is_admin: bool = True, **options: Any) -> Page:
        page = open_page(f"/ui/#/models/{name}", **options)
        if is_admin:
            sign_in(page)
        expect(page.locator("h1")).to_have_text(name)
        return page

    return open_one


def row(page: Page, version: str) -> Any:
    return page.locator(f'.version-row[data-version="{version}"]')


def open_version(page: Page, version: str) -> Any:
    row(page, version).locator(".version-button").click()
    return row(page, version).locator(".version-details")


def do(page: Page, where: str, deed: str, confirm: bool = False) -> None:
    """Click a deed, and confirm it where it asks."""
    page.locator(f'{where} [data-deed="{deed}"] > .button').click()
    if confirm:
        page.locator("dialog .button:not(:text-is('Cancel'))").last.click()


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_the_active_version_and_every_version_have_their_state(open_model: Callable[..., Page]) -> None:
    page = open_model("iris")
    expect(page.locator(".model-active")).to_contain_text("Active")
    expect(page.locator(".model-active")).to_have_attribute("data-version", "2")
    names = page.locator(".version-name")
    expect(names).to_have_text(["3", "2", "1"])
    expect(row(page, "3").locator(".version-state")).to_have_text("Refused")
    expect(row(page, "2").locator(".version-state")).to_have_text("Active")


def test_a_refused_version_shows_its_gates_and_markup_stays_text(open_model: Callable[..., Page]) -> None:
    page = open_model("iris")
    page.get_by_role("button", name="Show its gates").click()
    gates = row(page, "3").locator(".gate")
    expect(gates.last).to_have_attribute("data-verdict", "refused")
    expect(gates.last.locator(".gate-evidence")).to_contain_text("<b>no model</b>")
    expect(page.locator(".banner", has_text="was refused by format")).to_contain_text("<b>no model</b>")
    assert page.locator("#main b").count() == 0
    expect(gates.first.locator(".gate-time")).not_to_be_empty()


def test_gates_appear_while_the_version_is_evaluated(open_model: Callable[..., Page], server: Server) -> None:
    page = open_model("hangs", is_admin=False)
    write_version(server.store / "hangs", 2, constant(1, HangsWhileLoading))
    open_version(page, "2")
    gate = row(page, "2").locator('.gate[data-gate="load"]')
    expect(gate).to_have_attribute("data-verdict", "running")
    expect(row(page, "2").locator('.gate[data-gate="format"]')).to_have_attribute("data-verdict", "passed")
    expect(row(page, "2").locator('.gate[data-gate="golden"]')).to_have_attribute("data-verdict", "waiting")
    expect(gate).to_have_attribute("data-verdict", "refused")
    expect(row(page, "2").locator('.gate[data-gate="golden"]')).to_have_count(0)


def test_an_open_version_shows_proof_contract_and_surroundings(open_model: Callable[..., Page], server: Server) -> None:
    page = open_model("iris", is_admin=False)
    details = open_version(page, "2")
    said = server.get("/models/iris/versions/2")
    expect(details).to_contain_text(said["compilation"]["reason"])
    expect(details).to_contain_text("Largest difference")
    expect(details.locator(".features tbody tr")).to_have_count(4)
    expect(details).to_contain_text("scikit-learn")
    expect(details.locator("code", has_text=said["digest"])).to_be_visible()
    expect(details.locator(".layers li")).to_have_count(
        len(said["sandbox"]["active"]) + len(said["sandbox"]["missing"])
    )
    assert page.evaluate("location.hash") == "#/models/iris?version=2"
    page.reload()
    expect(row(page, "2").locator(".version-details")).to_be_visible()


def test_names_of_features_and_classes_stay_text(open_model: Callable[..., Page]) -> None:
    page = open_model("markup")
    details = open_version(page, "1")
    expect(details).to_contain_text(MARKUP)
    expect(details).to_contain_text("<b>yes</b>")
    expect(page.locator("#try")).to_contain_text(MARKUP)
    expect(page.locator("#try").get_by_label(MARKUP, exact=True).locator("option")).to_have_text(["blue", "red"])
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator(".try-value")).to_contain_text("<b>")
    assert page.locator("#main img, #main b").count() == 0


def test_fifty_versions_open_one_at_a_time(open_model: Callable[..., Page]) -> None:
    page = open_model("many", is_admin=False)
    expect(page.locator(".version-row")).to_have_count(50)
    expect(page.locator(".version-name").first).to_have_text("50")
    open_version(page, "1")
    open_version(page, "50")
    expect(page.locator(".version-details")).to_have_count(1)


def test_an_active_version_whose_files_were_replaced_has_a_row_beside_the_new_files(
    open_model: Callable[..., Page], server: Server
) -> None:
    server.wait_active("replaced", 1)
    page = open_model("replaced", is_admin=False)
    shutil.rmtree(server.store / "replaced" / "1")
    directory = server.store / "replaced" / "1"
    directory.mkdir()
    (directory / "model.joblib").write_bytes(b"no model")
    expect(page.locator(".version-name")).to_have_text(["1", "1"])
    for state in ("Active", "Refused"):
        page.locator(".version-button", has_text=state).click()
        expect(page.locator(".version-row", has=page.locator(".version-details"))).to_have_count(1)
        expect(page.locator(".version-row", has=page.locator(".version-details"))).to_contain_text(state)


def test_a_new_version_appears_by_itself(open_model: Callable[..., Page], server: Server) -> None:
    page = open_model("diabetes", is_admin=False)
    expect(page.locator(".version-row")).to_have_count(1)
    write_version(server.store / "diabetes", 0, constant(1))
    expect(page.locator(".version-row")).to_have_count(2)


def test_a_model_that_is_not_there_is_said(open_page: Callable[..., Page], watch: Any) -> None:
    watch.allow_status(404)
    page = open_page("/ui/#/models/nothing")
    expect(page.locator(".outcome-bad").first).to_have_text("There is no model nothing now.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen(open_model: Callable[..., Page], scheme: str) -> None:
    page = open_model("iris", viewport={"width": 320, "height": 800}, color_scheme=scheme)
    open_version(page, "2")
    expect(page.locator(".version-details")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_versions_open_and_close_by_keyboard_and_keep_the_focus(open_model: Callable[..., Page]) -> None:
    page = open_model("iris")
    button = row(page, "2").locator(".version-button")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(button).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Pin")
    button.focus()
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "false")


# --- deeds ------------------------------------------------------------------------------------------------------------


def test_without_admin_it_says_how_to_get_it(open_model: Callable[..., Page]) -> None:
    page = open_model("iris", is_admin=False)
    expect(page.locator("#operate")).to_contain_text("Sign in with a token")
    expect(page.locator("#operate").get_by_role("button", name="Sign in")).to_be_visible()
    open_version(page, "2")
    expect(page.locator("[data-deed]:visible")).to_have_count(0)


def test_a_page_that_only_shows_has_no_deeds(open_model: Callable[..., Page]) -> None:
    page = open_model("iris", is_admin=False)
    said = {"ui": "read", "scopes": ["read"], "signed_in": False, "expires_at": None, "uploads": True}
    page.route("**/ui/session", lambda route: route.fulfill(json={**said, "needs": ["admin", "predict"]}))
    page.reload()
    expect(page.locator("#operate")).to_contain_text('server.ui = "read"')
    expect(page.locator("#operate").get_by_role("button")).to_have_count(0)
    expect(page.locator("[data-deed]:visible, .drop:visible")).to_have_count(0)
    expect(page.locator(".try-curl code")).to_contain_text('-H "Authorization: Bearer $TOKEN"')


def test_pin_and_unpin(open_model: Callable[..., Page], server: Server) -> None:
    page = open_model("deeds")
    open_version(page, "1")
    expect(row(page, "1").locator('[data-deed="pin"] code')).to_have_text("serving pin deeds 1")
    do(page, '.version-row[data-version="1"]', "pin")
    expect(page.get_by_role("dialog")).to_contain_text("Pin deeds to 1?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert server.get("/models/deeds")["pinned"] is None
    do(page, '.version-row[data-version="1"]', "pin", confirm=True)
    expect(page.locator(".model-active")).to_have_attribute("data-version", "1")
    expect(page.locator(".chips")).to_contain_text("pinned to 1")
    expect(page.locator("#announcer")).to_have_text("deeds is pinned to 1")
    expect(page.locator(".event", has_text="Pinned 1")).to_contain_text("admin@127.0.0.1")
    expect(page.locator('#operate [data-deed="unpin"] code')).to_have_text("serving unpin deeds")
    do(page, "#operate", "unpin")
    expect(page.locator(".model-active")).to_have_attribute("data-version", "2")
    expect(page.locator('#operate [data-deed="unpin"]')).to_have_count(0)


def test_label_and_unlabel(open_model: Callable[..., Page], server: Server, watch: Any) -> None:
    watch.allow_status(409, 422)
    page = open_model("deeds")
    details = open_version(page, "2")
    details.get_by_label("Let a label name 2").fill("champion")
    expect(details.locator(".label-form code")).to_have_text("serving label deeds champion 2")
    details.get_by_role("button", name="Label", exact=True).click()
    expect(row(page, "2").locator(".version-badges")).to_contain_text("champion")
    expect(details.locator('[data-deed="unlabel-champion"] code')).to_have_text("serving label deeds champion --remove")
    do(page, '.version-row[data-version="2"]', "unlabel-champion", confirm=True)
    expect(row(page, "2").locator(".version-badges")).not_to_contain_text("champion")
    details.get_by_label("Let a label name 2").fill("no name")
    details.get_by_role("button", name="Label", exact=True).click()
    expect(details.locator(".outcome-bad")).to_contain_text("Refused: ")
    expect(page.locator("#announcer")).to_contain_text("refused: ")


def test_unload_and_load(open_model: Callable[..., Page], server: Server, watch: Any) -> None:
    page = open_model("prices")
    expect(page.locator('#operate [data-deed="unload"] code')).to_have_text("serving unload prices")
    do(page, "#operate", "unload", confirm=True)
    expect(page.locator(".model-active")).to_have_text("Unloaded")
    assert server.get("/models/prices")["unloaded"]
    expect(page.locator('#operate [data-deed="load"] code')).to_have_text("serving load prices")
    do(page, "#operate", "load")
    expect(page.locator(".model-active")).to_have_attribute("data-version", "1")
    watch.allow_status(400)
    write_version(server.store / "prices", 2, constant(1, NotFinite))
    server.wait_state("prices", 2, "REJECTED")
    do(page, "#operate", "unload", confirm=True)
    do(page, "#operate", "load")
    expect(page.locator("#operate .outcome-bad")).to_contain_text("version '2' is REJECTED: ")


def test_refresh_looks_at_the_store(open_model: Callable[..., Page]) -> None:
    page = open_model("prices")
    expect(page.locator('#operate [data-deed="refresh"] code')).to_have_text("serving refresh")
    do(page, "#operate", "refresh")
    expect(page.locator("#operate .outcome-good")).to_contain_text("has looked at its store")


def test_a_rollback_by_a_click_fails_no_request_and_a_release_brings_it_back(
    open_model: Callable[..., Page], server: Server
) -> None:
    page = open_model("swapped")
    with Requests(server, "swapped") as requests:
        until(lambda: "2" in requests.versions, "answers of version 2")
        expect(page.locator('#operate [data-deed="rollback"] code')).to_have_text("serving rollback swapped --from 2")
        do(page, "#operate", "rollback", confirm=True)
        expect(page.locator(".model-active")).to_have_attribute("data-version", "1")
        expect(row(page, "2").locator(".version-state")).to_have_text("Quarantined")
        until(lambda: requests.versions[-1:] == ["1"], "answers of version 1")
        expect(page.locator('[data-rate="requests"]')).not_to_have_text("–")
    assert requests.failures == []
    assert [version for version, _ in itertools.groupby(requests.versions)] == ["2", "1"]
    open_version(page, "2")
    expect(row(page, "2").locator('[data-deed="release"] code')).to_have_text("serving release swapped 2")
    do(page, '.version-row[data-version="2"]', "release", confirm=True)
    expect(page.locator(".model-active")).to_have_attribute("data-version", "2")


class Requests:
    """Asks a model again and again until the block ends, and notes the versions of the answers."""

    def __init__(self, server: Server, model: str) -> None:
        self._url = f"{server.url}/models/{model}/predict"
        self._thread = threading.Thread(target=self._ask)
        self._is_stopping = threading.Event()
        self.versions: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(timeout=20.0, verify=NO_TLS) as client:
            while not self._is_stopping.is_set():
                answer = client.post(self._url, json={"input": [0.0, 0.0]})
                if answer.status_code == 200:
                    self.versions.append(answer.json()["version"])
                else:
                    self.failures.append(answer.text)


# --- try it -----------------------------------------------------------------------------------------------------------


def test_a_row_is_answered_with_version_time_and_an_equal_curl_call(
    open_model: Callable[..., Page],
) -> None:
    page = open_model("iris", is_admin=False)
    form = page.locator("#try")
    for name, value in {"sepal length (cm)": "5.1", "sepal width (cm)": "3.5", "petal width (cm)": "0.2"}.items():
        form.get_by_label(name, exact=True).fill(value)
    form.get_by_label("Method", exact=True).select_option("predict_proba")
    form.get_by_role("button", name="Ask the model").click()
    expect(form.locator(".try-answer")).to_have_attribute("data-version", "2")
    expect(form.locator(".try-said")).to_contain_text(re.compile(r"Version 2 answered in [\d.]+ (µs|ms|s)"))
    shown = json.loads(form.locator(".try-value").inner_text())
    command = shlex.split(form.locator(".try-curl code").inner_text())
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["prediction"] == pytest.approx(shown)


def test_a_wrong_value_marks_its_field(open_model: Callable[..., Page], watch: Any) -> None:
    watch.allow_status(422)
    page = open_model("iris", is_admin=False)
    field = page.locator("#try").get_by_label("petal length (cm)", exact=True)
    field.fill("long")
    page.get_by_role("button", name="Ask the model").click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator('[data-feature="petal length (cm)"] .field-error')).to_contain_text("petal length (cm)")
    field.fill("1.4")
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator(".try-answer")).to_have_attribute("data-version", "2")
    expect(field).not_to_have_attribute("aria-invalid", "true")


def test_a_row_can_be_typed_as_json_and_a_version_be_chosen(open_model: Callable[..., Page]) -> None:
    page = open_model("deeds", is_admin=False)
    form = page.locator("#try")
    form.get_by_role("button", name="Type the row as JSON").click()
    form.get_by_label("One row, as JSON").fill("[1.5, 9007199254740993]")
    expect(form.locator(".try-curl code")).to_contain_text("9007199254740993")
    form.get_by_label("One row, as JSON").fill("[1.5, 2]")
    form.get_by_label("Ask", exact=True).select_option("versions/1")
    form.get_by_role("button", name="Ask the model").click()
    expect(form.locator(".try-answer")).to_have_attribute("data-version", "1")
    expect(form.locator(".try-curl code")).to_contain_text("/models/deeds/versions/1/predict")

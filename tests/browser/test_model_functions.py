"""What the view of one model computes, computed in the browser: deeds, rows, quoted words, groups of events."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.browsing import Browser, Page
from tests.e2e.harness import Server

Call = Callable[..., Any]
MODEL = {
    "name": "m",
    "active": {"version": "2"},
    "pinned": None,
    "labels": {},
    "unloaded": False,
    "quarantined": [],
    "rollout": None,
}


@pytest.fixture(scope="module")
def call(browser: Browser, server: Server) -> Iterator[Call]:
    """``call(module, function, *arguments)``: what a function of a module of parts/ returns."""
    page: Page = browser.new_page()
    page.goto(f"{server.url}/ui/")

    def run(module: str, function: str, *arguments: Any) -> Any:
        source = f"async (a) => (await import('{server.url}/ui/parts/{module}')).{function}(...a)"
        return page.evaluate(source, list(arguments))

    yield run
    page.close()


def version(name: str, state: str = "DISCOVERED", **fields: Any) -> dict[str, Any]:
    return {"version": name, "state": state, "is_loaded": False, "is_quarantined": False, **fields}


# --- deeds ------------------------------------------------------------------------------------------------------------


def name_deeds(call: Call, function: str, *arguments: Any) -> list[str]:
    return [deed["id"] for deed in call("deed_list.js", function, *arguments)]


@pytest.mark.parametrize(
    ("changes", "versions", "deeds"),
    [
        ({}, [version("2", "ACTIVE"), version("1")], ["rollback", "unload", "refresh"]),
        ({}, [version("2", "ACTIVE"), version("1", "REJECTED")], ["unload", "refresh"]),
        ({}, [version("2", "ACTIVE"), version("1", is_quarantined=True)], ["unload", "refresh"]),
        ({"pinned": "2"}, [version("2", "ACTIVE"), version("1")], ["unpin", "unload", "refresh"]),
        ({"rollout": {"running": {}}}, [version("2", "ACTIVE"), version("1")], ["unload", "refresh"]),
        ({"active": None, "unloaded": True}, [version("1")], ["load", "refresh"]),
    ],
)
def test_only_what_is_possible_now_is_offered(
    call: Call, changes: dict[str, Any], versions: list[Any], deeds: list[str]
) -> None:
    assert name_deeds(call, "listModelDeeds", {**MODEL, **changes, "versions": versions}) == deeds


@pytest.mark.parametrize(
    ("one", "deeds"),
    [
        (version("2", "ACTIVE"), ["pin", "unlabel-champion"]),
        (version("1"), ["pin"]),
        (version("1", "REJECTED"), ["release"]),
        (version("1", "FAILED"), ["pin", "release"]),
        (version("1", "QUARANTINED", is_quarantined=True), ["release"]),
    ],
)
def test_a_version_has_the_deeds_of_its_state(call: Call, one: dict[str, Any], deeds: list[str]) -> None:
    model = {**MODEL, "labels": {"champion": "2"}, "versions": [one]}
    assert name_deeds(call, "listVersionDeeds", model, one) == deeds


def test_what_the_store_does_not_hold_can_be_released_and_unlabelled(call: Call) -> None:
    gone = {"labels": {"old": "7"}, "quarantined": [{"version": "8", "path": None}, {"version": "2", "path": "m/2"}]}
    model = {**MODEL, **gone, "versions": [version("2")]}
    assert name_deeds(call, "listOrphanDeeds", model) == ["unlabel-old", "release"]


def test_a_deed_is_the_same_as_its_command_line(call: Call) -> None:
    found = call("deed_list.js", "setLabel", MODEL, "champion", "2")
    assert (found["method"], found["path"], found["body"]) == ("PUT", "models/m/labels/champion", {"version": "2"})
    assert found["command"] == "serving label m champion 2"
    assert found["confirm"] is None
    moved = call("deed_list.js", "setLabel", {**MODEL, "labels": {"champion": "1"}}, "champion", "2")
    assert moved["confirm"]["title"] == "Move 'champion' from 1 to 2?"


@pytest.mark.parametrize("word", ["plain-1.0", "two words", "it's", "$(rm -rf /)", "`x`", '"', "", "a\nb", "ü"])
def test_words_reach_a_shell_as_they_are(call: Call, word: str) -> None:
    assert shlex.split(call("shell_words.js", "joinWords", ["serving", word])) == ["serving", word]


# --- rows -------------------------------------------------------------------------------------------------------------


def feature(name: str, dtype: str = "number", **fields: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "nullable": False, "is_used": True, **fields}


@pytest.mark.parametrize(
    ("dtype", "typed", "cell"),
    [
        ("number", "1.50", "1.50"),
        ("number", " -2e3 ", "-2e3"),
        ("number", "9007199254740993", "9007199254740993"),
        ("number", "01", '"01"'),
        ("number", "NaN", '"NaN"'),
        ("number", "", '""'),
        ("string", "1", '"1"'),
        ("string", 'say "yes"', '"say \\"yes\\""'),
        ("bool", "true", "true"),
        ("any", "1", "1"),
        ("any", "one", '"one"'),
    ],
)
def test_what_is_typed_is_sent_as_it_is(call: Call, dtype: str, typed: str, cell: str) -> None:
    assert call("try_row.js", "encodeCell", feature("x", dtype), typed, False) == cell


def test_a_row_is_an_object_where_features_have_names_and_an_array_elsewhere(call: Call) -> None:
    signature = {"features": [feature('a"b'), feature("dropped", is_used=False)], "is_named": True}
    assert json.loads(call("try_row.js", "encodeRow", signature, ["1", "2"])) == {'a"b': 1}
    assert json.loads(call("try_row.js", "encodeRow", {**signature, "is_named": False}, ["1", "2"])) == [1, None]
    twice = {"features": [feature("a"), feature("a")], "is_named": True}
    assert json.loads(call("try_row.js", "encodeRow", twice, ["1", "2"])) == [1, 2]


def test_the_longest_name_in_a_refusal_is_the_feature_that_is_meant(call: Call) -> None:
    features = [feature("x"), feature("x' 'y"), feature("y")]
    assert call("try_row.js", "findNamedFeature", features, "row 0, feature 'x': no number") == 0
    assert call("try_row.js", "findNamedFeature", features, "row 0, feature 'x' 'y': no number") == 1
    assert call("try_row.js", "findNamedFeature", features, "no row") == -1


@pytest.mark.parametrize(
    ("names", "suggested"),
    [([], "1"), (["3", "1", "v10"], "11"), (["2024-01-01", "first"], "1"), (["99999999999999999999"], "1" + 20 * "0")],
)
def test_the_next_number_is_suggested_for_a_version(call: Call, names: list[str], suggested: str) -> None:
    assert call("upload_panel.js", "suggestVersion", names) == suggested


@pytest.mark.parametrize(
    ("name", "artefact"),
    [("a-1.skops", "a-1.skops"), ("my model (2).pkl", "model.pkl"), (".hidden", "model.hidden"), ("é", "model")],
)
def test_a_file_whose_name_cannot_be_in_the_store_is_called_model(call: Call, name: str, artefact: str) -> None:
    assert call("upload_call.js", "nameArtefact", name) == artefact


# --- what happened ----------------------------------------------------------------------------------------------------


def test_the_steps_of_one_evaluation_are_one_entry_also_beside_another(call: Call) -> None:
    def step(number: int, version: str, after: str, actor: str = "system") -> dict[str, Any]:
        return {"id": number, "version": version, "after": after, "actor": actor, "event": "transition"}

    entries = [
        step(1, "1", "STAGING"),
        step(2, "2", "STAGING"),
        step(3, "1", "LOADING"),
        step(4, "2", "REJECTED"),
        step(5, "1", "READY"),
        step(6, "1", "ACTIVE"),
        {"id": 7, "version": "1", "after": None, "actor": "admin@127.0.0.1", "event": "pin"},
        step(8, "1", "READY"),
        step(9, "2", "DISCOVERED", "admin@127.0.0.1"),
    ]
    groups = call("timeline.js", "groupEntries", entries[::-1])
    assert [[entry["id"] for entry in group] for group in groups] == [[9], [8], [7], [1, 3, 5, 6], [2, 4]]

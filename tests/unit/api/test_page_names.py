"""The page knows the names that the server uses: each list of names in a module is that of the server."""

from __future__ import annotations

import re
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from serving import api
from serving.domain.decision import Decision
from serving.domain.judge import RolloutVerdict
from serving.domain.report import GateName
from serving.domain.rollout import RolloutEnd, RolloutPhase
from serving.domain.sandbox import LAYERS, OPTIONAL
from serving.domain.state import State
from serving.domain.status import WorkerState
from serving.domain.upload import UploadState

UI = Path(api.__file__).parent / "ui"
WITHOUT_ENTRY = {"refresh"}  # decisions that change nothing


def read_constant(module: str, name: str) -> str:
    """Return the source of the value of a constant."""
    found = re.search(rf"^(?:export )?const {name} =(.*?);$", (UI / module).read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{module} has no {name}"
    return found[1]


def list_keys(module: str, name: str) -> list[str]:
    return re.findall(r'^  "?([A-Za-z_-]+)"?:', read_constant(module, name), re.MULTILINE)


def list_texts(module: str, name: str) -> list[str]:
    return re.findall(r'"([^"]+)"', read_constant(module, name))


def find_classes(kind: Any) -> list[Any]:
    """Return the classes of a union, and of those in it."""
    inner = [one for one in get_args(kind) if not isinstance(one, FieldInfo)]
    return [found for one in inner for found in find_classes(one)] if inner else [kind]


def test_gates_are_in_the_order_of_the_server() -> None:
    assert list_texts("parts/gate_list.js", "GATE_NAMES") == list(GateName)


def test_states_can_be_looked_for_and_have_marks_and_sentences() -> None:
    assert list_texts("parts/history_filters.js", "STATES")[0].split() == list(State)
    assert set(list_keys("parts/history_sentence.js", "TRANSITIONS")) == set(State)
    others = {one.value.upper() for kind in (RolloutPhase, WorkerState) for one in kind}
    assert set(list_keys("parts/state_mark.js", "STATES")) == set(State) | others


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("parts/gate_list.js", "IN_PROGRESS"),
        ("parts/timeline.js", "WORK"),
        ("parts/history_sentence.js", "OUTCOMES"),
        ("parts/deed_list.js", "REFUSED_STATES"),
    ],
)
def test_sets_of_states_have_states(module: str, name: str) -> None:
    assert set(list_texts(module, name)) <= set(State)


@pytest.mark.parametrize(
    ("module", "name", "kind"),
    [
        ("parts/rollout_panel.js", "PHASES", RolloutPhase),
        ("parts/rollout_panel.js", "ABOUT", RolloutPhase),
        ("parts/rollout_panel.js", "VERDICTS", RolloutVerdict),
        ("parts/rollout_panel.js", "ENDS", RolloutEnd),
        ("parts/upload_panel.js", "STATES", UploadState),
    ],
)
def test_every_word_of_a_rollout_and_an_upload_has_a_text(module: str, name: str, kind: type[StrEnum]) -> None:
    assert set(list_keys(module, name)) == set(kind)


def test_every_entry_of_the_history_has_a_sentence() -> None:
    kinds = {field.default for one in find_classes(Decision) for field in fields(one) if field.name == "kind"}
    assert set(list_keys("parts/history_sentence.js", "CALLS")) == (kinds - WITHOUT_ENTRY) | {"upload"}


def test_layers_of_the_sandbox_are_those_of_the_server() -> None:
    assert tuple(list_keys("views/store_view.js", "LAYERS")) == LAYERS
    assert set(list_texts("views/store_view.js", "OPTIONAL_LAYERS")) == OPTIONAL

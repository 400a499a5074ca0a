"""What the store holds, taken in: when the removal of the active version's files has settled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.domain.listing import Entry, FileStamp
from serving.domain.version import Format
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.journal import Journal
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.policy_input import PolicyInput
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.unfinished_copies import UNFINISHED_SECONDS, list_unfinished
from serving.settings import RolloutSettings, Settings
from serving.telemetry.metrics import Metrics

SETTLE_SECONDS = Settings().store.settle_seconds


class Scene:
    """One model with version 2 active and 1 beside it, and the look at the store that the road is told of."""

    def __init__(self, state: Path) -> None:
        history = History(state, "basis", 100)
        metrics = Metrics("0")
        journal = Journal(history.events, history.verdicts, metrics)
        environments = EnvironmentWatch(lambda: "", history.verdicts, 1.0)
        exclusion = Exclusion(journal, history.decisions, history.verdicts, history.served, environments)
        activation = cast("Any", SimpleNamespace(publish=lambda *_, **__: None))
        nothing = cast("Any", None)
        rollouts = Rollouts(
            lambda _: RolloutSettings(), activation, journal, history.decisions, history.rollouts, metrics, nothing
        )
        self.model_table = ModelTable(
            *(Settings(), history, journal, metrics, exclusion, activation, nothing, nothing, nothing, nothing),
            *(environments, rollouts),
        )
        self.input = PolicyInput(exclusion, history.decisions, rollouts, keep_warm=1)
        self.both = (entry("2"), entry("1"))
        self.see(self.both, now=0.0)
        self.model = self.model_table.models["m"]
        self.model.active = self.model.listed["2"]

    def see(self, entries: tuple[Entry, ...], now: float) -> None:
        self.model_table.update({"m": entries} if entries else {}, now)

    def unfinished(self, now: float) -> tuple[str, ...]:
        return list_unfinished(self.model_table.models.values(), now)

    def removed_at(self) -> float:
        return self.input.desired(self.model).removed_at


def entry(version: str) -> Entry:
    stamp = FileStamp("model.joblib", int(version), 1, 0, 0)
    return Entry("m", version, f"m/{version}", "model.joblib", Format.JOBLIB, (stamp,))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    return Scene(tmp_path)


def test_nothing_settles_while_the_active_version_is_there(scene: Scene) -> None:
    assert scene.removed_at() == 0.0


def test_a_removal_settles_when_nothing_has_changed_for_the_settle_window(scene: Scene) -> None:
    left = scene.both[1:]
    scene.see(left, now=10.0)
    assert scene.removed_at() == 10.0 + SETTLE_SECONDS
    scene.see(left, now=10.2)
    assert scene.removed_at() == 10.0 + SETTLE_SECONDS, "the same tuple: nothing has changed"
    scene.see((*left,), now=10.3)
    assert scene.removed_at() == 10.3 + SETTLE_SECONDS, "another tuple: something has"


def growing(size: int) -> tuple[Entry, ...]:
    stamp = FileStamp("model.joblib", 3, size, size, size)
    return (Entry("m", "3", "m/3", "model.joblib", Format.JOBLIB, (stamp,)), entry("2"), entry("1"))


def test_a_version_that_does_not_come_to_rest_is_told_after_a_while(scene: Scene) -> None:
    for tenths in range(110):
        scene.see(growing(tenths), now=10.0 + tenths / 10)
        assert not scene.unfinished(10.0 + tenths / 10) or tenths > 10 * UNFINISHED_SECONDS
    told = ("'m/3' is not complete yet: its files are still changing",)
    assert scene.unfinished(10.0 + 11) == told
    scene.see(growing(200), now=22.0 + SETTLE_SECONDS)
    assert scene.unfinished(22.0 + SETTLE_SECONDS) == told, "a look that comes late, as where the store is polled"
    scene.model.listed["3"].digest = "sha256:33"  # it has been copied
    assert scene.unfinished(99.0) == ()
    scene.see(growing(201), now=100.0)
    assert scene.unfinished(100.0) == (), "another change, long after"


def test_a_version_that_is_overwritten_once_after_long_is_not_told(scene: Scene) -> None:
    """It had never been copied: it is older than what is active."""
    older = replace(entry("1"), fingerprint=(FileStamp("model.joblib", 1, 2, 0, 0),))
    scene.see((entry("2"), older), now=100.0)
    assert scene.unfinished(100.0) == ()


def test_nothing_counts_as_removed_while_the_store_cannot_be_listed(scene: Scene) -> None:
    left = scene.both[1:]
    scene.see(left, now=10.0)
    scene.model_table.lose_store()
    assert scene.removed_at() == math.inf
    scene.see(left, now=100.0)
    assert scene.removed_at() == 100.0 + SETTLE_SECONDS, "the window begins anew with the store's return"

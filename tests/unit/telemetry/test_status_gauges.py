"""The status as Prometheus sees it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.domain.state import State
from serving.domain.status import ActiveStatus, ModelStatus, StateStatus, Status, StoreStatus, VersionStatus
from serving.telemetry.metrics import Metrics

NOW = datetime(2026, 11, 30, tzinfo=UTC)


class Board:
    """Holds a status."""

    def __init__(self, **parts: Any) -> None:
        self.status = Status(**parts)

    def samples(self, workers: int | None = None) -> dict[tuple[str, ...], float]:
        """Return what one scrape shows, by name and values of labels in their order."""
        metrics = Metrics("0")
        metrics.show_status(lambda: self.status, workers)
        return read_samples(metrics)


def read_samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(metrics.render(())[0].decode())
        for sample in family.samples
    }


def version(name: str, state: State, **parts: Any) -> VersionStatus:
    return VersionStatus(version=name, state=state, since=NOW, **parts)


def active(name: str) -> ActiveStatus:
    return ActiveStatus(version=name, digest="d", engine="onnx", activated_at=NOW)


def model(name: str, **parts: Any) -> ModelStatus:
    return ModelStatus(name=name, **{"active": None, **parts})


def test_it_is_ready_when_the_probe_says_so() -> None:
    serves = {"m": model("m", active=active("1"))}
    assert Board(models=serves).samples()["serving_ready",] == 0
    assert Board(models=serves, has_started=True).samples()["serving_ready",] == 1
    assert Board(models=serves, has_started=True, is_stopping=True).samples()["serving_ready",] == 0
    assert Board(models={"m": model("m")}, has_started=True).samples()["serving_ready",] == 0


@pytest.mark.parametrize("is_well", [True, False])
def test_store_and_state_say_what_is_wrong(is_well: bool) -> None:
    store = StoreStatus(is_available=is_well, problems=() if is_well else ("one", "two"))
    state = StateStatus(problem=None if is_well else "damaged", is_held=not is_well)
    found = Board(store=store, state=state).samples()
    assert found["serving_store_available",] == is_well
    assert found["serving_store_problems",] == (0 if is_well else 2)
    assert found["serving_state_problem",] == (not is_well)
    assert found["serving_state_held",] == (not is_well)


def test_workers_that_should_be_live_are_shown_where_there_are_workers() -> None:
    assert Board().samples(workers=4)["serving_workers_wanted",] == 4
    assert ("serving_workers_wanted",) not in Board().samples()


def test_a_model_without_an_active_version_is_seen_unless_it_was_unloaded() -> None:
    models = [model("on", active=active("1")), model("off"), model("away", unloaded=True), model("odd", problem="pin")]
    found = Board(models={one.name: one for one in models}).samples()
    assert found["serving_model_has_active", "on"] == 1
    assert found["serving_model_has_active", "off"] == 0
    assert ("serving_model_has_active", "away") not in found
    assert [found["serving_model_problem", one.name] for one in models] == [0, 0, 0, 1]


def test_versions_are_counted_by_state_and_loaded_ones_by_memory() -> None:
    versions = (
        version("4", State.REJECTED, memory_bytes=7),
        version("3", State.REJECTED),
        version("2", State.ACTIVE, is_loaded=True, memory_bytes=1000, engine="onnx"),
        version("1", State.READY, is_loaded=True),
    )
    found = Board(models={"m": model("m", active=active("2"), versions=versions)}).samples()
    assert {key[2]: value for key, value in found.items() if key[0] == "serving_versions"} == {
        "REJECTED": 2,
        "ACTIVE": 1,
        "READY": 1,
    }
    assert {key: value for key, value in found.items() if key[0] == "serving_version_memory_bytes"} == {
        ("serving_version_memory_bytes", "onnx", "m", "2"): 1000
    }


def test_each_scrape_shows_the_status_of_its_moment() -> None:
    board = Board(models={"m": model("m", versions=(version("1", State.LOADING),))})
    metrics = Metrics("0")
    metrics.show_status(lambda: board.status, None)
    assert read_samples(metrics)["serving_versions", "m", "LOADING"] == 1
    changed = model("m", versions=(version("1", State.ACTIVE),))
    board.status = replace(board.status, models={"m": changed})
    assert read_samples(metrics)["serving_versions", "m", "ACTIVE"] == 1
    assert ("serving_versions", "m", "LOADING") not in read_samples(metrics)
    board.status = Status()
    assert not [key for key in read_samples(metrics) if key[0] == "serving_versions"]

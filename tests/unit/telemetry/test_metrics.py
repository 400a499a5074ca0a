"""What is counted, under which names, and that it does not grow for ever."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.metrics import Metrics
from serving.telemetry.traffic import LATENCY_BOUNDS, Traffic, VersionLeases


def samples(metrics: Metrics, *loaded: VersionLeases) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(loaded)[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, *loaded: VersionLeases, **labels: str) -> float | None:
    return samples(metrics, *loaded).get((name, tuple(sorted(labels.items()))))


def test_requests_are_counted_by_version_and_status_with_their_rows_and_times() -> None:
    metrics = Metrics("1.2.3")
    traffic = metrics.traffic("iris", "3")
    traffic.record(200, 2, 0.0004)
    traffic.record(200, 1, 0.3)
    traffic.record(422, 0, 99.0)
    iris = {"model": "iris", "version": "3"}
    assert value(metrics, "serving_requests_total", **iris, status="200") == 2
    assert value(metrics, "serving_requests_total", **iris, status="422") == 1
    assert value(metrics, "serving_rows_total", **iris) == 3
    assert value(metrics, "serving_request_duration_seconds_count", **iris) == 3
    assert value(metrics, "serving_request_duration_seconds_sum", **iris) == pytest.approx(99.3004)
    name = "serving_request_duration_seconds_bucket"
    buckets = {le: value(metrics, name, **iris, le=le) for le in ("0.0005", "0.25", "0.5", "+Inf")}
    assert buckets == {"0.0005": 1, "0.25": 1, "0.5": 2, "+Inf": 3}
    assert metrics.traffic("iris", "3") is traffic


def test_a_time_on_a_bound_belongs_to_the_bucket_below() -> None:
    traffic = Traffic()
    for bound in LATENCY_BOUNDS:
        traffic.record(200, 1, bound)
    assert traffic.buckets == [1] * len(LATENCY_BOUNDS) + [0]


EVENTS: list[tuple[str, tuple[Any, ...], str, dict[str, str]]] = [
    ("record_gate", ("load", 0.2), "serving_gate_duration_seconds_count", {"gate": "load"}),
    ("count_rejection", ("iris", "golden"), "serving_candidate_rejects_total", {"model": "iris", "gate": "golden"}),
    ("record_swap", ("iris",), "serving_swaps_total", {"model": "iris"}),
    ("record_drain", ("iris", 1.5), "serving_drain_duration_seconds_count", {"model": "iris"}),
    ("count_host_restart", ("iris",), "serving_host_restarts_total", {"model": "iris"}),
    ("count_store_failure", (), "serving_store_errors_total", {}),
    ("count_fallback", ("internal",), "serving_shortcut_fallbacks_total", {"problem": "internal"}),
    ("record_resync", (0.01,), "serving_resync_duration_seconds_count", {}),
    ("count_state_failure", (), "serving_state_errors_total", {}),
]


@pytest.mark.parametrize(("method", "arguments", "name", "labels"), EVENTS, ids=[one[0] for one in EVENTS])
def test_every_event_is_counted_under_its_name(
    method: str, arguments: tuple[Any, ...], name: str, labels: dict[str, str]
) -> None:
    metrics = Metrics("0")
    for expected in (1, 2):
        getattr(metrics, method)(*arguments)
        assert value(metrics, name, **labels) == expected


def test_the_last_swap_has_a_time_and_the_build_a_version() -> None:
    metrics = Metrics("1.2.3")
    metrics.record_swap("iris")
    assert (value(metrics, "serving_last_swap_timestamp_seconds", model="iris") or 0) > 1.7e9
    assert any(name == "serving_build_info" and ("version", "1.2.3") in labels for name, labels in samples(metrics))


def test_what_is_loaded_is_told_as_it_is_at_the_scrape() -> None:
    metrics = Metrics("0")
    loaded = (VersionLeases("iris", "3", 7, True), VersionLeases("iris", "2", 0, False))
    assert value(metrics, "serving_leases", *loaded, model="iris", version="3") == 7
    assert value(metrics, "serving_leases", *loaded, model="iris", version="2") == 0
    assert value(metrics, "serving_active", *loaded, model="iris", version="3") == 1
    assert value(metrics, "serving_active", *loaded, model="iris", version="2") is None
    assert value(metrics, "serving_leases", model="iris", version="3") is None


def test_a_thousand_versions_leave_no_more_series_than_one() -> None:
    metrics = Metrics("0")
    metrics.traffic("iris", "0").record(200, 1, 0.1)
    few = len(samples(metrics))
    for version in range(1, 1000):
        metrics.traffic("iris", str(version)).record(200, 1, 0.1)
        metrics.forget("iris", str(version - 1))
    assert len(samples(metrics)) == few
    metrics.forget("never", "seen")


def test_a_model_that_is_gone_leaves_nothing() -> None:
    metrics = Metrics("0")
    nothing = set(samples(metrics))
    metrics.traffic("iris", "1").record(200, 1, 0.1)
    metrics.record_swap("iris")
    metrics.count_host_restart("iris")
    assert set(samples(metrics)) > nothing
    metrics.forget_model("iris")
    metrics.forget_model("never seen")
    assert set(samples(metrics)) == nothing


def test_names_and_label_values_survive_whatever_they_are() -> None:
    metrics = Metrics("0")
    metrics.count_rejection("iris", 'a"b\\c\nd')
    assert value(metrics, "serving_candidate_rejects_total", model="iris", gate='a"b\\c\nd') == 1


def test_forgetting_while_somebody_looks_harms_nobody() -> None:
    metrics = Metrics("0")
    stop = threading.Event()

    def forget() -> None:
        while not stop.is_set():
            for version in range(50):
                metrics.forget("iris", str(version))

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for _ in range(50):
            for version in range(50):
                metrics.traffic("iris", str(version)).record(200, 1, 0.1)
            metrics.render([])
    finally:
        stop.set()
        thread.join()

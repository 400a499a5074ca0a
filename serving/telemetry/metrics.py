"""Counts and measures the service, in one Prometheus registry per app that ``GET /metrics`` renders."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from serving.domain.answer_pair import AnswerPair
from serving.domain.rollout import BadExample, RunningRollout
from serving.domain.status import Status
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.dropped_spans import DroppedSpanCollector
from serving.telemetry.fallbacks import FallbackCollector
from serving.telemetry.record_counts import RecordCounts
from serving.telemetry.rollout_gauges import RolloutGauges
from serving.telemetry.split_counts import SplitCounts, SplitRow
from serving.telemetry.status_gauges import StatusCollector
from serving.telemetry.traffic import Traffic, TrafficCollector, VersionLeases, VersionTraffic

WORK_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)


class Metrics:
    """All metrics of one process. Methods may be called from any thread unless they say otherwise.

    With one worker that is the service. One of several workers is given its `sheet`: it counts requests there, and the
    supervisor, which has :class:`ServiceMetrics`, reads them.
    """

    def __init__(self, service_version: str, sheet: CountSheet | None = None) -> None:
        self.registry = CollectorRegistry()
        self._sheet = sheet
        self._traffic = TrafficCollector(sheet)
        self._fallbacks = FallbackCollector(sheet)
        self._splits = SplitCounts(sheet)
        self._register_counts()
        self._gate_seconds = self._make_histogram("serving_gate_duration_seconds", "Time one gate took.", ["gate"])
        self._rejects = self._make_counter("serving_candidate_rejects", "Candidates refused.", ["model", "gate"])
        self._swaps = self._make_counter("serving_swaps", "Activations of another version.", ["model"])
        self._last_swap = Gauge(
            "serving_last_swap_timestamp_seconds", "When the last swap was done.", ["model"], registry=self.registry
        )
        self._drain_seconds = self._make_histogram(
            "serving_drain_duration_seconds", "Time until the last lease ended.", ["model"]
        )
        self._host_restarts = self._make_counter(
            "serving_host_restarts", "Hosts that died and were replaced.", ["model"]
        )
        self._store_errors = self._make_counter("serving_store_errors", "Failed attempts to list the store.")
        self._resync_seconds = self._make_histogram(
            "serving_resync_duration_seconds", "Time one look at the store took."
        )
        self._state_errors = self._make_counter("serving_state_errors", "Failed writes of pins, quarantine or history.")
        self._rollouts = RolloutGauges(self.registry)
        build = Gauge("serving_build_info", "Constant 1.", ["version", "python"], registry=self.registry)
        build.labels(service_version, platform.python_version()).set(1)

    def _register_counts(self) -> None:
        self.registry.register(self._traffic)
        self.registry.register(self._fallbacks)
        ProcessCollector(namespace="serving", registry=self.registry)

    def count_traces(self) -> Callable[[int], None]:
        """Show from now on how many spans were not exported; return what counts them, in any thread.

        Once, if traces are on; event loop thread or the one that made this.
        """
        dropped = DroppedSpanCollector(self._sheet)
        self.registry.register(dropped)
        return dropped.count

    def traffic(self, model: str, version: str) -> Traffic:
        """Return the counters of one version. Event loop thread only; the names must be of a version that exists.

        Requests that reached no version are counted under two empty names, so that no URL becomes a label.
        """
        return self._traffic.of(model, version)

    def list_traffic(self) -> list[VersionTraffic]:
        """Return what was counted of every version so far. Event loop thread only."""
        return self._traffic.list_traffic()

    def count_in_split(self, model: str, number: int, key: bytes | None, *, is_new: bool, is_bad: bool) -> None:
        """Count an answer while requests are shared between two versions, in the split with this number.

        `key` is who the client is, None if that is not asked. Event loop thread only.
        """
        self._splits.count(model, number, key, is_new=is_new, is_bad=is_bad)

    def count_pair(self, model: str, number: int, key: bytes | None, pair: AnswerPair) -> None:
        """Count a request that both versions of a split have answered; `key` as above. Event loop thread only."""
        self._splits.count_pair(model, number, key, pair)

    def count_dropped(self, model: str, number: int, copies: int) -> None:
        """Count copies of requests that the new version of a split did not get. Event loop thread only."""
        self._splits.count_dropped(model, number, copies)

    def note_bad_answer(self, model: str, number: int, example: BadExample) -> None:
        """Keep an example of a new version's bad answers while requests are shared."""
        self._splits.note_example(model, number, example)

    def tell_bad_answers(self, tell: Callable[[str, int, BadExample], None]) -> None:
        """Call `tell` with each example that is new here: its model and the split's number come first."""
        self._splits.on_example = tell

    def read_examples(self, model: str, number: int) -> tuple[BadExample, ...]:
        """Return the examples of bad answers in a split."""
        return self._splits.read_examples(model, number)

    def read_splits(self) -> dict[tuple[str, int], SplitRow]:
        """Return what the whole service has counted in each split so far, by model and number."""
        return self._splits.read()

    def forget(self, model: str, version: str) -> None:
        """Drop the counters of a retired version, so that the number of series follows what is loaded.

        In a worker it may be called from any thread, too: see `TrafficCollector.forget`.
        """
        self._traffic.forget(model, version)

    def forget_model(self, model: str) -> None:
        """Drop every series of a model that is gone."""
        self._traffic.forget(model)
        self._splits.forget(model)
        for metric in (self._swaps, self._last_swap, self._host_restarts, self._drain_seconds):
            metric.remove(model)
        self._rejects.remove_by_labels({"model": model})
        self._rollouts.forget(model)

    def record_gate(self, gate: str, seconds: float) -> None:
        """Record how long one gate took, whatever its verdict."""
        self._gate_seconds.labels(gate).observe(seconds)

    def count_rejection(self, model: str, gate: str) -> None:
        """Count a candidate of `model` that `gate` refused."""
        self._rejects.labels(model, gate).inc()

    def record_swap(self, model: str) -> None:
        """Count an activation and note its time."""
        self._swaps.labels(model).inc()
        self._last_swap.labels(model).set_to_current_time()

    def record_drain(self, model: str, seconds: float) -> None:
        """Record how long a replaced version still answered."""
        self._drain_seconds.labels(model).observe(seconds)

    def count_host_restart(self, model: str) -> None:
        """Count a host that died and was replaced."""
        self._host_restarts.labels(model).inc()

    def record_rollout(self, model: str, rollout: RunningRollout) -> None:
        """Note how far a new version is, the evidence against it, and what has gone bad on both sides."""
        self._rollouts.show(model, rollout)

    def count_rollout(self, model: str, end: str) -> None:
        """Count a rollout that has ended; nothing is shown of its version any more."""
        self._rollouts.end(model, end)

    def count_store_failure(self) -> None:
        """Count a listing of the store that failed."""
        self._store_errors.inc()

    def record_resync(self, seconds: float) -> None:
        """Record how long one look at the store took."""
        self._resync_seconds.observe(seconds)

    def count_state_failure(self) -> None:
        """Count a write of the state that failed."""
        self._state_errors.inc()

    def count_fallback(self, problem: str) -> None:
        """Count a prediction that the short way left to the long way after an error, by the error's stable name.

        Event loop thread only.
        """
        self._fallbacks.count(problem)

    def show_status(self, read_status: Callable[[], Status], workers: int | None) -> None:
        """Show what `read_status` returns at each scrape, too; `workers` should answer, None where this process does.

        Call it once.
        """
        self.registry.register(StatusCollector(read_status, workers))

    def make_record_counts(self) -> RecordCounts:
        """Return the counts of the log of predictions, which are shown from now on. Once; event loop thread only."""
        counts = RecordCounts(self._sheet)
        self.registry.register(counts)
        return counts

    def render(self, loaded: Iterable[VersionLeases], accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text and its content type, for the caller's ``Accept``. Event loop thread only.

        `loaded` holds the leases of every loaded version, read where they are counted.
        """
        self._traffic.loaded = tuple(loaded)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _make_counter(self, name: str, documentation: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _make_histogram(self, name: str, documentation: str, labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, documentation, labels, registry=self.registry, buckets=WORK_BOUNDS)

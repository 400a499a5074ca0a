"""Random faults, swaps and clients for as long as one likes, all of it judged, and one summary."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil

from tests.e2e.armed import Faults
from tests.e2e.harness import Server, until
from tests.e2e.mishaps import MODELS, Mishaps
from tests.e2e.record import Record, Usage
from tests.e2e.traffic import Traffic

SETTINGS = {
    "SERVING_STORE__SETTLE_SECONDS": "0.05",
    "SERVING_STORE__RESYNC_SECONDS": "1",
    "SERVING_STORE__POLL_SECONDS": "0.2",
    "SERVING_STORE__WATCH": "events",
    "SERVING_CANDIDATE__TIMEOUT_SECONDS": "5",
    "SERVING_LOG__LEVEL": "info",
}
KEPT_VERSIONS, KEPT_REPLIES, KEPT_LOG_BYTES = 6, 1000, 32 << 20
FAULT_SHARE = 0.15  # of all steps; the others only swap
REPORT_SECONDS = 60.0
MORE_MEGABYTES = 40.0
CLIENTS: dict[str, dict[str, Any]] = {
    "keep-alive": {"rate": 80.0, "connections": 4},
    "one-shot": {"rate": 10.0, "connections": 2, "is_one_shot": True},
    "batch": {"rate": 10.0, "connections": 2, "rows": 50},
    "slow": {"rate": 4.0, "connections": 2, "pause_seconds": 0.1},
}


class Soak:
    """One server under eight groups of clients. What is wrong ends it and is in `failures`.

    The steps follow from `seed`; when they happen does not.
    """

    def __init__(self, server: Server, faults: Faults, seed: int, show: Callable[[str], None]) -> None:
        self.server, self.seed, self.show = server, seed, show
        self.random = random.Random(seed)
        self.record = Record(keep=KEPT_REPLIES)
        self.traffic = [
            Traffic("", model, client=client, record=self.record, **options)
            for model in MODELS
            for client, options in CLIENTS.items()
        ]
        self.mishaps = Mishaps(server, faults, self.random, self.record, self.traffic)
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.most_megabytes = 0.0
        self.last: Usage | None = None

    def run(self, seconds: float) -> str:
        """Go on for `seconds` and return the summary."""
        began = time.monotonic()
        for model in MODELS:
            self.mishaps.drop(model)
        self.server.start()
        for _ in range(5):  # the standby and the pages that come with the first swaps are part of the baseline
            self.mishaps.swap()
        with contextlib.ExitStack() as stack:
            for one in self.traffic:
                one.url = self.server.url
                stack.enter_context(one)
            until(lambda: self.record.counts[200] > 1000, "traffic")
            baseline = Usage.of(self.server)
            self._go_on(began + seconds)
        with contextlib.suppress(AssertionError, psutil.NoSuchProcess):
            until(lambda: self._is_back(baseline), "the end of what was under way", 20)
        return self._summary(time.monotonic() - began, baseline)

    def _go_on(self, ends_at: float) -> None:
        report_at = time.monotonic() + REPORT_SECONDS
        while time.monotonic() < ends_at and not self.failures:
            step = self.random.choice(self.mishaps.kinds) if self.random.random() < FAULT_SHARE else self.mishaps.swap
            try:
                step()
            except Exception as error:  # noqa: BLE001  (it is what this looks for)
                self.failures.append(f"{step.__name__}: {error!r}")
            if step != self.mishaps.swap:
                self.done[step.__name__] += 1
            self._keep_within_bounds()
            if self.record.problem_count:
                self.failures.append(f"after {step.__name__} there are wrong replies")
            if self.mishaps.sentinel.exists():
                self.failures.append("a hostile file has run")
            if time.monotonic() >= report_at:
                report_at += REPORT_SECONDS
                left = ends_at - time.monotonic()
                self.show(
                    f"{sum(self.record.counts.values())} requests, {self.mishaps.swaps} swaps, {left:.0f} s to go"
                )

    def _keep_within_bounds(self) -> None:
        """Give up what the soak itself would pile up: old versions and the log. Note the memory of the server."""
        for model in MODELS:
            newest = self.mishaps.newest[model]
            for version in range(max(1, newest - 2 * KEPT_VERSIONS), newest - KEPT_VERSIONS):
                shutil.rmtree(self.server.store / model / str(version), ignore_errors=True)
                (self.server.store / model / f"{version}.joblib").unlink(missing_ok=True)
        if self.server.log_path.stat().st_size > KEPT_LOG_BYTES:
            os.truncate(self.server.log_path, 0)
        with contextlib.suppress(psutil.NoSuchProcess):
            self.most_megabytes = max(self.most_megabytes, Usage.of(self.server).megabytes)

    def _is_back(self, baseline: Usage) -> bool:
        self.last = Usage.of(self.server)
        return self.last.is_back_at(baseline, MORE_MEGABYTES) or bool(self.failures)

    def _summary(self, seconds: float, baseline: Usage) -> str:
        counts = self.record.counts
        if self.last is None or not self.last.is_back_at(baseline, MORE_MEGABYTES):
            self.failures.append("resources are not back at the baseline")
        if self.record.problem_count:
            self.failures.append(f"wrong replies, the first: {self.record.problems[:3]}")
        lines = [
            f"seed {self.seed}, {seconds:.0f} s",
            f"requests   {sum(counts.values())}, not answered: {self.record.excused} unavoidably",
            f"wrong      {self.record.problem_count}",
            f"latency    p50 {1e3 * self.record.quantile(0.5):.1f} ms, p99 {1e3 * self.record.quantile(0.99):.1f} ms",
            f"swaps      {self.mishaps.swaps} ({self.mishaps.swaps / seconds:.1f}/s)",
            f"faults     {sum(self.done.values())}: {', '.join(f'{n} {k}' for k, n in sorted(self.done.items()))}",
            f"baseline   {baseline}",
            f"at the end {self.last}, at most {self.most_megabytes} MB",
            f"failures   {len(self.failures)}",
            *self.failures,
        ]
        return "\n".join(lines)

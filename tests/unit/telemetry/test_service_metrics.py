"""What the supervisor renders for a service of several workers, with real processes that count and are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.service_metrics import ServiceMetrics
from serving.telemetry.service_processes import ServiceProcessCollector
from serving.telemetry.traffic import VersionLeases
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")

COUNTING = """
import sys
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
metrics = Metrics("0", CountSheet(int(sys.argv[1])))
while True:
    metrics.traffic("iris", "1").record(200, 1, 0.1)
"""


class Process:
    """A worker that does nothing but count."""

    def __init__(self, metrics: ServiceMetrics, index: int) -> None:
        self.sheet = CountSheet.create()
        command = [sys.executable, "-c", COUNTING, str(self.sheet.fd)]
        self.pid = subprocess.Popen(command, pass_fds=[self.sheet.fd]).pid
        metrics.start_worker(index, self.sheet, self.pid)

    def kill(self) -> float:
        os.kill(self.pid, 9)
        usage = os.wait4(self.pid, 0)[2]
        return usage.ru_utime + usage.ru_stime


def samples(metrics: ServiceMetrics, leases: dict[int, list[VersionLeases]] | None = None) -> dict[str, float]:
    text = metrics.render_workers(leases or {})[0].decode()
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


REQUESTS = "serving_requests_total model=iris status=200 version=1"


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_counters_never_go_back_while_workers_are_killed_and_replaced() -> None:
    metrics = ServiceMetrics("0")
    workers = {index: Process(metrics, index) for index in range(2)}
    watched = [REQUESTS, *(f"serving_worker_requests_total worker={index}" for index in range(2))]
    watched += ["serving_process_cpu_seconds_total"]
    last = dict.fromkeys(watched, 0.0)

    def look() -> dict[str, float]:
        found = samples(metrics)
        for name in watched:
            assert found.get(name, 0.0) >= last[name], name
            last[name] = found.get(name, 0.0)
        return found

    def wait_for_requests(index: int, more: int) -> None:
        name = watched[1 + index]
        target = last[name] + more
        until(lambda: look().get(name, 0.0) >= target, f"{more} requests of worker {index}", 60.0)

    for turn in range(4):
        index = turn % 2
        wait_for_requests(index, 1000)
        seconds = workers[index].kill()
        look()  # dead and reaped, not absorbed
        metrics.end_worker(index, seconds)
        assert look()["serving_workers"] == 1
        metrics.count_worker_restart(index)
        workers[index] = Process(metrics, index)
        metrics.note_generation(index, 7 + turn)
    found = look()
    assert found["serving_workers"] == 2
    assert [found[f"serving_worker_restarts_total worker={index}"] for index in range(2)] == [2, 2]
    assert [found[f"serving_worker_generation worker={index}"] for index in range(2)] == [9, 10]
    for index, worker in workers.items():
        metrics.end_worker(index, worker.kill())
    found = look()
    assert found[REQUESTS] == sum(metrics.requests_by_worker().values())
    assert "serving_worker_generation worker=0" not in found


def test_leases_are_those_of_live_workers_only() -> None:
    metrics = ServiceMetrics("0")
    metrics.start_worker(0, CountSheet.create(4), os.getpid())
    leases = {0: [VersionLeases("iris", "1", 2, True)], 1: [VersionLeases("iris", "1", 9, True)]}
    assert samples(metrics, leases)["serving_leases model=iris version=1"] == 2
    metrics.end_worker(0, 0)


def test_forgetting_reaches_the_workers_after_the_sums() -> None:
    sent: list[tuple[str, str | None]] = []
    metrics = ServiceMetrics("0", lambda model, version: sent.append((model, version)))
    metrics.record_swap("iris")
    metrics.forget("iris", "1")
    metrics.forget_model("iris")
    assert sent == [("iris", "1"), ("iris", None)]
    assert "serving_swaps_total model=iris" not in samples(metrics)


def write_process(proc: Path, pid: int, ticks: int, start: int = 50) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "fd" / "0").touch()
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(start), "1000", "3"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {' '.join(fields)}\n")
    (proc / str(pid) / "limits").write_text("Max open files            1024      4096    files\n")


def figures(collector: ServiceProcessCollector) -> dict[str, float]:
    found = [sample for family in collector.collect() for sample in family.samples]
    return {sample.name.removeprefix("serving_process_"): sample.value for sample in found}


def test_processes_are_summed_and_dead_ones_keep_their_processor_time(tmp_path: Path) -> None:
    hertz, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "stat").write_text("btime 1000\n")
    for pid, ticks in ((1, 2 * hertz), (2, 3 * hertz)):
        write_process(tmp_path, pid, ticks)
    collector = ServiceProcessCollector(1, tmp_path)
    collector.add(2)
    found = figures(collector)
    assert found["cpu_seconds_total"] == 5
    assert found["resident_memory_bytes"] == 6 * page
    assert (found["open_fds"], found["max_fds"]) == (2, 1024)
    assert found["start_time_seconds"] == 1000 + 50 / hertz
    (tmp_path / "2" / "stat").unlink()
    assert figures(collector)["cpu_seconds_total"] == 5
    assert figures(collector)["resident_memory_bytes"] == 3 * page
    write_process(tmp_path, 2, 90 * hertz, start=60)  # another process under the same number
    assert figures(collector)["cpu_seconds_total"] == 5
    for _ in range(2):
        collector.absorb_process(2, 3.5)
        assert figures(collector)["cpu_seconds_total"] == 5.5


def test_an_ended_workers_processor_time_and_fallbacks_stay_and_its_model_can_be_forgotten() -> None:
    metrics = ServiceMetrics("0")
    sheet = CountSheet.create(4)
    worker = Metrics("0", CountSheet(os.dup(sheet.fd), 4))
    metrics.start_worker(0, sheet, 2**22 + 1)  # no process has this number
    worker.traffic("iris", "1").record(200, 1, 0.1)
    worker.count_fallback("internal")
    metrics.end_worker(0, 5000)
    found = samples(metrics)
    assert found["serving_process_cpu_seconds_total"] >= 5000
    assert found["serving_shortcut_fallbacks_created problem=internal"] > 1.7e9
    assert found[REQUESTS] == 1
    metrics.forget_model("iris")
    assert REQUESTS not in samples(metrics)

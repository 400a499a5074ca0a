"""Measures the processes of a service of several workers as if they were one: the supervisor and its live workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX = "serving_process_"


class ProcessFigures(NamedTuple):
    """What ``/proc`` says of one process; `started_seconds` counts from the start of the machine."""

    cpu_seconds: float
    virtual_bytes: float
    resident_bytes: float
    open_fds: int
    started_seconds: float


class ServiceProcessCollector(Collector):
    """Processor time, memory and descriptors of the whole service, under the names of one process. Any thread."""

    def __init__(self, supervisor_pid: int | None = None, proc: Path = Path("/proc")) -> None:
        self._supervisor = os.getpid() if supervisor_pid is None else supervisor_pid
        self._proc = proc
        self._lock = threading.Lock()  # guards what follows
        self._last: dict[int, ProcessFigures | None] = {self._supervisor: None}
        self._absorbed_seconds = 0.0

    def add(self, pid: int) -> None:
        """Count a worker's process from now on."""
        with self._lock:
            self._last[pid] = None

    def absorb_process(self, pid: int, cpu_seconds: float) -> None:
        """Keep the processor time of a worker that was reaped, as its rusage says. Does nothing for an unknown pid."""
        with self._lock:
            if pid not in self._last:
                return
            last = self._last.pop(pid)
            self._absorbed_seconds += max(cpu_seconds, last.cpu_seconds if last is not None else 0.0)

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry. Reads ``/proc``; yields nothing where there is none."""
        found = {pid: self._read(pid) for pid in list(self._last)}
        supervisor = found.get(self._supervisor)
        if supervisor is None:
            return
        with self._lock:
            live = [figures for pid, figures in found.items() if figures is not None and self._keep(pid, figures)]
            cpu = self._absorbed_seconds + sum(last.cpu_seconds for last in self._last.values() if last is not None)
        boot = self._boot_seconds()
        yield _gauge("virtual_memory_bytes", "Virtual memory size in bytes.", sum(one.virtual_bytes for one in live))
        yield _gauge("resident_memory_bytes", "Resident memory size in bytes.", sum(one.resident_bytes for one in live))
        yield _gauge(
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot + supervisor.started_seconds,
        )
        about = "Total user and system CPU time spent in seconds."
        yield CounterMetricFamily(f"{_PREFIX}cpu_seconds_total", about, value=cpu)
        yield _gauge("open_fds", "Number of open file descriptors.", sum(one.open_fds for one in live))
        yield _gauge("max_fds", "Maximum number of open file descriptors.", self._max_fds())

    def _keep(self, pid: int, figures: ProcessFigures) -> bool:
        """Note the figures, unless the process was absorbed meanwhile or another one has its number now."""
        if pid not in self._last:
            return False
        last = self._last[pid]
        if last is not None and last.started_seconds != figures.started_seconds:
            return False
        if last is None or figures.cpu_seconds >= last.cpu_seconds:
            self._last[pid] = figures
        return True

    def _read(self, pid: int) -> ProcessFigures | None:
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        try:
            # see proc(5): what follows the name, which may itself have parentheses
            parts = (self._proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        try:
            descriptors = len(os.listdir(self._proc / str(pid) / "fd"))  # noqa: PTH208 - only counted
        except OSError:  # it ends, or runs as another user
            descriptors = 0
        cpu = (float(parts[11]) + float(parts[12])) / ticks
        return ProcessFigures(cpu, float(parts[20]), float(parts[21]) * page, descriptors, float(parts[19]) / ticks)

    def _boot_seconds(self) -> float:
        lines = (self._proc / "stat").read_bytes().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(b"btime "))

    def _max_fds(self) -> float:
        lines = (self._proc / str(self._supervisor) / "limits").read_bytes().splitlines()
        return next(float(line.split()[3]) for line in lines if line.startswith(b"Max open file"))


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, about, value=value)

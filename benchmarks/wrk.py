"""Closed-loop load: ``wrk`` where it is installed, else our own generator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cores import on_cores
from benchmarks.load import closed_loop
from benchmarks.percentiles import Latency

_SCRIPT = """
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"per_second": %%.1f, "p50_ms": %%.4f, "p99_ms": %%.4f, "failures": %%d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one stretch of load found."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int


class Generator:
    """Sends one body again and again, from some cores. `name` says with which program."""

    def __init__(self, directory: Path, body: bytes, cores: Iterable[int], name: str = "predict") -> None:
        self._directory = directory
        self._body = body
        self._cores = tuple(cores)
        self.name = "wrk" if shutil.which("wrk") else "own generator"
        self._script = directory / f"{name}.lua"
        self._script.write_text(_SCRIPT % body.decode())

    def load(self, url: str, path: str, *, connections: int, seconds: float) -> Load:
        """Keep so many connections busy for so long, in whole seconds. Blocks."""
        if self.name != "wrk":
            return self._own(url, path, connections, seconds)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--timeout", "60s"]
        command += ["-s", str(self._script), url + path]
        with on_cores(self._cores):
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return Load(**json.loads(said.rpartition("RESULT ")[2]))

    def _own(self, url: str, path: str, connections: int, seconds: float) -> Load:
        file = self._directory / "replies.json"
        replies = closed_loop(url, path, self._body, file, connections=connections, seconds=seconds, cores=self._cores)
        latency = Latency.of([reply.done_at - reply.sent_at for reply in replies])
        failures = sum(reply.status != 200 for reply in replies)
        return Load(len(replies) / seconds, latency.p50, latency.p99, failures)

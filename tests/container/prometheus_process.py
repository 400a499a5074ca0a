"""A real Prometheus, aimed at the server under test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

START_SECONDS = 30
SCRAPE_SECONDS = 30


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"no {program} on this machine (Debian package prometheus)"
    )


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.client = httpx.Client(base_url=url, trust_env=False)
        self.log = log

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer; fail with Prometheus's words when it has none."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of an instant query, nothing while Prometheus does not answer."""
        assert self.process.poll() is None, f"prometheus has exited:\n{self.log.read_text()}"
        try:
            answer = self.client.get("/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return []
        return [float(sample["value"][1]) for sample in answer.json()["data"]["result"]] if answer.is_success else []

    def wait_for(self, query: str, seconds: float) -> list[float]:
        """Ask until there is an answer or the time is up."""
        deadline = time.monotonic() + seconds
        while not (found := self.values(query)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


@contextlib.contextmanager
def run_prometheus(
    config: Path, url: str, directory: Path, rules: dict[str, Any] | None = None
) -> Iterator[Prometheus]:
    """Run Prometheus with the provisioned configuration, hurried and aimed at `url`, and with `rules` if given."""
    changed = yaml.safe_load(config.read_text())
    changed["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (job,) = changed["scrape_configs"]
    job["static_configs"] = [{"targets": [urlsplit(url).netloc]}]
    changed["rule_files"] = []
    if rules is not None:
        (directory / "alerts.yml").write_text(yaml.safe_dump(rules))
        changed["rule_files"] = ["alerts.yml"]
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(changed))
    port = free_port()
    log = directory / "prometheus.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    running = Prometheus(process, f"http://127.0.0.1:{port}", log)
    try:
        yield running
    finally:
        running.client.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

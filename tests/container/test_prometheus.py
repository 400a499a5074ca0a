"""The provisioned Prometheus configuration is accepted by Prometheus, and scrapes a live server."""

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

pytestmark = pytest.mark.container

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


@pytest.fixture
def prometheus(prometheus_file: Path, server: Any, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus with the provisioned configuration, aimed at the server under test and hurried."""
    config = yaml.safe_load(prometheus_file.read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [urlsplit(server.url).netloc]}]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))

    port = free_port()
    log = tmp_path / "prometheus.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
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


@needs("promtool")
def test_promtool_accepts_the_configuration(prometheus_file: Path) -> None:
    command = ["promtool", "check", "config", prometheus_file]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("prometheus")
def test_prometheus_scrapes_a_live_server(prometheus: Prometheus) -> None:
    assert prometheus.wait_for("vector(1)", START_SECONDS) == [1], prometheus.log.read_text()
    assert prometheus.wait_for('up{job="serving"} == 1', SCRAPE_SECONDS) == [1], prometheus.log.read_text()
    assert prometheus.wait_for('count({__name__=~"serving_.+", job="serving"}) > 0', SCRAPE_SECONDS)

"""The provisioned Prometheus configuration is accepted by Prometheus, and scrapes a live server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container.prometheus_process import SCRAPE_SECONDS, START_SECONDS, Prometheus, needs, run_prometheus

pytestmark = pytest.mark.container


@pytest.fixture
def prometheus(prometheus_file: Path, server: Any, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus with the provisioned configuration, aimed at the server under test and hurried."""
    with run_prometheus(prometheus_file, server.url, tmp_path) as running:
        yield running


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

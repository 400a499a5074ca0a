"""Recent rows with several workers: those of all of them are replayed."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import peculiar
import pytest

from tests.e2e.harness import NO_TLS, constant, serving, write_version

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


def test_a_version_that_fails_on_recent_rows_of_any_worker_is_refused(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True, SERVING_SERVER__WORKERS="2") as server:
        server.wait_active("m", 1)
        for _ in range(40):  # of connections of its own, so that both workers get some
            with httpx.Client(verify=NO_TLS, timeout=60) as client:
                body = {"instances": [[13.0, 1.0], [1.0, 1.0]]}
                assert client.post(server.url + "/models/m/predict", json=body).status_code == 200
        server.drop("m", 2, constant(2, peculiar.Picky))
        server.wait_state("m", 2, "REJECTED")
        evidence = server.version("m", 2)["gates"][-1]["evidence"]
        assert evidence.startswith("40 of 80 recent rows, which the active version 1 answers, are not answered as well")
        server.drop("m", 3, constant(3))
        server.wait_active("m", 3)

"""`make soak`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.e2e.armed import Faults
from tests.e2e.harness import ARMED, Server
from tests.e2e.soak import SETTINGS, Soak


@pytest.mark.soak
def test_no_fault_and_no_swap_is_noticed_for_as_long_as_we_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SOAK_SECONDS (600) of random faults from SOAK_SEED (a new one); every invariant of `record` holds throughout."""
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
    faults = Faults(tmp_path / "faults")
    server = Server(tmp_path, entry=(ARMED, faults.directory), **SETTINGS)

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)

    show(f"seed {seed}, {seconds:.0f} s")
    soak = Soak(server, faults, seed, show)
    try:
        show(soak.run(seconds) + "\n")
    finally:
        server.client.close()
        if server.process is not None and server.process.poll() is None:
            server.kill()
    assert not soak.failures, f"{soak.failures}; the log: {server.log_path}"

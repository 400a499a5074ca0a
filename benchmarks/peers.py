"""The services measured beside ours: uvicorn with one worker, on the same cores."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cores import on_cores
from benchmarks.run import ROOT

USUAL = "benchmarks.usual_service:app"
ECHO = "benchmarks.echo:app"
START_SECONDS = 60.0


@contextmanager
def peer(application: str, *, on: Iterable[int], model: Path | None = None) -> Iterator[str]:
    """Run an ASGI application under uvicorn on some cores and return its URL."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--no-access-log"]
    environment = {**os.environ, **({"MODEL": str(model)} if model else {})}
    with on_cores(on):
        process = subprocess.Popen(
            [*command, "--log-level", "warning"], cwd=ROOT, env=environment, start_new_session=True
        )
    try:
        _wait_until_it_listens(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    ends_at = time.monotonic() + START_SECONDS
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            raise RuntimeError(f"the peer exited with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the peer does not listen after {START_SECONDS:g} s")

"""A real server with its default settings, and what benchmarks ask of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cores
from tests.e2e.harness import Server, until


@contextmanager
def running(
    directory: Path,
    *,
    store: Path | None = None,
    on: Iterable[int] = cores.ALL,
    wait_ready: bool = True,
    python: str = sys.executable,
    **environment: str,
) -> Iterator[Server]:
    """Run ``serving serve`` on some cores, with no setting but those in `environment`, and kill it in the end.

    `python` is the one that has the package: another checkout's runs that one's code.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = Server(directory, store=store, python=python)
    server.environment = environment
    try:
        with cores.on_cores(on):
            server.start(wait_ready=wait_ready)
        yield server
    except BaseException:
        if server.log_path.exists():
            print(server.log_path.read_text()[-5000:])
        raise
    finally:
        server.client.close()
        if server.process is not None and server.process.poll() is None:
            server.kill()


def pid_of(server: Server) -> int:
    """Return the process id of the server itself."""
    assert server.process is not None
    return server.process.pid


def all_pids(server: Server) -> list[int]:
    """Return the server, the zygote and the hosts."""
    return [pid_of(server), *(process.pid for process in server.processes())]


class LogReader:
    """Waits for lines in a server's log: unlike asking over HTTP, that costs the server nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._offset = server.log_path.stat().st_size

    def wait(self, is_wanted: Callable[[dict[str, Any]], bool], what: str, seconds: float = 180.0) -> float:
        """Wait for a line written since this reader was made and return when it was seen (monotonic seconds)."""
        until(lambda: any(map(is_wanted, self._server.log(self._offset))), what, seconds, every=0.02)
        return time.monotonic()

    def wait_active(self, model: str, version: str | int) -> float:
        """Wait until a version has become active."""
        wanted = {"event": "transition", "model": model, "version": str(version), "after": "ACTIVE"}
        return self.wait(lambda line: wanted.items() <= line.items(), f"{model}/{version} becoming active")


def gauge(server: Server, name: str) -> float:
    """Return one sample without labels from ``GET /metrics``."""
    text = server.client.get(server.url + "/metrics").text
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def wait_settled(server: Server, models: int, seconds: float = 600.0) -> dict[str, str]:
    """Wait until so many models are active and none is on its way to another version; return the engine of each."""

    def engines() -> dict[str, str] | None:
        found = server.get("/models/active")["models"]
        is_settled = all(one["active"] and one["target"] in (None, _as_target(one)) for one in found)
        return {one["name"]: one["active"]["engine"] for one in found} if is_settled and len(found) == models else None

    return until(engines, f"{models} models being active", seconds, every=0.2) or {}


def _as_target(model: dict[str, Any]) -> dict[str, str]:
    return {"version": model["active"]["version"], "state": "ACTIVE"}

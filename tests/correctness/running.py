"""Drops subjects into the store of a real server, a group at a time, and asks each as soon as it answers."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import threadpoolctl

from tests.correctness.answers import ask_itself
from tests.correctness.asking import Finding, Served, ask_everything
from tests.correctness.cases import Subject
from tests.correctness.client import Clients
from tests.correctness.material import cells
from tests.e2e.harness import Server, serving

GROUP = 40
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),  # the server of this very tree, wherever another one is installed
    "SERVING_SECURITY__PICKLE_TRUSTED": "",
    "SERVING_SERVER__GRPC_PORT": "0",
    "SERVING_LOG__LEVEL": "info",
    "SERVING_CANDIDATE__TIMEOUT_SECONDS": "600",
    "SERVING_GATES__MAX_LATENCY_SECONDS": "60",
    "SERVING_STORE__SETTLE_SECONDS": "0.1",
}


def run(subjects: Iterable[Subject], group: int = GROUP) -> Iterator[Finding]:
    """Yield what comes of each subject. Blocks; runs one server at a time, in a directory that is removed."""
    waiting = iter(subjects)
    with threadpoolctl.threadpool_limits(1):  # as hosts do: with more threads sums end in other digits
        while members := list(islice(waiting, group)):
            with tempfile.TemporaryDirectory(prefix="correctness-") as directory:
                yield from _run_group(Path(directory), members)


def _run_group(directory: Path, members: Sequence[Subject]) -> Iterator[Finding]:
    named = [(f"m{place}", member) for place, member in enumerate(members)]
    findings = {model: Finding(member.kind, member.name) for model, member in named}
    written = []
    for model, member in named:
        try:
            member.write(directory / "store" / model / "1")
            written.append((model, member))
        except Exception as error:  # noqa: BLE001  (what its own library cannot write is nobody's file)
            findings[model].refused = f"cannot be written: {type(error).__name__}: {error!s:.150}"
    with serving(directory, **ENVIRONMENT) as server:
        clients = _clients(server)
        for model, member in written:
            _ask(server, clients, model, member, findings[model])
            if server.process is not None and server.process.poll() is not None:
                findings[model].differ(f"the server died: exit status {server.process.returncode}")
                clients.close()
                server.start()
                clients = _clients(server)
            yield findings[model]
        clients.close()
        server.stop(120)
    for model, _ in named:
        if findings[model].refused.startswith("cannot be written"):
            yield findings[model]


def _clients(server: Server) -> Clients:
    listening = [event["address"] for event in server.log() if event["event"] == "listening_for_grpc"]
    address = listening[-1] if listening else None
    return Clients(server.url, address)


def _ask(server: Server, clients: Clients, model: str, member: Subject, finding: Finding) -> None:
    version = _wait(server, model)
    if version.get("state") != "ACTIVE":
        gates = [gate for gate in version.get("gates") or () if gate["verdict"] == "refused"]
        evidence = "; ".join(f"{gate['gate']}: {gate['evidence']}" for gate in gates) or version.get("reason")
        finding.refused = f"{version.get('state')}: {evidence!s:.400}"
        rows = len(cells(member.material.rows))
        if all(isinstance(ask_itself(own, member.material.rows, rows), Exception) for own in member.itself.values()):
            finding.refused = f"answers nothing itself; {finding.refused}"
        return
    compilation = version.get("compilation") or {}
    is_compiled = compilation.get("engine") is not None
    finding.engine = "compiled" if is_compiled else "hosted"
    served = Served(model, version["signature"], is_compiled, member.itself, member.may_lack)
    try:
        ask_everything(clients, served, member.material, finding)
    except Exception as error:  # noqa: BLE001  (whatever broke: one model must not hide the others)
        finding.differ(f"asking broke off: {type(error).__name__}: {error!s:.300}")


def _wait(server: Server, model: str, seconds: float = 600.0) -> Any:
    until = time.monotonic() + seconds
    version: Any = {}
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            version = server.version(model, 1)
            if version.get("state") in ("ACTIVE", "REJECTED", "QUARANTINED"):
                return version
        time.sleep(0.05)
    return version

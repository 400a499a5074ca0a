"""From the instant of a commit to the first answer of the new version by the last of all workers."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.server import pid_of
from benchmarks.wire import Connection, request_bytes
from tests.e2e.harness import Server

WORD = "memfd:serving-generation"
POLL_SECONDS = 20e-6
PATIENCE_SECONDS = 60.0
MOST_CONNECTIONS = 64


class CommittedWord:
    """The generation that a service has committed, read where its workers read it."""

    def __init__(self, server: Server) -> None:
        """Map the word of a running service; raises StopIteration when the service has one worker only."""
        descriptors = Path(f"/proc/{pid_of(server)}/fd")
        path = next(one for one in descriptors.iterdir() if WORD in str(one.readlink()))
        fd = os.open(path, os.O_RDONLY)
        self._words = memoryview(mmap.mmap(fd, mmap.PAGESIZE, access=mmap.ACCESS_READ)).cast("Q")
        os.close(fd)

    def read(self) -> int:
        """Return the committed generation."""
        return self._words[0]

    def wait_change(self, before: int) -> float:
        """Wait for another generation; return when the old one was last seen (monotonic seconds). Blocks."""
        seen_at = time.monotonic()
        ends_at = seen_at + PATIENCE_SECONDS
        while self._words[0] == before:
            seen_at = time.monotonic()
            if seen_at > ends_at:
                raise TimeoutError("nothing was committed")
            time.sleep(POLL_SECONDS)
        return seen_at


class WorkerClients:
    """One connection to each worker of a service, for as long as workers keep them. Blocks."""

    def __init__(self, server: Server, path: str, body: bytes) -> None:
        """Connect until every worker has a connection; raises RuntimeError when none reaches a worker."""
        self._request = request_bytes(path, body)
        self._pids = [one["pid"] for one in server.get("/workers")["workers"]]
        made: list[Connection] = []
        found: dict[int, Connection] = {}
        while len(found) < len(self._pids):
            if len(made) == MOST_CONNECTIONS:
                raise RuntimeError(f"{MOST_CONNECTIONS} connections do not reach every worker")
            made.append(Connection(server.url))
            made[-1].exchange(self._request)  # then it is accepted
            found = {pid: one for pid in self._pids for one in made if one.port in _peer_ports(pid)}
        self._connections = list(found.values())
        for connection in made:
            if connection not in self._connections:
                connection.close()

    def reach_all(self) -> bool:
        """Whether every worker still has a connection: workers pass connections to others that have fewer."""
        ports = {connection.port for connection in self._connections}
        return all(ports & _peer_ports(pid) for pid in self._pids)

    def ask_all(self) -> set[str]:
        """Send one request over each connection, wait for all answers, and return the versions that they name."""
        for connection in self._connections:
            connection.send(self._request)
        return {_version_of(*connection.receive()) for connection in self._connections}

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()


def time_commit(word: CommittedWord, clients: WorkerClients, act: Callable[[], Any], version: str) -> float:
    """Call `act`, and return the seconds from the commit of `version` until every worker has answered with it.

    The clock starts when the old generation was last seen, so the result is never too short. Raises RuntimeError when
    workers answer with several versions to requests that were sent after a commit. Blocks.
    """
    clients.ask_all()
    generation = word.read()
    act()
    while True:
        committed_at = word.wait_change(generation)
        generation = word.read()
        versions = clients.ask_all()
        seconds = time.monotonic() - committed_at
        if versions == {version}:
            return seconds
        if len(versions) > 1:
            raise RuntimeError(f"the workers answered with {versions} after one commit")


def _version_of(status: int, body: bytes) -> str:
    if status != 200:
        raise RuntimeError(f"the server answered {status}")
    version: str = json.loads(body)["version"]
    return version


def _peer_ports(pid: int) -> set[int]:
    return {one.raddr.port for one in psutil.Process(pid).net_connections("tcp") if one.raddr}

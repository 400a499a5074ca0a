"""Clients of ``GET /events``: many that only read, in a process of their own, and one that remembers what it saw."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import httpx

from benchmarks.cores import on_cores
from tests.e2e.harness import NO_TLS, Server, connect, until

REQUEST = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
RECONNECT_SECONDS = 0.1


@contextlib.contextmanager
def readers(url: str, count: int, cores: Iterable[int]) -> Iterator[None]:
    """Keep so many streams open, and read all that they bring."""
    command = [sys.executable, "-m", "benchmarks.event_streams", url, str(count)]
    with on_cores(cores):
        process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n", "the streams could not be opened"
        yield
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Follower:
    """Follows the stream from a thread, over restarts of the server; `seen` has the ids of history, in their order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._last = ""
        self.seen: list[str] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        until(lambda: self.connections, "the stream being open")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join(30.0)

    def _follow(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(httpx.HTTPError):
                self._read()
            time.sleep(RECONNECT_SECONDS)

    def _read(self) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        event = ""
        with (
            httpx.Client(timeout=httpx.Timeout(5.0, read=30.0), verify=NO_TLS) as client,
            client.stream("GET", f"{self._server.url}/events", headers=headers) as answer,
        ):
            answer.raise_for_status()
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                    self.connections += event == "start"
                elif name == "id":
                    self._last = value
                    if event == "history":
                        self.seen.append(value)
                if self._is_over.is_set():
                    return


def _read_for_good(url: str, count: int) -> None:
    """Open the streams, say so, and read until this process is ended."""
    sockets = [connect(url) for _ in range(count)]
    for each in sockets:
        each.sendall(REQUEST)
        assert b" 200 " in each.recv(1 << 16), "refused"
    threads = [threading.Thread(target=_drain, args=(each,), daemon=True) for each in sockets]
    for thread in threads:
        thread.start()
    print("open", flush=True)
    for thread in threads:
        thread.join()


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def history_ids(server: Server, after: int) -> list[int]:
    """Return the ids of all entries of the history after one, oldest first."""
    entries = server.get("/history?limit=10000")["history"]
    return sorted(entry["id"] for entry in entries if entry["id"] > after)


if __name__ == "__main__":
    _read_for_good(sys.argv[1], int(sys.argv[2]))

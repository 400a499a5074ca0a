"""A load generator in a process of its own: ``python -m benchmarks.load``, started by `OpenLoop` and `closed_loop`.

Open loop: a request is due every 1/rate seconds, whether or not earlier ones were answered, and its latency counts from
when it was due. A request that finds no idle connection opens another. Closed loop: so many connections, each sending
its next request when it has its answer. One thread around ``select`` with microsecond timeouts (over ``epoll``, so that
thousands of connections may wait for a server that has stopped answering), no garbage collector, and a higher priority
where that is allowed, because a client on another machine would not compete for these cores.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cores import on_cores
from benchmarks.wire import address_of, connect, cut_response, request_bytes

NICENESS = -10
LAST_ANSWERS_SECONDS = 10.0
IDLE_SECONDS = 3.0  # uvicorn closes a connection after 5 s without a request; a client that knows does not use it then
Row = tuple[float, float, float, int]


class Reply(NamedTuple):
    """One request: when it was due, sent and answered (monotonic seconds), and its status; 0 for no answer."""

    due_at: float
    sent_at: float
    done_at: float
    status: int

    @property
    def seconds(self) -> float:
        """Latency from when it was due."""
        return self.done_at - self.due_at


class OpenLoop:
    """Sends `rate` requests a second, from some cores, for the length of a ``with`` block; then `replies` are there."""

    def __init__(self, url: str, path: str, body: bytes, rate: float, file: Path, cores: Iterable[int]) -> None:
        self._cores = tuple(cores)
        self._command = [*_command(url, path, body, file), "--rate", str(rate)]
        self._file = file
        self.replies: list[Reply] = []

    def __enter__(self) -> OpenLoop:
        with on_cores(self._cores):
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(LAST_ANSWERS_SECONDS + 10):
            raise RuntimeError("the load generator failed")
        self.replies = _read(self._file)

    def between(self, begin: float, end: float) -> list[Reply]:
        """Return the requests that were due in a stretch of monotonic time."""
        return [reply for reply in self.replies if begin <= reply.due_at < end]


def closed_loop(
    url: str, path: str, body: bytes, file: Path, *, connections: int, seconds: float, cores: Iterable[int]
) -> list[Reply]:
    """Keep so many connections busy for so long, from some cores, and return the requests. Blocks."""
    command = [*_command(url, path, body, file), "--connections", str(connections), "--seconds", str(seconds)]
    with on_cores(cores):
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return _read(file)


def _command(url: str, path: str, body: bytes, file: Path) -> list[str]:
    body_file = file.with_suffix(".body")
    body_file.write_bytes(body)
    return [sys.executable, "-m", "benchmarks.load", url, path, str(body_file), str(file)]


def _read(file: Path) -> list[Reply]:
    return [Reply(*row) for row in json.loads(file.read_text())]


# --- the process -----------------------------------------------------------------------------------------------------


class _Client:
    """The connections of the generator and what has become of each request."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._address = address
        self._request = request
        self._idle: list[tuple[socket.socket, float]] = []
        self._received: dict[socket.socket, bytearray] = {}
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self.waiting: dict[socket.socket, tuple[float, float]] = {}
        self.rows: list[Row] = []

    def send(self, due_at: float) -> None:
        """Send one request now."""
        sent_at = time.monotonic()
        try:
            sock = self._connection(sent_at)
            sock.sendall(self._request)
        except OSError:
            self.rows.append((due_at, sent_at, time.monotonic(), 0))
            return
        self._received[sock] = bytearray()
        self.waiting[sock] = (due_at, sent_at)

    def _connection(self, now: float) -> socket.socket:
        """Return the connection that was used last, or another one when that was too long ago."""
        if self._idle:
            sock, used_at = self._idle.pop()
            if now - used_at < IDLE_SECONDS:
                return sock
            for old, _ in [*self._idle, (sock, used_at)]:
                self._close(old)
            self._idle.clear()
        sock = connect(self._address)
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def wait(self, seconds: float, *others: object) -> tuple[list[socket.socket], bool]:
        """Return the sockets that have something to read, and whether any of the others has. Blocks so long at most."""
        ready = select.select([self._poll, *others], [], [], seconds)[0]
        found = self._poll.poll(0) if self._poll in ready else []
        return [self._sockets[number] for number, _ in found], bool(set(ready) - {self._poll})

    def _close(self, sock: socket.socket) -> None:
        self._poll.unregister(sock)
        del self._sockets[sock.fileno()]
        sock.close()

    def receive(self, sockets: Sequence[socket.socket]) -> int:
        """Read what has arrived and return how many requests have come to their end."""
        ended = 0
        for sock in sockets:
            if sock not in self.waiting:  # idle, so this is its end
                self._idle = [(one, at) for one, at in self._idle if one is not sock]
                self._close(sock)
                continue
            received = self._received[sock]
            chunk = b""
            with contextlib.suppress(OSError):
                chunk = sock.recv(65536)
            received += chunk
            response = cut_response(received) if chunk else (0, b"", 0)
            if response is None:
                continue
            ended += 1
            now = time.monotonic()
            self.rows.append((*self.waiting.pop(sock), now, response[0]))
            if response[0]:
                self._idle.append((sock, now))
            else:
                self._close(sock)
        return ended

    def give_up(self) -> None:
        """Count what was never answered."""
        now = time.monotonic()
        self.rows += [(due_at, sent_at, now, 0) for due_at, sent_at in self.waiting.values()]


def _run_open(client: _Client, rate: float) -> None:
    """Send at a rate until standard input ends, then wait for the last answers."""
    due_at = time.monotonic() + 0.05
    is_open, ends_at = True, float("inf")
    while is_open or (client.waiting and time.monotonic() < ends_at):
        now = time.monotonic()
        while is_open and due_at <= now:
            client.send(due_at)
            due_at += 1 / rate
        wait = max(0.0, due_at - time.monotonic()) if is_open else 0.1
        ready, is_over = client.wait(wait, *([sys.stdin] if is_open else []))
        if is_over:
            is_open, ends_at = False, time.monotonic() + LAST_ANSWERS_SECONDS
        client.receive(ready)


def _run_closed(client: _Client, connections: int, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    for _ in range(connections):
        client.send(time.monotonic())
    while client.waiting:
        ready, _ = client.wait(LAST_ANSWERS_SECONDS)
        if not ready:
            return
        for _ in range(client.receive(ready)):
            if (now := time.monotonic()) < ends_at:
                client.send(now)


def _take_priority(*, is_first: bool) -> None:
    """Run before others, as far as that is allowed. Niceness counts only within a session on many systems."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with contextlib.suppress(OSError):
        if is_first:  # an open loop rests most of the time; a closed one would leave the server nothing
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def main() -> None:
    """Generate load as the command line says and write one row per request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    gc.disable()
    _take_priority(is_first=bool(options.rate))
    client = _Client(address_of(options.url), request_bytes(options.path, options.body.read_bytes()))
    if options.rate:
        _run_open(client, options.rate)
    else:
        _run_closed(client, options.connections, options.seconds)
    client.give_up()
    options.file.write_text(json.dumps(client.rows))


if __name__ == "__main__":
    main()

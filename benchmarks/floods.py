"""Good clients beside one flood after another, each of a kind: ``python -m benchmarks.floods`` is the flood itself."""

from __future__ import annotations

import argparse
import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import cores
from benchmarks.load import OpenLoop, Reply
from benchmarks.models import BODY, publish_logistic
from benchmarks.percentiles import Latency
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running
from benchmarks.wire import address_of, request_bytes

PATH = "/models/small/predict"
RATE = 200.0
PAUSE_SECONDS = 2.0
MOST_BYTES = 16 * (1 << 20) - 1000
LARGE_SECONDS = 1.0  # between two large bodies
SMALL_SECONDS = 0.01  # between two small requests of each sender
SLOW_SOCKETS = 300
UNFINISHED = 125
METHOD = f"""A server with default settings on one core answers a logistic pipeline (30 features, compiled) to \
{RATE:g} requests a second, open loop, from the other core. In turns nobody else asks, and a process beside the load \
generator, which gives way to it, floods the server: {SLOW_SOCKETS} sockets that send a byte a second; as many \
requests sent ahead on one connection as go through; {UNFINISHED} bodies of 15 MB that never end; a body of 16 MB each \
second that is one CSV line, or only brackets; and requests for another name, with an offer of HTTP/2, or with a body \
that is wrong, 100 a second each. Latency counts from when a request was due."""

Send = Callable[[tuple[str, int]], None]


def run(run: Run) -> Result:
    """Ask in quiet and beside each flood, in turns."""
    directory = run.scratch / "server"
    publish_logistic(directory / "store", "small", 1)
    seconds = run.count(10.0, 2.0)
    spans: dict[str, tuple[float, float, float, float]] = {}
    with (
        running(directory, on=(cores.SERVER_CORE,)) as server,
        OpenLoop(server.url, PATH, BODY, RATE, run.scratch / "replies.json", (cores.CLIENT_CORE,)) as load,
    ):
        for name in FLOODS:
            time.sleep(PAUSE_SECONDS)
            calm_at = time.monotonic()
            time.sleep(seconds)
            calm_until = time.monotonic()
            with _flood(server.url, name):
                time.sleep(PAUSE_SECONDS)
                rough_at = time.monotonic()
                time.sleep(seconds)
                spans[name] = (calm_at, calm_until, rough_at, time.monotonic())
    figures, rows = [], []
    for name, (calm_at, calm_until, rough_at, rough_until) in spans.items():
        quiet, beside = load.between(calm_at, calm_until), load.between(rough_at, rough_until)
        before, during = (Latency.of([reply.seconds for reply in replies]) for replies in (quiet, beside))
        failures = _failures(quiet) + _failures(beside)
        figures.append(figure(f"p99 beside {name} / p99 in quiet", "×", during.p99 / before.p99, at_most=2))
        rows.append(
            (name, f"{before.p50:.2f}", f"{before.p99:.2f}", f"{during.p50:.2f}", f"{during.p99:.2f}", failures)
        )
    figures.append(figure("good requests that failed", "", float(sum(row[-1] for row in rows)), at_most=0))
    columns = ("flood", "p50 quiet, ms", "p99 quiet, ms", "p50 beside, ms", "p99 beside, ms", "failures")
    return Result(
        name="floods",
        title="Good clients beside floods",
        method=METHOD,
        figures=tuple(figures),
        tables=(Table("Latency", columns, tuple(rows)),),
    )


def _failures(replies: list[Reply]) -> int:
    return sum(reply.status != 200 for reply in replies)


@contextmanager
def _flood(url: str, name: str) -> Iterator[None]:
    """Have one flood at work for the length of a ``with`` block."""
    with cores.on_cores((cores.CLIENT_CORE,)):
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.floods", url, name], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate(timeout=60)


# --- the process -----------------------------------------------------------------------------------------------------


def _head(size: int, kind: str = "application/json", host: str = "localhost", more: str = "") -> bytes:
    lines = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n"
    return lines.encode()


def _again(raw: bytes, seconds: float) -> Send:
    """Send the same bytes again and again, on a connection that is opened anew where it is closed."""

    def send(address: tuple[str, int]) -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(address, 30) as sock:
                while True:
                    sock.sendall(raw)
                    if not sock.recv(1 << 16):
                        break
                    time.sleep(seconds)
            time.sleep(seconds)

    return send


def _send_slowly(address: tuple[str, int]) -> None:
    raw = request_bytes(PATH, BODY).replace(b"Host:", b"X-Slow: " + b"x" * 1000 + b"\r\nHost:")
    sockets: list[tuple[socket.socket, int]] = []
    while True:
        sockets += [(socket.create_connection(address, 30), 0) for _ in range(SLOW_SOCKETS - len(sockets))]
        kept = []
        for sock, place in sockets:
            try:
                sock.sendall(raw[place : place + 1])
                if not select.select([sock], [], [], 0)[0]:
                    kept.append((sock, place + 1))
                    continue
            except OSError:
                pass
            sock.close()
        sockets = kept
        time.sleep(1)


def _send_ahead(address: tuple[str, int]) -> None:
    block = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address, 30) as sock:
            threading.Thread(target=_read_on, args=(sock,), daemon=True).start()
            while True:
                sock.sendall(block)


def _read_on(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def _never_finish(address: tuple[str, int]) -> None:
    sockets = []
    while True:
        for _ in range(UNFINISHED - len(sockets)):
            sock = socket.create_connection(address, 30)
            sock.settimeout(0.05)
            with contextlib.suppress(OSError):
                sock.sendall(_head(15_000_000))
                sock.sendall(b"1" * 14_000_000)
            sockets.append(sock)
        time.sleep(1)
        closed = [sock for sock in sockets if _has_ended(sock)]
        for sock in closed:
            sock.close()
        sockets = [sock for sock in sockets if sock not in closed]


def _has_ended(sock: socket.socket) -> bool:
    try:
        return bool(select.select([sock], [], [], 0)[0]) and not sock.recv(1 << 16)
    except OSError:
        return True


_CSV = (b"1," * (MOST_BYTES // 2))[:-1] + b"\n"
_START = b'{"inputs": [{"name": "x", "shape": [1, 30], "datatype": "FP64", "data": ['
_BRACKETS = _START + (b"[]," * (MOST_BYTES // 3 - 50))[:-1] + b"]}]}"
_OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
FLOODS: dict[str, Send] = {
    "slow heads": _send_slowly,
    "requests sent ahead": _send_ahead,
    "unfinished bodies": _never_finish,
    "one CSV line": _again(_head(len(_CSV), "text/csv") + _CSV, LARGE_SECONDS),
    "brackets": _again(
        _head(len(_BRACKETS)).replace(PATH.encode(), b"/v2/models/small/infer") + _BRACKETS, LARGE_SECONDS
    ),
    "another name": _again(_head(len(BODY), host="rebound.example") + BODY, SMALL_SECONDS),
    "offers of HTTP/2": _again(_head(len(BODY), more=_OFFER) + BODY, SMALL_SECONDS),
    "wrong bodies": _again(_head(20) + b'{"instances": [[1,2 ', SMALL_SECONDS),
}


def main() -> None:
    """Flood a server until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("name", choices=FLOODS)
    options = parser.parse_args()
    cores.give_way()
    flood = FLOODS[options.name]
    threading.Thread(target=flood, args=(address_of(options.url),), daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()

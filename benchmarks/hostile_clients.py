"""Good clients while others misbehave: 300 sockets that send a byte a second, and a flood of bodies that are wrong."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

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
SLOW_SOCKETS = 300
BYTE_SECONDS = 1.0
BAD_RATE = 200.0
BAD_CONNECTIONS = 8
PAUSE_SECONDS = 3.0
BAD_BODIES = {
    "not JSON": b'{"instances": [[1, 2',
    "not finite": BODY.replace(b"17.99", b"NaN"),
    "too few features": b'{"instances": [[1.0, 2.0]]}',
    "nested 100,000 deep": b"[" * 100_000,
    "10,000 digits": b'{"instances": [[' + b"1" * 10_000 + b"]]}",
    "strings for numbers": b'{"instances": [[' + b",".join([b'"1"'] * 30) + b"]]}",
    "1,000 ragged rows": b'{"instances": [' + b",".join([b"[1.0, 2.0]", b"[1.0]"] * 500) + b"]}",
}
METHOD = f"""A server with default settings on one core answers a logistic pipeline (30 features, compiled) to \
{RATE:g} requests a second, open loop, from the other core. In turns nobody else asks, and a process beside the load \
generator, which gives way to it, keeps {SLOW_SOCKETS} connections open that send their request's head a byte a \
second, opening another for each one the server closes, and sends {BAD_RATE:g} bodies a second that are wrong, of \
{len(BAD_BODIES)} kinds in turn. Latency counts from when a request was due."""


def run(run: Run) -> Result:
    """Ask in quiet and among the others, in turns."""
    directory = run.scratch / "server"
    publish_logistic(directory / "store", "small", 1)
    quiet: list[Reply] = []
    among: list[Reply] = []
    statuses: Counter[str] = Counter()
    seconds = run.count(20.0, 3.0)
    with (
        running(directory, on=(cores.SERVER_CORE,)) as server,
        OpenLoop(server.url, PATH, BODY, RATE, run.scratch / "replies.json", (cores.CLIENT_CORE,)) as load,
    ):
        spans = []
        for _ in range(run.count(3, 1)):
            time.sleep(PAUSE_SECONDS)
            calm_at = time.monotonic()
            time.sleep(seconds)
            calm_until = time.monotonic()
            with _others(server.url, statuses):
                time.sleep(PAUSE_SECONDS)  # all sockets open
                rough_at = time.monotonic()
                time.sleep(seconds)
                spans.append((calm_at, calm_until, rough_at, time.monotonic()))
    for calm_at, calm_until, rough_at, rough_until in spans:
        quiet += load.between(calm_at, calm_until)
        among += load.between(rough_at, rough_until)
    before, during = (Latency.of([reply.seconds for reply in replies]) for replies in (quiet, among))
    failures = sum(reply.status != 200 for reply in (*quiet, *among))
    broken = sum(count for status, count in statuses.items() if status.startswith("5"))
    return Result(
        name="hostile_clients",
        title="Good clients while others misbehave",
        method=METHOD,
        figures=(
            figure("p99 among the others / p99 in quiet", "×", during.p99 / before.p99, at_most=2),
            figure("good requests that failed", "", float(failures), at_most=0),
            figure("wrong bodies answered with 5xx", "", float(broken), at_most=0),
            figure("p99 in quiet", "ms", before.p99),
            figure("p99 among the others", "ms", during.p99),
            figure("p50 in quiet", "ms", before.p50),
            figure("p50 among the others", "ms", during.p50),
            figure("worst in quiet", "ms", before.worst),
            figure("worst among the others", "ms", during.worst),
        ),
        tables=(Table("What the others were told", ("answer", "times"), tuple(sorted(statuses.items()))),),
    )


@contextmanager
def _others(url: str, statuses: Counter[str]) -> Iterator[None]:
    """Have the others at work for the length of a ``with`` block, and add what they were told."""
    command = [sys.executable, "-m", "benchmarks.hostile_clients", url]
    with cores.on_cores((cores.CLIENT_CORE,)):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield
    finally:
        said, _ = process.communicate(timeout=60)
        statuses.update(json.loads(said))


# --- the process -----------------------------------------------------------------------------------------------------


async def _slow(address: tuple[str, int], delay: float, told: Counter[str]) -> None:
    """Send one head after another, a byte at a time, on a connection each."""
    request = request_bytes(PATH, BODY).replace(b"Host:", b"X-Slow: " + b"x" * 1000 + b"\r\nHost:")
    await asyncio.sleep(delay)
    while True:
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.suppress(OSError):
            for place in range(len(request)):
                writer.write(request[place : place + 1])
                with contextlib.suppress(TimeoutError):
                    status = await asyncio.wait_for(reader.read(65536), BYTE_SECONDS)
                    told[f"{status[9:12].decode() or 'no'} to a slow head"] += 1
                    break
        writer.close()


async def _wrong(address: tuple[str, int], pause: float, delay: float, told: Counter[str]) -> None:
    """Send wrong bodies at a rate, whatever the answers; one connection, opened anew where it is closed."""
    due_at = time.monotonic() + delay
    streams = None
    for name, body in cycle(BAD_BODIES.items()):
        await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        due_at += pause
        try:
            if streams is None:
                streams = await asyncio.open_connection(*address)
            streams[1].write(request_bytes(PATH, body))
            head = await streams[0].readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await streams[0].readexactly(int(length.partition(b":")[2]))
            told[f"{head[9:12].decode()} to {name}"] += 1
        except (OSError, asyncio.IncompleteReadError):
            told[f"no answer to {name}"] += 1
            streams = None


async def _misbehave(url: str) -> Counter[str]:
    """Do all of it until standard input ends."""
    told: Counter[str] = Counter()
    address = address_of(url)
    tasks = [asyncio.create_task(_slow(address, number / SLOW_SOCKETS, told)) for number in range(SLOW_SOCKETS)]
    pause = BAD_CONNECTIONS / BAD_RATE
    delays = [pause * number / BAD_CONNECTIONS for number in range(BAD_CONNECTIONS)]
    tasks += [asyncio.create_task(_wrong(address, pause, delay, told)) for delay in delays]
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    done, _ = await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for task in done - {over}:
        task.result()  # one that has failed says why
    return told


def main() -> None:
    """Misbehave, and print what was answered to what."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    options = parser.parse_args()
    cores.give_way()
    print(json.dumps(asyncio.run(_misbehave(options.url))))


if __name__ == "__main__":
    main()

"""A worker of a shared port that answers any bytes with its number and its process: a program of its own."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from serving.http1.acceptor import Acceptor, OpenTally
from serving.ports.shared_port import PortShare


class Naming(asyncio.Protocol):
    """Answers any bytes with the worker that has the connection."""

    def __init__(self, worker: int, tally: OpenTally) -> None:
        self._worker, self._tally = worker, tally

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"%d %d\n" % (self._worker, os.getpid()))  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.end(self)


async def work(share: PortShare) -> None:
    """Serve until standard input ends."""
    acceptor = Acceptor(share, lambda tally: Naming(share.worker, tally))
    await acceptor.start()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, ended.set)
    print("ready", flush=True)
    await ended.wait()
    acceptor.close()
    print("closed", flush=True)
    loop.remove_reader(0)


def main() -> None:
    """Take the loop's name, the worker, the number of workers, and the descriptors."""
    name, worker, workers, *descriptors = sys.argv[1:]
    share = PortShare.receive(int(worker), int(workers), [int(one) for one in descriptors])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if name == "uvloop" else None) as runner:
        runner.run(work(share))


if __name__ == "__main__":
    main()

"""The life of one worker: load what is committed, take connections, drain, end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from serving import __version__, api
from serving.api.access import Access
from serving.app import create_app
from serving.domain.errors import ServingError
from serving.domain.status import Status
from serving.http1.acceptor import Acceptor
from serving.http1.counted_connection import CountedConnection, OpenTally
from serving.plane.fair_turns import make_turns
from serving.ports.shared_port import PortShare
from serving.recording.recorder import keep_recording
from serving.server import DrainingServer, make_config
from serving.settings import Settings
from serving.store.upload_receiver import UploadReceiver
from serving.telemetry import logging
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import make_tracer
from serving.wire.shared_words import map_words
from serving.worker.remote_control import RemoteControl, beat

PASS_ON_SECONDS = 0.02  # how often a worker that ends looks for connections that it can pass on
BEATS_IN_TIME = 10  # heartbeats of an event loop in the time after which it counts as hung

log = structlog.get_logger("serving.worker")


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What every worker is started with: the settings, as one worker has them, and who may call.

    `counts` has the number of descriptors of each of its ports: HTTP, and the admin port if there is one. `grpc_port`
    is the one that the supervisor keeps, None if there is none.
    """

    settings: Settings
    access: Access
    workers: int
    counts: tuple[int, ...]
    grpc_port: int | None = None

    def run(self, index: int, descriptors: Sequence[int]) -> int:
        """Be worker `index` until it is asked to end; returns the exit status. Blocks; main thread of a new process.

        The descriptors: the channel, the counts, the committed generation, the heartbeats, then those of the ports.
        """
        logging.name_worker(index)
        channel, sheet, committed, beats, *rest = descriptors
        shares = []
        for count in self.counts:
            shares.append(PortShare.receive(index, self.workers, rest[:count]))
            rest = rest[count:]
        controls: list[RemoteControl] = []
        run = partial(self._run_plane, index, channel, committed, beats, sheet, controls)
        app = create_app(self.settings, access=self.access, lifespan=run)
        server = WorkerServer(make_config(app, self.settings), app, self.settings, shares, controls, self.grpc_port)
        try:
            server.run()
        except ServingError as error:
            log.error("cannot_start", reason=str(error))
            return 1
        return server.exit_code

    @asynccontextmanager
    async def _run_plane(
        self,
        index: int,
        channel: int,
        committed: int,
        beats: int,
        sheet: int,
        controls: list[RemoteControl],
        app: FastAPI,
    ) -> AsyncIterator[None]:
        state = app.state
        state.status = Status()
        metrics = Metrics(__version__, CountSheet(sheet))
        turns = make_turns()
        words = map_words(committed)
        sock = socket.socket(fileno=channel)
        control = RemoteControl(state, sock, words, turns, metrics, replay=self.settings.replay)
        controls.append(control)
        uploads = UploadReceiver(control)
        tracer = make_tracer(self.settings.traces, metrics.count_traces)
        asked = (state, self.settings, metrics, control, control, uploads, self.access, control)
        state.services = api.make_services(*asked, tracer=tracer)
        words = map_words(beats, writes=True)
        beating = asyncio.create_task(beat(words, index, self.settings.server.worker_seconds / BEATS_IN_TIME))
        control.start()
        if tracer is not None:
            tracer.start()
        try:
            await control.wait_until_loaded()
            async with keep_recording(state.services.recorder):
                yield
        finally:
            if tracer is not None:
                await asyncio.to_thread(tracer.stop)
            beating.cancel()
            control.stop()
            turns.executor.shutdown(wait=False)


class WorkerServer(DrainingServer):
    """uvicorn in a worker: it accepts on its shares of ports, not on ports of its own. gRPC listens by itself."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        settings: Settings,
        shares: Sequence[PortShare],
        controls: list[RemoteControl],
        grpc_port: int | None,
    ) -> None:
        super().__init__(config, app, settings)
        self._grpc_port = grpc_port
        self._shares = shares
        self._controls = controls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Take connections (called by uvicorn). Raises CannotListen."""
        self.servers = []
        if self._grpc_port is not None:
            await self._listen_for_grpc(self._grpc_port, shares_port=True)
        for place, share in enumerate(self._shares):
            config = self.make_admin_config() if place else self.config
            acceptor = Acceptor(share, partial(self._connect, config), self._settings.server.max_connections)
            await acceptor.start()
            self.servers.append(acceptor)  # type: ignore[arg-type]  # uvicorn closes it, and asks no more
        self.started = True
        self._controls[0].note_accepting()

    def _connect(self, config: uvicorn.Config, tally: OpenTally, has_answered: bool) -> asyncio.Protocol:
        return CountedConnection(
            *(config, self.server_state, self.lifespan.state), tally=tally, has_answered=has_answered
        )

    async def drain_http(self, sockets: list[socket.socket] | None) -> None:
        """Let other workers go on with the connections that are open, those in use after the answer under way.

        When all workers stop there are no others. Then, and after half of `drain_seconds`, what is left is drained as
        by a server of one process.
        """
        acceptors: list[Acceptor] = self.servers  # type: ignore[assignment]
        for one in acceptors:
            one.close()
        loop, seconds = asyncio.get_running_loop(), self._settings.server.drain_seconds
        began = loop.time()
        while not self.force_exit and any([one.pass_on_open() for one in acceptors]):  # noqa: C419  (all of them)
            if loop.time() - began > seconds / 2:
                break
            await asyncio.sleep(PASS_ON_SECONDS)
        self.config.timeout_graceful_shutdown = max(0.0, seconds - (loop.time() - began))  # type: ignore[assignment]
        await super().drain_http(sockets)

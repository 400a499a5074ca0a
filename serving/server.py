"""Running the application: uvicorn, signals, and the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import threading
from collections.abc import Iterator
from copy import copy
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from fastapi import FastAPI

from serving.api.access import Access
from serving.api.edge import PredictionRouter
from serving.api.paths import PAGE_FILES
from serving.api.services import Services, services_of
from serving.app import create_app
from serving.domain.errors import ServingError
from serving.domain.status import Status
from serving.http1 import HttpConnection
from serving.http1.limits import MOST_CROWDED
from serving.recording.recorder import find_record_directory
from serving.settings import ServerSettings, Settings
from serving.signals import IGNORED, STOPPING, log_ignored
from serving.telemetry import logging
from serving.telemetry.tracer import require_library

if TYPE_CHECKING:
    from serving.api.grpc.listener import Listener

STOP_POLL_SECONDS = 0.1  # how soon a second signal is seen, as in uvicorn
# Descriptors that connections leave to everything else: files, hosts (two each), and probes of a crowded server.
RESERVED, RESERVED_SHARE, MOST_RESERVED = 64, 4, 1024
LEAST_CONNECTIONS = 16

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

log = structlog.get_logger("serving.server")


class CannotListen(ServingError):
    """The admin port or the one for gRPC cannot be opened."""


class DrainingServer(uvicorn.Server):
    """uvicorn, with a stop that is announced first.

    The first SIGTERM, SIGINT, SIGHUP or SIGQUIT turns readiness false, waits `lame_duck_seconds` while requests are
    still accepted, then stops accepting and drains. A second one skips whatever is being waited for. SIGUSR1 and
    SIGUSR2, which would end the process at once, are logged and ignored.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_been_asked = False
        self._grpc: Listener | None = None
        self.exit_code = 0

    async def serve(self, sockets: list[Any] | None = None) -> None:
        """Run from the first signal handler to the last thread; raises what the application's start raises.

        uvicorn would log a traceback for an application that cannot start, and leave out the end of one that was
        hurried; so the lifespan is entered and left here.
        """
        self._loop = asyncio.get_running_loop()
        with self.capture_signals():
            async with self._app.router.lifespan_context(self._app):
                await self._serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals for the length of a ``with`` block (called by `serve`). One that is ignored already stays so:
        nohup(1) does that to SIGHUP.
        """
        with super().capture_signals():
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            taken = [*(one for one in STOPPING if signal.getsignal(one) is not signal.SIG_IGN), *IGNORED]
            before = {one: signal.signal(one, self.handle_exit) for one in taken}
            try:
                yield
            finally:
                for one, handler in before.items():
                    signal.signal(one, handler)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen (called by uvicorn). Raises CannotListen."""
        try:
            await super().startup(sockets)
        except SystemExit as error:  # uvicorn has logged an OSError, and exits while it handles it
            raise CannotListen(explain_port(self._settings, error.__context__)) from None
        if self.started:
            if self._settings.server.admin_port is not None:
                await self._listen_for_operators(self._settings.server.admin_port)
            if self._settings.server.grpc_port is not None:
                address = await self._listen_for_grpc(self._settings.server.grpc_port)
                log.info("listening_for_grpc", address=address)
            gc.freeze()  # a search for cycles among all that was imported stops every request for 80 ms
            address = self.servers[0].sockets[0].getsockname()
            log.info("listening", **describe_listener(address, self._settings.server))
        if self._settings.server.fail_fast:
            services_of(self._app).background.on_started = self._check_start
            if self._app.state.status.has_started:
                self._check_start(self._app.state.status)

    def make_admin_config(self) -> uvicorn.Config:
        """Return the configuration of the connections of the admin port."""
        config = copy(self.config)
        config.app, config.loaded = PredictionRouter(self._app, is_for_operators=True), False
        config.load()
        return config

    async def _listen_for_operators(self, port: int) -> None:
        """Open the admin port beside the other one; uvicorn closes both. Raises CannotListen."""
        config = self.make_admin_config()

        def protocol() -> asyncio.Protocol:
            return HttpConnection(config, self.server_state, self.lifespan.state)

        host = self._settings.server.admin_host
        try:
            server = await asyncio.get_running_loop().create_server(protocol, host, port, backlog=config.backlog)
        except OSError as error:
            self._close_all()
            raise CannotListen(explain_admin_port(host, port, error)) from None
        self.servers.append(server)
        described = describe_listener(server.sockets[0].getsockname(), self._settings.server, is_for_operators=True)
        log.info("listening_for_operators", **described)

    async def _listen_for_grpc(self, port: int, *, shares_port: bool = False) -> str:
        """Open the port for gRPC, and return where it listens. Raises CannotListen."""
        try:
            listener = load_grpc()(self._app.state, shares_port=shares_port)
        except CannotListen:
            self._close_all()
            raise
        try:
            address = await listener.start(port)
        except RuntimeError:
            await listener.stop(0)
            self._close_all()
            raise grpc_port_taken(self._settings.server, port) from None
        self._grpc = listener
        return address

    def _close_all(self) -> None:
        for one in self.servers:
            one.close()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Stop accepting and drain, over HTTP and gRPC at once; a second signal ends both (called by uvicorn)."""
        if self._grpc is None:
            await self.drain_http(sockets)
            return
        stopping = asyncio.create_task(self._grpc.stop(self._settings.server.drain_seconds))
        await self.drain_http(sockets)
        while not self.force_exit and not stopping.done():
            await asyncio.wait((stopping,), timeout=STOP_POLL_SECONDS)
        if not stopping.done():
            await self._grpc.stop(0)
        await stopping

    async def drain_http(self, sockets: list[Any] | None) -> None:
        """Stop accepting connections and drain those that are open (called by `shutdown`)."""
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        """Let the loop heed a signal (called by the interpreter, on the loop's thread): see `serving.signals`."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._heed, sig)

    def _heed(self, number: int) -> None:
        if number in IGNORED:
            log_ignored(number)
            return
        name = signal.Signals(number).name
        if self._has_been_asked:
            log.warning("stopping_now", signal=name)
            self.should_exit = self.force_exit = True
            return
        self._has_been_asked = True
        wait = self._settings.server.lame_duck_seconds
        log.info("stopping", signal=name, lame_duck_seconds=wait)
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None:
            services.background.announce_stop()
        if wait:
            asyncio.get_running_loop().call_later(wait, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True

    def _check_start(self, status: Status) -> None:
        """With `fail_fast`: exit if nothing is active after the first pass over the store. Reconciler's thread."""
        if any(model.active for model in status.models.values()):
            return
        if not status.store.is_available:
            log.error("nothing_to_serve", reason=status.store.reason)
        for model in status.models.values():
            failure = model.last_failure
            reason = f"version {failure.version}: {failure.gate}: {failure.reason}" if failure else "no valid version"
            if model.unloaded:
                reason = f"unloaded; POST /v2/repository/models/{model.name}/load loads it again"
            log.error("nothing_to_serve", model=model.name, reason=reason)
        if status.store.is_available and not status.models:
            log.error("nothing_to_serve", reason=f"no model in {self._settings.store.path}")
        self.exit_code = 1
        self.should_exit = True


def run(settings: Settings) -> int:
    """Serve in this process until a signal says otherwise; returns the exit status. Blocks; main thread only.

    Raises SettingsError when a token cannot be read.
    """
    settings, access = prepare(settings)
    app = create_app(settings, access=access)
    server = DrainingServer(make_config(app, settings), app, settings)
    try:
        server.run()
    except ServingError as error:
        log.error("cannot_start", reason=str(error))
        return 1
    return server.exit_code


def load_grpc() -> type[Listener]:
    """Import what listens for gRPC, with its libraries, which are an extra. Starts nothing. Raises CannotListen."""
    try:
        from serving.api.grpc.listener import Listener  # noqa: PLC0415
    except ImportError as error:
        missing = f"server.grpc_port: {error.name or 'a library'} is not installed"
        raise CannotListen(f"{missing}; install this package with its extra grpc") from None
    return Listener


def grpc_port_taken(server: ServerSettings, port: int) -> CannotListen:
    """Return the error that says so."""
    return CannotListen(f"server.grpc_port: cannot listen on {server.host}:{port}; is it taken?")


def prepare(settings: Settings) -> tuple[Settings, Access]:
    """Make this process ready to serve: its log, its descriptors, its memory. Returns the settings as they fit, and who
    may call. Raises SettingsError when a token cannot be read, a setting needs an extra that is not installed, or
    predictions cannot be recorded where they should be.
    """
    require_library(settings.traces)
    find_record_directory(settings)
    logging.configure(settings.log)
    settings = _fit_connections(settings, _allow_many_descriptors())
    _keep_freed_memory()
    return settings, Access.read(settings.security)  # a token that cannot be read is told now, not at the first call


def make_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for the connections of `app`."""
    return uvicorn.Config(
        PredictionRouter(app),
        http=HttpConnection,
        host=settings.server.host,
        port=settings.server.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.server.idle_seconds,  # type: ignore[arg-type]  # any number works
        timeout_graceful_shutdown=settings.server.drain_seconds,  # type: ignore[arg-type]  # any number works
    )


def explain_port(settings: Settings, error: BaseException | None) -> str:
    """Return why `server.port` cannot be opened, and what to do."""
    number = getattr(error, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
    where = f"{settings.server.host}:{settings.server.port}"
    return f"server.port: cannot listen on {where}: {reason}; choose another one with --port or --host"


def explain_admin_port(host: str, port: int, error: OSError) -> str:
    """Return why `server.admin_port` cannot be opened."""
    return f"server.admin_port: cannot listen on {host}:{port}: {error.strerror}"


def describe_listener(
    address: tuple[Any, ...], server: ServerSettings, *, is_for_operators: bool = False
) -> dict[str, str]:
    """Return what the log says of a port that is open: its address and, if it has one, that of the page to look at."""
    host, port = address[:2]
    found = {"url": f"http://{_in_url(host)}:{port}"}
    if server.ui != "off" and is_for_operators is (server.admin_port is not None):
        is_any = ip_address(host.partition("%")[0]).is_unspecified  # no browser should be sent to such an address
        found["page"] = f"http://{'localhost' if is_any else _in_url(host)}:{port}{PAGE_FILES}"
    return found


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _allow_many_descriptors() -> int:
    """Raise the soft limit to the hard one, as the usual 1,024 are soon used up, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses what it calls unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def most_connections(wanted: int, descriptors: int, listeners: int = 1) -> int:
    """Return how many connections each listener may have: as many as are wanted (0: any number), or as fit into the
    descriptors that this process may have, less those for everything else.
    """
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    reserved = RESERVED + MOST_CROWDED + min(descriptors // RESERVED_SHARE, MOST_RESERVED)
    room = max(LEAST_CONNECTIONS, (descriptors - reserved) // listeners)
    return min(wanted or room, room)


def _fit_connections(settings: Settings, descriptors: int) -> Settings:
    """Return settings with no more connections than there are descriptors for: without one, no client is answered."""
    wanted = settings.server.max_connections
    fitting = most_connections(wanted, descriptors, listeners=1 if settings.server.grpc_port is None else 2)
    if fitting == wanted:
        return settings
    write = log.warning if wanted and "max_connections" in settings.server.model_fields_set else log.info
    write("connections_limited", max_connections=fitting, descriptors=descriptors, set_to=wanted)
    return settings.model_copy(update={"server": settings.server.model_copy(update={"max_connections": fitting})})


def _keep_freed_memory() -> None:
    """Have glibc keep what large requests give back for the next ones, at most 64 MB in each of two arenas.

    It would return every large buffer to the system and have it again page by page: for a body of 2.4 MB 1,350 page
    faults, 2 of 5 ms. It comes to these thresholds by itself, but only when something as large has been freed. See
    mallopt(3); does nothing under another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_TRIM_THRESHOLD, 64 << 20), (_M_MMAP_THRESHOLD, 32 << 20), (_M_ARENA_MAX, 2)):
            mallopt(parameter, value)

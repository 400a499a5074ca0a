"""Serving with several workers: the first process has control and supervises, the others answer."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from types import FrameType

import structlog

from serving.api.access import Access
from serving.domain.errors import ServingError
from serving.domain.status import Status
from serving.ports.shared_port import SharedPort
from serving.server import CannotListen, prepare
from serving.settings import Settings
from serving.supervisor.crew import Crew
from serving.supervisor.nursery import Nursery
from serving.supervisor.shared_control import SharedControl
from serving.wire.shared_words import make_words
from serving.worker.worker_process import WorkerPlan
from serving.worker.worker_settings import count_workers, settings_of_one

GAUGE_SECONDS = 0.5  # how long a scrape waits for a worker
KILL_SECONDS = 5.0  # beyond drain_seconds, until workers that drain are killed
POLL_SECONDS = 0.1
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)

log = structlog.get_logger("serving.supervisor")


class Supervisor:
    """Control, and the workers that it tells what answers. Made and run by the main thread, before any other exists."""

    def __init__(self, settings: Settings, access: Access, workers: int) -> None:
        self._settings = settings
        server = settings.server
        self._ports = [SharedPort.open(server.host, server.port, workers)]
        if server.admin_port is not None:
            self._ports.append(SharedPort.open(server.admin_host, server.admin_port, workers))
        committed, beats = make_words("generation"), make_words("beats")
        descriptors = [
            [committed, beats, *(fd for port in self._ports for fd in port.shares[index].descriptors())]
            for index in range(workers)
        ]
        counts = tuple(len(port.shares[0].descriptors()) for port in self._ports)
        plan = WorkerPlan(settings_of_one(settings, workers), access, workers, counts)
        self._nursery = Nursery.start(plan.run)
        # from here on there may be threads

        def make_crew(control: SharedControl) -> Crew:
            self._crew = Crew(
                *(self._nursery, control.planes, descriptors, beats, server.worker_seconds),
                *(control.take, control.greet, control.tell, control.metrics),
            )
            return self._crew

        self._service = SharedControl(settings, committed, 2 * workers, make_crew, self._log_listening).service
        self._wake = threading.Event()
        self._signals = 0
        self._is_listening = False
        self.exit_code = 0

    def run(self) -> int:
        """Serve until a signal says otherwise; returns the exit status. Raises StateUnavailable. Blocks."""
        before = {one: signal.signal(one, self._note_signal) for one in (*STOPPING, *IGNORED)}
        try:
            self._service.on_started = self._check_start
            self._service.start()
            self._crew.start()
            while not self._signals and not self._crew.is_lost:
                self._wake.wait(POLL_SECONDS)
            if self._crew.is_lost:
                log.error("no_worker_left", effect="the service ends, as nobody could answer")
                self.exit_code = 1
            self._drain()
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self._service.stop()
            self._nursery.close()
            for port in self._ports:
                port.close()
        return self.exit_code

    def _drain(self) -> None:
        """Announce the end, wait as long as that takes, then have the workers drain. A second signal hurries both."""
        server = self._settings.server
        self._service.announce_stop()
        ends_at = time.monotonic() + server.lame_duck_seconds
        while self._signals == 1 and time.monotonic() < ends_at:
            self._wake.wait(POLL_SECONDS)
        self._crew.stop()
        ends_at = time.monotonic() + server.drain_seconds + KILL_SECONDS
        while time.monotonic() < ends_at and self._crew.list_links():
            if self._signals > 1:
                self._signals = 1
                self._crew.stop()
            time.sleep(POLL_SECONDS / 5)
        self._crew.join(POLL_SECONDS)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        name = signal.Signals(number).name
        if number in IGNORED:
            log.warning("signal_ignored", signal=name)
            return
        self._signals += 1
        if self._signals == 1:
            log.info("stopping", signal=name, lame_duck_seconds=self._settings.server.lame_duck_seconds)
        else:
            log.warning("stopping_now", signal=name)
        self._wake.set()

    def _check_start(self, status: Status) -> None:
        if self._settings.server.fail_fast and not any(model.active for model in status.models.values()):
            log.error("nothing_to_serve", reason=f"no model is active in {self._settings.store.path}")
            self.exit_code = 1
            self._signals += 1

    # -----------------------------------------------------------------------------------------------------------------

    def _log_listening(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            gc.freeze()
            log.info("listening", url=self._url(self._ports[0]), workers=len(self._ports[0].shares))
            for port in self._ports[1:]:
                log.info("listening_for_operators", url=self._url(port))

    def _url(self, port: SharedPort) -> str:
        address = port.shares[0].listeners[0].getsockname()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"http://{host}:{address[1]}"


def run_workers(settings: Settings) -> int:
    """Serve with as many workers as the settings say; returns the exit status. Blocks; main thread only.

    Raises SettingsError when a token cannot be read.
    """
    settings, access = prepare(settings)
    workers = count_workers(settings)
    try:
        if sys.platform != "linux":
            raise CannotListen("server.workers: several workers need Linux")
        if settings.server.grpc_port is not None:
            raise CannotListen("server.grpc_port: gRPC needs server.workers = 1")
        return Supervisor(settings, access, workers).run()
    except (ServingError, OSError) as error:
        log.error("cannot_start", reason=str(error))
        return 1

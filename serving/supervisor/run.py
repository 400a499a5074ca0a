"""Serving with several workers: the first process has control and supervises, the others answer."""

from __future__ import annotations

import gc
import signal
import sys
import time
from types import FrameType

import structlog

from serving.api.access import Access
from serving.domain.errors import ServingError
from serving.domain.status import Status, WorkerState
from serving.ports.forwarding import ConnectionForwarder
from serving.ports.shared_port import SharedPort
from serving.server import CannotListen, describe_listener, explain_admin_port, explain_port, prepare
from serving.settings import Settings
from serving.signals import IGNORED, STOPPING, NotedSignals
from serving.silence import load_onnxruntime
from serving.supervisor.crew import Crew
from serving.supervisor.grpc_port import GrpcPort
from serving.supervisor.nursery import Nursery
from serving.supervisor.shared_control import SharedControl
from serving.wire.shared_words import make_words
from serving.worker.worker_process import WorkerPlan
from serving.worker.worker_settings import count_workers, settings_of_one

KILL_SECONDS = 5.0  # beyond drain_seconds, until workers that drain are killed
POLL_SECONDS = 0.1

log = structlog.get_logger("serving.supervisor")


class Supervisor:
    """Control, and the workers that it tells what answers. Made and run by the main thread, before any other exists."""

    def __init__(self, settings: Settings, access: Access, workers: int) -> None:
        self._settings = settings
        server = settings.server
        self._ports = _open_ports(settings, workers)
        self._grpc = GrpcPort.keep(server)
        committed, beats = make_words("generation"), make_words("beats")
        descriptors = [
            [committed, beats, *(fd for port in self._ports for fd in port.shares[index].descriptors())]
            for index in range(workers)
        ]
        counts = tuple(len(port.shares[0].descriptors()) for port in self._ports)
        grpc_port = None if self._grpc is None else self._grpc.number
        plan = WorkerPlan(settings_of_one(settings, workers), access, workers, counts, grpc_port)
        self._forwarder = ConnectionForwarder(self._ports)
        if settings.engine.compile != "off":
            load_onnxruntime()  # all workers share its pages: 14 MB less in each that has a compiled form
        self._nursery = Nursery.start(plan.run, forget=self._close_ports)
        # from here on there may be threads

        def make_crew(control: SharedControl) -> Crew:
            self._crew = Crew(
                *(self._nursery, control.planes, descriptors, beats, server.worker_seconds),
                *(control.take, control.greet, control.end_link, control.tell),
                *(control.metrics, self._forwarder),
            )
            return self._crew

        self._service = SharedControl(settings, committed, workers, make_crew, self._log_listening).service
        self._signals = NotedSignals()
        self._stops = 0  # how many times the end was asked for
        self._is_listening = False
        self.exit_code = 0

    def run(self) -> int:
        """Serve until a signal says otherwise; returns the exit status. Raises StateUnavailable. Blocks."""
        before = {one: signal.signal(one, self._note_signal) for one in (*STOPPING, *IGNORED)}
        try:
            self._service.on_started = self._check_start
            self._service.start()
            self._crew.start()
            while not self._count_stops() and not self._crew.is_lost:
                self._forwarder.forward(POLL_SECONDS)
            if self._crew.is_lost:
                log.error("no_worker_left", effect="the service ends, as nobody could answer")
                self.exit_code = 1
            self._drain()
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self._service.stop()
            self._nursery.close()
            self._close_ports()
        return self.exit_code

    def _close_ports(self) -> None:
        self._forwarder.close()
        for port in self._ports:
            port.close()
        if self._grpc is not None:
            self._grpc.close()

    def _drain(self) -> None:
        """Announce the end, wait as long as that takes, then have the workers drain. A second signal hurries both.

        No worker passes its connections to others then. When none accepts, clients cannot connect any more.
        """
        server = self._settings.server
        self._service.announce_stop()
        ends_at = time.monotonic() + server.lame_duck_seconds
        while self._count_stops() == 1 and time.monotonic() < ends_at:
            self._forwarder.forward(POLL_SECONDS)
        for worker in range(len(self._ports[0].shares)):
            self._forwarder.leave_out(worker)
        self._crew.stop()
        ends_at = time.monotonic() + server.drain_seconds + KILL_SECONDS
        while time.monotonic() < ends_at and self._crew.list_links():
            if self._count_stops() > 1:
                self._stops = 1
                self._crew.stop()
                ends_at = min(ends_at, time.monotonic() + KILL_SECONDS)  # one that is stopped heeds no signal
            if all(worker.state is not WorkerState.SERVING for worker in self._crew.list_status()):
                for port in self._ports:
                    port.stop_listening()
            time.sleep(POLL_SECONDS / 5)
        self._crew.join(POLL_SECONDS)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.note(number, frame)
        self._forwarder.wake()

    def _count_stops(self) -> int:
        """Heed the signals that came, and return how many times the end was asked for."""
        for name in self._signals.take():
            self._stops += 1
            if self._stops == 1:
                log.info("stopping", signal=name, lame_duck_seconds=self._settings.server.lame_duck_seconds)
            else:
                log.warning("stopping_now", signal=name)
        return self._stops

    def _check_start(self, status: Status) -> None:
        if self._settings.server.fail_fast and not any(model.active for model in status.models.values()):
            log.error("nothing_to_serve", reason=f"no model is active in {self._settings.store.path}")
            self.exit_code = 1
            self._stops += 1

    # -----------------------------------------------------------------------------------------------------------------

    def _log_listening(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            gc.freeze()
            if self._grpc is not None:
                log.info("listening_for_grpc", address=self._grpc.address)
            log.info("listening", **self._describe(self._ports[0]), workers=len(self._ports[0].shares))
            for port in self._ports[1:]:
                log.info("listening_for_operators", **self._describe(port, is_for_operators=True))

    def _describe(self, port: SharedPort, *, is_for_operators: bool = False) -> dict[str, str]:
        address = port.shares[0].listeners[0].getsockname()
        return describe_listener(address, self._settings.server, is_for_operators=is_for_operators)


def _open_ports(settings: Settings, workers: int) -> list[SharedPort]:
    """Open the port for HTTP, and the admin port if there is one. Raises CannotListen."""
    server = settings.server
    try:
        ports = [SharedPort.open(server.host, server.port, workers)]
    except OSError as error:
        raise CannotListen(explain_port(settings, error)) from None
    if server.admin_port is not None:
        try:
            ports.append(SharedPort.open(server.admin_host, server.admin_port, workers))
        except OSError as error:
            ports[0].close()
            raise CannotListen(explain_admin_port(server.admin_host, server.admin_port, error)) from None
    return ports


def run_workers(settings: Settings) -> int:
    """Serve with as many workers as the settings say; returns the exit status. Blocks; main thread only.

    Raises SettingsError when a token cannot be read.
    """
    settings, access = prepare(settings)
    workers = count_workers(settings)
    try:
        if sys.platform != "linux":
            raise CannotListen("server.workers: several workers need Linux")
        return Supervisor(settings, access, workers).run()
    except (ServingError, OSError) as error:
        log.error("cannot_start", reason=str(error))
        return 1

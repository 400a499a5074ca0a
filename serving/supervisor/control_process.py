"""The process that has control for those of somebody's own application: started by the first, ends after the last.

See `serving.worker.attach`, which starts it with the lock and the socket that make it the only one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time

import structlog

from serving.domain.errors import ServingError
from serving.settings import Settings, forget_tokens
from serving.signals import IGNORED, STOPPING, NotedSignals
from serving.supervisor.attached_workers import AttachedWorkers
from serving.supervisor.shared_control import SharedControl
from serving.telemetry import logging
from serving.wire.control_socket import SOCKET_NAME, WORDS_NAME
from serving.wire.shared_words import open_words
from serving.worker.worker_settings import count_workers

LINGER_SECONDS = 3.0  # without a process: their manager may be starting one again
HOLD_SECONDS = 15.0  # until what answered before an earlier control ended is committed, complete or not
TELL_SECONDS = 2.0
POLL_SECONDS = 0.1

log = structlog.get_logger("serving.control")


class ControlProcess:
    """Control with the processes that attach to it. Made and run by the main thread.

    A signal that asks it to end lets it end with the last process, without waiting for another one.
    """

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        words = open_words(settings.state.path / WORDS_NAME)

        def make_workers(control: SharedControl) -> AttachedWorkers:
            self._workers = AttachedWorkers(control, settings, listener, words)
            return self._workers

        self._control = SharedControl(settings, words, count_workers(settings), make_workers, is_held=True)
        self._linger_seconds = LINGER_SECONDS
        self._signals = NotedSignals()

    def run(self) -> int:
        """Have control until the last process has gone; returns the exit status. Blocks."""
        for one in (*STOPPING, *IGNORED):
            signal.signal(one, self._signals.note)
        service, planes = self._control.service, self._control.planes
        service.on_started = lambda _: planes.release()
        self._workers.start()
        try:
            service.start()
        except ServingError as error:
            log.error("cannot_start", reason=str(error))
            self._workers.refuse(str(error))
            time.sleep(TELL_SECONDS)
            return 1
        hold_ends_at: float | None = time.monotonic() + HOLD_SECONDS
        while not self._workers.close_if_empty(self._linger_seconds):
            time.sleep(POLL_SECONDS)
            self._heed_signals()
            if hold_ends_at is not None and time.monotonic() > hold_ends_at:
                hold_ends_at = None
                planes.release()
        service.stop()
        with contextlib.suppress(OSError):
            (self._settings.state.path / SOCKET_NAME).unlink()
        return 0

    def _heed_signals(self) -> None:
        for name in self._signals.take():
            log.info("stopping", signal=name, effect="control ends with the last process of its application")
            self._linger_seconds = 0.0


def main(lock: int, listener: int, document: int) -> int:
    """Have control; the arguments are inherited descriptors. The lock is held for as long as this process lives."""
    for fd in (lock, listener, document):
        os.set_inheritable(fd, False)
    with open(document, "rb") as file:
        settings = Settings.model_validate_json(file.read())
    forget_tokens()
    logging.configure(settings.log)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return ControlProcess(settings, socket.socket(fileno=listener)).run()

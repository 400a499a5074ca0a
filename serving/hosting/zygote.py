"""Start hosts through a zygote, and replace a zygote that died or does not answer: the server's side."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from serving.domain.errors import HostFailed
from serving.hosting.host_process import HostProcess
from serving.hosting.removal import remove_tree
from serving.hosting.zygote_process import ZygoteGone, ZygoteHung, ZygoteProcess, ZygoteSlow

ATTEMPTS = 3

__all__ = ["HostProcess", "Zygote"]

log = structlog.get_logger("serving.zygote")


class Zygote:
    """Starts hosts. One zygote process serves for the life of the server; when it dies or hangs, another replaces it.

    The hosts of a hanging zygote go on: they need it only so that they are killed if it dies. It is kept until the last
    of them has ended. Each host gets its own directory beneath `scratch`. Any thread may call any method; `start` and
    `spawn` block.

    `python` is the interpreter of another environment that hosts run in; None for the server's own. After
    `idle_seconds` without hosts the zygote process ends, until it is needed again; None for never.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        scratch: Path,
        python: str | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        self._environment = dict(environment)
        self._python, self._idle_seconds = python, idle_seconds
        self._scratch = os.path.abspath(scratch)
        self._process: ZygoteProcess | None = None
        self._retired: list[ZygoteProcess] = []
        self._process_lock = threading.Lock()
        self._is_stopped = False

    def start(self) -> None:
        """Start the imports in the zygote; returns at once. `spawn` waits until they are done.

        Removes what is in `scratch`: no other zygote may have hosts there yet.
        """
        remove_tree(self._scratch)  # left by servers that were killed
        self._require_running()

    def spawn(self, replicas: int = 1, slots: int = 1) -> HostProcess:
        """Fork a host and return it when its process exists; raises HostFailed. Blocks (about 20 ms when warm).

        `replicas` (at most 64) is the number of processes that will answer once its candidate has passed the gates.
        `slots` is how many processes may ask them, one after another or at the same time: see `HostProcess`. Replicas
        times slots are at most 192.
        """
        for _ in range(ATTEMPTS - 1):
            process = self._require_running()
            try:
                return process.spawn(replicas, slots)
            except ZygoteSlow:
                raise
            except ZygoteGone:  # it was killed since its last host, and not because of this one
                continue
            except ZygoteHung as error:
                self._replace_process(process, str(error))
        process = self._require_running()
        try:
            return process.spawn(replicas, slots)
        except ZygoteHung as error:
            self._replace_process(process, str(error))
            raise

    def retire(self) -> None:
        """Let its hosts go on, and end its process when the last of them has ended. The next host starts another."""
        with self._process_lock:
            process, self._process = self._process, None
            if process is not None:
                self._retired = [*(one for one in self._retired if not one.is_dead), process]
        if process is not None:
            process.retire()

    def stop(self) -> None:
        """End every zygote, and with it its hosts; joins with a deadline."""
        with self._process_lock:
            self._is_stopped = True
            processes = [*self._retired, *([self._process] if self._process else [])]
            self._process, self._retired = None, []
        for process in processes:
            process.stop()

    def _require_running(self) -> ZygoteProcess:
        with self._process_lock:
            if self._is_stopped:
                raise HostFailed("the service is stopping, so no host is started")
            if self._process is None or self._process.is_dead:
                self._process = self._start_process()
            return self._process

    def _start_process(self) -> ZygoteProcess:
        return ZygoteProcess(self._environment, self._scratch, self._python, self._idle_seconds)

    def _replace_process(self, process: ZygoteProcess, reason: str) -> None:
        """Start another zygote for the next hosts; its imports begin now."""
        with self._process_lock:
            if self._process is not process or self._is_stopped:
                return
            log.warning("zygote_replaced", reason=reason, hosts=process.host_count)
            self._retired = [*(one for one in self._retired if not one.is_dead), process]
            self._process = self._start_process()
        process.retire()

"""Run one function in a separate process, which is forked early, bounded in time, and ended with all its memory.

To compile imports onnxruntime, takes memory and may crash inside a library, and a process that later serves must not
suffer from that. The fork happens before the candidate's file is opened, because after that a host cannot fork.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

from serving import sandbox
from serving.domain.last_words import ENDED_ITSELF

BLOCK_BYTES = 1 << 20
_PREPARE, _WORK = b"?", b"!"


class WorkFailed(Exception):  # an outcome, not an error: the caller of `run` catches it
    """The work failed; the message says how in a few words."""


class ForkedWorker:
    """A process, forked when this object is made. It runs `enter` at once, `prepare` and `work` when asked.

    Make it where no other thread holds a lock that the child needs: the child has only the thread that forked. It dies
    with the process of that thread.
    """

    def __init__(
        self,
        work: Callable[[], bytes],
        enter: Callable[[], None] = lambda: None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._commands)
            os.close(self._answers)
            _work_and_exit(enter, prepare, work, commands, answers, parent)
        os.close(commands)
        os.close(answers)
        self._is_over = False

    def prepare(self) -> None:
        """Let the process run `prepare`, while this one goes on."""
        self._send_command(_PREPARE)

    def run(self, seconds: float) -> bytes:
        """Return the result of the work; raises WorkFailed when the process dies or is late. Blocks. Call it once."""
        ends_at = time.monotonic() + seconds
        try:
            self._send_command(_WORK)
            received = _receive_result(self._answers, ends_at)
            status = self._wait_for_end(is_killed=False)
        except TimeoutError:
            self.dismiss()
            raise WorkFailed(f"not finished after {seconds:g} s (engine.compile_seconds)") from None
        if status == ENDED_ITSELF:
            os._exit(ENDED_ITSELF)  # this process has the same model and must end too; its last words are written
        if status != 0:
            how = f"died with {signal.Signals(-status).name}" if status < 0 else "failed"
            raise WorkFailed(f"the process {how}")
        return received

    def dismiss(self) -> None:
        """Kill the process if it still runs; a second call does nothing."""
        if not self._is_over:
            self._wait_for_end(is_killed=True)

    def _send_command(self, command: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: `run` says how
            os.write(self._commands, command)

    def _wait_for_end(self, *, is_killed: bool) -> int:
        self._is_over = True
        if is_killed:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._commands)
        os.close(self._answers)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def _work_and_exit(
    enter: Callable[[], None],
    prepare: Callable[[], None],
    work: Callable[[], bytes],
    commands: int,
    answers: int,
    parent: int,
) -> None:
    status = 1
    try:
        sandbox.die_with_parent(parent)
        sandbox.lower_priority_of_this_thread()
        enter()
        while (command := os.read(commands, 1)) == _PREPARE:
            prepare()
        if command == _WORK:
            view = memoryview(work())
            while view:
                view = view[os.write(answers, view[:BLOCK_BYTES]) :]
        status = 0
    finally:
        os._exit(status)


def _receive_result(answers: int, ends_at: float) -> bytes:
    parts: list[bytes] = []
    while True:
        left = ends_at - time.monotonic()
        if left <= 0 or not select.select([answers], [], [], left)[0]:
            raise TimeoutError
        part = os.read(answers, BLOCK_BYTES)
        if not part:
            return b"".join(parts)
        parts.append(part)

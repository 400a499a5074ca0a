"""Work done in a process of its own: forked, bounded in time, and gone with everything it took.

Compiling imports onnxruntime, takes memory and may crash inside of a library; none of that may reach a process that
goes on to serve.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

from serving.host import sandbox

BLOCK_BYTES = 1 << 20


class Unfinished(Exception):  # an outcome, not an error: caught by whoever asked for the work
    """The work did not end well; the message says how in a few words."""


def run_apart(work: Callable[[], bytes], seconds: float) -> bytes:
    """Return what `work` returns in a forked child; raises Unfinished when it dies or takes longer. Blocks.

    Call it where no other thread of this process holds a lock that `work` needs: the child has this thread only.
    """
    ends_at = time.monotonic() + seconds
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work_and_exit(work, writing, parent)
    os.close(writing)
    try:
        received = _receive(reading, ends_at)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise Unfinished(f"not finished after {seconds:g} s (engine.compile_seconds)") from None
    finally:
        os.close(reading)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise Unfinished(f"the process died with {signal.Signals(-code).name}" if code < 0 else "the process failed")
    return received


def _work_and_exit(work: Callable[[], bytes], writing: int, parent: int) -> None:
    status = 1
    try:
        sandbox.die_with_parent(parent)
        view = memoryview(work())
        while view:
            view = view[os.write(writing, view[:BLOCK_BYTES]) :]
        status = 0
    finally:
        os._exit(status)


def _receive(reading: int, ends_at: float) -> bytes:
    parts: list[bytes] = []
    while True:
        left = ends_at - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            raise TimeoutError
        part = os.read(reading, BLOCK_BYTES)
        if not part:
            return b"".join(parts)
        parts.append(part)

"""``serving``, to which signals come while its main thread writes a line of its log.

    python tests/e2e/interrupted.py serve --store ...

A line about a signal that is ignored is interrupted by SIGTERM, and so is the line about the stop that follows. So
somebody who sends SIGUSR1 sends all three, the other two at the worst moment.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, TextIO

EVENTS = ('"signal_ignored"', '"stopping"')


class InterruptedStream:
    """A stream whose `write` is interrupted."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write `text`; a signal comes meanwhile if it is about one."""
        if any(event in text for event in EVENTS) and threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGTERM)
        return self._stream.write(text)


if __name__ == "__main__":
    sys.stderr = InterruptedStream(sys.stderr)  # type: ignore[assignment]
    from serving.cli import main

    sys.exit(main())

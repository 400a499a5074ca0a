"""The thread that encodes and writes records, so that the event loop never does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from serving.recording.answered_request import AnsweredRequest
from serving.recording.record_files import Place, RecordFiles
from serving.recording.record_lines import RecordEncoder
from serving.telemetry.record_counts import RecordCounts

MOST_WAITING_BYTES = 16 << 20
MOST_WAITING = 20_000
GATHER_SECONDS = 0.1  # after the first record: others are written with it
FLUSH_BYTES = 256 << 10
RETRY_SECONDS = 1.0
LOG_EVERY_SECONDS = 60.0

log = structlog.get_logger("serving.record")


class RecordWriter:
    """Writes what waits in a bounded queue. `offer` belongs to the event loop's thread.

    `on_closed` is called on the writing thread when files have been closed.
    """

    def __init__(
        self, files: RecordFiles, encoder: RecordEncoder, counts: RecordCounts, on_closed: Callable[[], None]
    ) -> None:
        self._files, self._encoder, self._counts, self._on_closed = files, encoder, counts, on_closed
        self._waiting: deque[AnsweredRequest] = deque()
        self._taken_bytes = self._done_bytes = 0  # each has one thread that writes it
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._closes_all = False
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="serving-record", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, request: AnsweredRequest) -> None:
        """Have a request written, or drop and count it when too much is waiting. Never waits."""
        is_full = self._taken_bytes - self._done_bytes + request.nbytes > MOST_WAITING_BYTES
        if is_full or len(self._waiting) >= MOST_WAITING:
            self.count_dropped()
            return
        self._taken_bytes += request.nbytes
        self._waiting.append(request)
        if not self._wake.is_set():
            self._wake.set()

    def count_dropped(self) -> None:
        """Count a request that is not offered. Event loop thread only."""
        self._counts.count_dropped()

    def close_files(self) -> None:
        """Have all files closed soon; records that follow begin others. Any thread."""
        self._closes_all = True
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Write what waits, close the files and end, within a deadline. Blocks; any thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.error("records_lost", waiting=len(self._waiting), reason=f"not written within {seconds:g} s")

    # -----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            ends_at = self._files.find_next_end()
            self._wake.wait(None if ends_at is None else max(0.0, ends_at - time.monotonic()))
            self._wake.clear()
            self._stopping.wait(GATHER_SECONDS)
            self._turn()
        self._turn()
        self._files.close_all()

    def _turn(self) -> None:
        closed = self._files.closed
        is_well = self._write_waiting()
        self._files.close_old(time.monotonic())
        if self._closes_all:
            self._closes_all = False
            self._files.close_all()
        if self._files.closed != closed:
            self._on_closed()
        if not is_well:
            self._stopping.wait(RETRY_SECONDS)

    def _write_waiting(self) -> bool:
        """Write all that waits now; returns whether it could be written."""
        is_well, most_bytes = True, min(FLUSH_BYTES, self._files.most_bytes)
        for _ in range(MOST_WAITING):
            lines: dict[Place, list[bytes]] = {}
            records: dict[Place, int] = {}
            nbytes = 0
            while self._waiting and nbytes < most_bytes:
                nbytes += self._encode_next(lines, records)
            if not lines and not self._waiting:
                break
            for place, content in lines.items():
                is_well = self._append(place, b"".join(content), records.get(place, 0)) and is_well
        return is_well

    def _encode_next(self, lines: dict[Place, list[bytes]], records: dict[Place, int]) -> int:
        """Encode the request that has waited longest; returns how many bytes it made."""
        request = self._waiting.popleft()
        nbytes = 0
        try:
            encoded = self._encoder.encode(request)
        except Exception as error:  # noqa: BLE001  (whatever is in one record, the next one is written)
            self._counts.count_lost(1)
            self._tell("record_not_encoded", type(error).__name__)  # its text may hold values
        else:
            for place, part in [(Place(request.model, request.version, each.method), each.lines) for each in encoded]:
                lines.setdefault(place, []).extend(part)
                nbytes += sum(map(len, part))
            first = Place(request.model, request.version, encoded[0].method)
            records[first] = records.get(first, 0) + 1
        self._done_bytes += request.nbytes
        return nbytes

    def _append(self, place: Place, content: bytes, records: int) -> bool:
        try:
            self._files.append(place, content, time.monotonic())
        except OSError as error:
            self._counts.count_failure()
            self._counts.count_lost(records)
            self._tell("records_not_written", error.strerror or type(error).__name__)
            return False
        self._counts.count_written(records)
        return True

    def _tell(self, event: str, reason: str) -> None:
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= LOG_EVERY_SECONDS:
            self._told_at = now
            log.error(event, reason=reason[:200], effect="records are lost and counted; predictions go on")

"""The event loop's side of the log of predictions: decides which ones are written, and copies these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from math import log as logarithm
from math import log1p
from pathlib import Path
from random import Random

import structlog

from serving.domain.signature import Signature
from serving.plane.prediction import Answer
from serving.recording.answered_request import copy_request
from serving.recording.record_files import RecordFiles
from serving.recording.record_lines import RecordEncoder
from serving.recording.record_upkeep import RecordUpkeep
from serving.recording.record_writer import RecordWriter
from serving.settings import Settings, SettingsError
from serving.telemetry.metrics import Metrics

STOP_SECONDS = 3.0

log = structlog.get_logger("serving.record")

FindSignature = Callable[[str, str], Signature]


class Recorder:
    """Records a share of the predictions, `sample`. Event loop thread only, except `stop`; nothing waits or raises.

    `find_signature` returns the signature of a loaded version by model and version.
    """

    def __init__(
        self,
        sample: float,
        writer: RecordWriter,
        upkeep: RecordUpkeep,
        find_signature: FindSignature,
        random: Random | None = None,
    ) -> None:
        self._writer, self._upkeep, self._find_signature = writer, upkeep, find_signature
        self._random = random if random is not None else Random()  # noqa: S311  (a sample, not a secret)
        self._logarithm = log1p(-sample) if sample < 1 else 0.0
        self._wait = self._draw_wait()

    def start(self) -> None:
        """Start the threads."""
        self._writer.start()
        self._upkeep.start()

    def stop(self) -> None:
        """Write what waits and close the files, within a deadline. Blocks; not on the event loop."""
        self._writer.stop(STOP_SECONDS)
        self._upkeep.stop(STOP_SECONDS)

    def note(
        self,
        answer: Answer,
        request_id: str | bytes | None,
        seconds: float,
        body_bytes: int | None,
        signature: Signature | None = None,
    ) -> None:
        """Record a prediction that was answered, if it is chosen.

        `body_bytes` is the size of the request, None for rows of an application. Without `signature` the version must
        be loaded.
        """
        self._wait -= 1
        if self._wait >= 0:
            return
        self._wait = self._draw_wait()
        try:
            if signature is None:
                signature = self._find_signature(answer.model, answer.version)
            copy = copy_request(answer, signature, time.time(), request_id, seconds, body_bytes)
            if copy is not None:
                self._writer.offer(copy)
        except Exception as error:  # noqa: BLE001  (a request that has been answered must not fail because of this)
            self._writer.count_dropped()
            log.error("record_not_copied", reason=type(error).__name__)

    def _draw_wait(self) -> int:
        """Return how many predictions are passed over before the next one: each is chosen with the same chance."""
        return int(logarithm(1.0 - self._random.random()) / self._logarithm) if self._logarithm else 0


def find_record_directory(settings: Settings) -> Path | None:
    """Return where predictions are recorded, None if they are not. Raises SettingsError if they cannot be there."""
    record, store = settings.record, settings.store.path.resolve()
    if record.sample == 0:
        return None
    directory = record.path if record.path is not None else settings.state.path / "records"
    whole = directory.resolve()
    if whole == store or store in whole.parents or whole in store.parents:
        advice = "records beside models would be taken for models: name another directory"
        raise SettingsError(f"record.path: '{directory}' and the model store '{settings.store.path}' overlap; {advice}")
    if record.format == "parquet" and find_spec("pyarrow") is None:
        raise SettingsError("record.format: parquet needs pyarrow; install this package with its extra arrow")
    return directory


def make_recorder(settings: Settings, metrics: Metrics, find_signature: FindSignature) -> Recorder | None:
    """Return what records predictions, None if nothing is to be recorded. Raises SettingsError. Event loop thread."""
    directory = find_record_directory(settings)
    if directory is None:
        return None
    record = settings.record
    is_parquet = record.format == "parquet"
    file_bytes, file_seconds = int(record.file_mb * (1 << 20)), record.file_hours * 3600
    files = RecordFiles(directory, file_bytes, file_seconds, is_unfinished=is_parquet)
    upkeep = RecordUpkeep(directory, int(record.keep_mb * (1 << 20)))
    writer = RecordWriter(files, RecordEncoder(record.leave_out), metrics.make_record_counts(), upkeep.wake)
    upkeep.on_too_much = writer.close_files
    log.info("recording", sample=record.sample, directory=str(directory), left_out=list(record.leave_out))
    return Recorder(record.sample, writer, upkeep, find_signature)


@asynccontextmanager
async def keep_recording(recorder: Recorder | None) -> AsyncIterator[None]:
    """Record for the length of an ``async with`` block, if there is a recorder; what waits at its end is written."""
    if recorder is None:
        yield
        return
    recorder.start()
    try:
        yield
    finally:
        await asyncio.to_thread(recorder.stop)

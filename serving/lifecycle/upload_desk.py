"""Takes uploads of versions: makes room for each, lets it be checked and published, and removes what is left.

Nothing here runs on the event loop or on the reconciler's thread.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from serving.domain.errors import (
    OperationRefused,
    PublishRefused,
    ServingError,
    StoreFull,
    Unavailable,
    UploadRefused,
)
from serving.domain.report import GateResult
from serving.domain.upload import (
    TAR_FILE,
    UploadBegun,
    UploadDone,
    UploadFailed,
    UploadOutcome,
    UploadRequest,
    UploadState,
    UploadStatus,
)
from serving.failpoints import reach
from serving.lifecycle.candidate import Candidate
from serving.lifecycle.inbox import UploadChanged, UploadMessage
from serving.lifecycle.records import now_utc
from serving.lifecycle.upload_admission import make_room, require_possible
from serving.lifecycle.upload_checks import STOPPED, UploadChecks
from serving.lifecycle.upload_endings import describe_end, describe_for_history
from serving.lifecycle.upload_table import UploadTable
from serving.settings import StoreSettings
from serving.store.publishing import Published
from serving.store.upload_directories import NO_ROOM, UploadDirectory, remove_abandoned_uploads

MAX_UPLOADS = 2  # at once
THREADS = MAX_UPLOADS + 2  # some are left for what begins and ends
NOTE_SECONDS = 0.5
UNKNOWN = "this upload was given up, because the server stops or has been started again; send it again"

log = structlog.get_logger("serving.uploads")


@dataclass(eq=False, slots=True)
class _Upload:
    """One upload under way."""

    id: str
    request: UploadRequest
    actor: str
    candidate: Candidate
    directory: UploadDirectory
    shown_at: float = 0.0
    outcome: Future[UploadOutcome] = field(default_factory=Future)
    is_taken: bool = False


class UploadDesk:
    """Takes uploads. Any thread; no method waits for the disk or for a host.

    `wake` asks for a look at the store.
    """

    def __init__(
        self,
        settings: StoreSettings,
        checks: UploadChecks,
        table: UploadTable,
        post: Callable[[UploadMessage], None],
        wake: Callable[[], None],
        initializer: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._checks = checks
        self._table = table
        self._post = post
        self._wake = wake
        self._threads = ThreadPoolExecutor(THREADS, "serving-upload", initializer=initializer)
        self._lock = threading.Lock()
        self._under_way: dict[str, _Upload] = {}
        self._beginning: set[object] = set()
        self._is_stopping = False

    def start(self) -> None:
        """Remove what uploads to servers that have died have left."""
        self._threads.submit(self._remove_leftovers)

    def stop(self) -> None:
        """Give up every upload, and wait until nothing is left of it. Blocks."""
        with self._lock:
            self._is_stopping = True
            under_way = list(self._under_way.values())
        for upload in under_way:
            upload.candidate.cancel()
            self.abandon(upload.id, STOPPED)
        self._threads.shutdown()

    def begin(self, request: UploadRequest, actor: str) -> Future[UploadBegun | UploadFailed]:
        """Make room for an upload."""
        begun: Future[UploadBegun | UploadFailed] = Future()

        def work() -> None:
            try:
                answer: UploadBegun | UploadFailed = self._begin(request, actor)
            except ServingError as error:
                answer = UploadFailed.from_error(error)
            except Exception as error:
                log.exception("upload_failed", model=request.model)
                answer = UploadFailed.from_error(Unavailable(type(error).__name__))
            if not begun.set_running_or_notify_cancel():
                if isinstance(answer, UploadBegun):
                    self.abandon(answer.id, "the request was given up")
                return
            begun.set_result(answer)

        self._submit(work, begun)
        return begun

    def note(self, upload_id: str, size: int) -> None:
        """Take in how many bytes have arrived; it is shown twice a second."""
        upload, now = self._under_way.get(upload_id), time.monotonic()
        if upload is not None and self._table.change(upload_id, bytes=size) and now - upload.shown_at > NOTE_SECONDS:
            upload.shown_at = now
            self._post(UploadChanged(upload.request.model))

    def finish(self, upload_id: str, size: int) -> Future[UploadOutcome]:
        """Check and publish an upload whose body has been written; it goes on even if the future is cancelled."""
        upload = self._take_over(upload_id)
        if upload is None:
            return _answer(UploadFailed.from_error(Unavailable(UNKNOWN)))
        self._change(upload, bytes=size, state=UploadState.CHECKING)
        self._submit(lambda: self._conclude(upload), upload.outcome)
        return upload.outcome

    def abandon(self, upload_id: str, reason: str) -> Future[UploadOutcome]:
        """Give up an upload whose body has not arrived; the future is done when nothing is left of it.

        Without effect once the body has arrived.
        """
        upload, error = self._take_over(upload_id), Unavailable(reason)
        if upload is None:
            return _answer(UploadFailed.from_error(error))
        self._submit(lambda: self._end(upload, error), upload.outcome)
        return upload.outcome

    def _take_over(self, upload_id: str) -> _Upload | None:
        """Return an upload whose body was being received, and is no more; None for any other."""
        with self._lock:
            upload = self._under_way.get(upload_id)
            if upload is None or upload.is_taken:
                return None
            upload.is_taken = True
            return upload

    # --- threads -----------------------------------------------------------------------------------------------------

    def _submit(self, work: Callable[[], None], answer: Future[Any]) -> None:
        try:
            self._threads.submit(work)
        except RuntimeError:  # it is stopping
            answer.set_result(UploadFailed.from_error(Unavailable(STOPPED)))

    def _begin(self, request: UploadRequest, actor: str) -> UploadBegun:
        token = object()
        with self._lock:
            if self._is_stopping:
                raise Unavailable(STOPPED)
            self._require_turn(request)
            self._beginning.add(token)
        try:
            max_bytes = require_possible(self._settings, request)
            upload = self._make_room(request, actor)
        finally:
            with self._lock:
                self._beginning.discard(token)
        return UploadBegun(upload.id, str(upload.directory.files), max_bytes)

    def _require_turn(self, request: UploadRequest) -> None:
        if len(self._under_way) + len(self._beginning) >= MAX_UPLOADS:
            raise Unavailable(f"{MAX_UPLOADS} uploads are under way already; try again later")
        asked = [(one.request.model, one.request.version) for one in self._under_way.values()]
        if request.version is not None and (request.model, request.version) in asked:
            raise OperationRefused(
                f"version '{request.version}' of '{request.model}' is being uploaded by another call"
            )

    def _make_room(self, request: UploadRequest, actor: str) -> _Upload:
        directory = make_room(self._settings, request)
        reach("upload-begun")
        upload_id = secrets.token_hex(6)
        candidate = Candidate(request.model, request.version or "")
        upload = _Upload(upload_id, request, actor, candidate, directory)
        status = UploadStatus(
            id=upload_id,
            model=request.model,
            version=request.version,
            file=request.file or TAR_FILE,
            state=UploadState.RECEIVING,
            actor=actor,
            at=now_utc(),
        )
        with self._lock:
            is_late = self._is_stopping
            if not is_late:
                self._table.add(status)
                self._under_way[upload_id] = upload
        if is_late:
            directory.remove()
            raise Unavailable(STOPPED)
        self._post(UploadChanged(request.model))
        return upload

    def _conclude(self, upload: _Upload) -> None:
        reach("upload-received")
        self._end(upload, self._publish(upload))

    def _publish(self, upload: _Upload) -> Published | ServingError:
        """Return what was published, or why nothing was."""
        files, request, candidate = upload.directory.files, upload.request, upload.candidate
        try:
            return self._checks.publish(files, request, candidate, lambda result: self._note_gate(upload, result))
        except PublishRefused as error:
            return error if error.report is not None else OperationRefused(str(error))
        except OSError as error:
            if error.errno in NO_ROOM:
                return StoreFull(f"the store has no room for this version: {error.strerror}")
            return Unavailable(f"the version cannot be written: {error.strerror or error}")
        except ServingError as error:
            return error
        except Exception as error:
            log.exception("upload_failed", model=request.model, version=candidate.version)
            return Unavailable(f"a bug in the server ({type(error).__name__}); its log has the reason")

    def _end(self, upload: _Upload, end: Published | ServingError) -> None:
        """Remove what is left of an upload, say how it has ended, and answer."""
        upload.directory.remove()
        with self._lock:
            self._under_way.pop(upload.id, None)
        status = self._table.change(upload.id, **describe_end(end))
        assert status is not None
        self._post(UploadChanged(upload.request.model, describe_for_history(status)))
        outcome: UploadOutcome
        if isinstance(end, Published):
            self._wake()
            outcome = UploadDone(status)
        elif isinstance(end, PublishRefused):
            outcome = UploadFailed.from_error(UploadRefused(str(end), status))
        else:
            outcome = UploadFailed.from_error(end)
        with suppress(InvalidStateError):  # whoever waited has gone
            upload.outcome.set_result(outcome)

    def _note_gate(self, upload: _Upload, result: GateResult) -> None:
        known = self._table.find(upload.id)
        before = () if known is None else known.gates
        names = [one.gate for one in before]
        if result.gate in names:  # they have begun anew: in another environment, or because their host died
            before = before[: names.index(result.gate)]
        self._change(upload, gates=(*before, result), version=upload.candidate.version)

    def _change(self, upload: _Upload, **changes: Any) -> UploadStatus | None:
        found = self._table.change(upload.id, **changes)
        if found is not None:
            self._post(UploadChanged(upload.request.model))
        return found

    def _remove_leftovers(self) -> None:
        with suppress(OSError):
            removed = remove_abandoned_uploads(self._settings.path)
            if removed:
                log.warning("uploads_removed", count=removed, reason="their server had died before they were published")


def _answer(outcome: UploadOutcome) -> Future[UploadOutcome]:
    found: Future[UploadOutcome] = Future()
    found.set_result(outcome)
    return found

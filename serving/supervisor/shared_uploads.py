"""Uploads whose bodies workers receive: each is given up when its worker ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from serving.domain.upload import UploadBegun, UploadFailed
from serving.lifecycle.upload_desk import UploadDesk
from serving.supervisor.worker_link import WorkerLink
from serving.wire.worker_channel import Received
from serving.wire.worker_messages import AbandonUpload, BeginUpload, FinishUpload, NoteUpload

UploadQuestion = BeginUpload | NoteUpload | FinishUpload | AbandonUpload


class SharedUploads:
    """What workers ask about uploads. Any thread; waits for nothing."""

    def __init__(self, desk: UploadDesk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._receiving: dict[WorkerLink, set[str]] = {}

    def take(self, link: WorkerLink, received: Received, message: UploadQuestion) -> None:
        """Take a message of a worker."""
        match message:
            case BeginUpload(request, actor):
                begun = self._desk.begin(request, actor)
                begun.add_done_callback(lambda done: self._note_begun(link, received, done))
            case NoteUpload(upload_id, size):
                self._desk.note(upload_id, size)
            case FinishUpload(upload_id, size):
                outcome = self._desk.finish(upload_id, size)
                self._forget(link, upload_id)
                outcome.add_done_callback(lambda done: received.answer(done.result()))
            case AbandonUpload(upload_id, reason):
                outcome = self._desk.abandon(upload_id, reason)
                self._forget(link, upload_id)
                outcome.add_done_callback(lambda done: received.answer(done.result()))

    def end(self, link: WorkerLink) -> None:
        """Give up what a worker that has ended was receiving."""
        with self._lock:
            left = self._receiving.pop(link, set())
        for upload_id in left:
            self._desk.abandon(upload_id, "the worker that received it has ended")

    def _note_begun(self, link: WorkerLink, received: Received, done: Future[UploadBegun | UploadFailed]) -> None:
        begun = done.result()
        if isinstance(begun, UploadBegun):
            with self._lock:
                self._receiving.setdefault(link, set()).add(begun.id)
            if link.has_ended.is_set():
                self.end(link)
        received.answer(begun)

    def _forget(self, link: WorkerLink, upload_id: str) -> None:
        with self._lock:
            self._receiving.get(link, set()).discard(upload_id)

"""Uploads in the process that has control itself."""

from __future__ import annotations

import asyncio

from serving.domain.upload import UploadBegun, UploadDone, UploadFailed, UploadRequest, UploadStatus
from serving.lifecycle.upload_desk import UploadDesk


class LocalUploads:
    """Implements :class:`serving.domain.upload.UploadControl`, which says what each method means and raises."""

    def __init__(self, desk: UploadDesk) -> None:
        self._desk = desk

    async def begin_upload(self, request: UploadRequest, actor: str) -> UploadBegun:
        """Make room for an upload."""
        begun = await asyncio.wrap_future(self._desk.begin(request, actor))
        if isinstance(begun, UploadFailed):
            raise begun.to_error()
        return begun

    def note_upload(self, upload_id: str, size: int) -> None:
        """Say how many bytes have arrived."""
        self._desk.note(upload_id, size)

    async def finish_upload(self, upload_id: str, size: int) -> UploadStatus:
        """Check what has been written, and publish it."""
        outcome = await asyncio.wrap_future(self._desk.finish(upload_id, size))
        if isinstance(outcome, UploadDone):
            return outcome.status
        raise outcome.to_error()

    async def abandon_upload(self, upload_id: str, reason: str) -> None:
        """Give up an upload whose body has not arrived."""
        await asyncio.wrap_future(self._desk.abandon(upload_id, reason))

"""Receives the bodies of uploads: from the event loop to the disk, whichever process has the connection.

Control says where to write and does the rest (`serving.domain.upload.UploadControl`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from serving.domain.errors import BodyTooLarge, ServingError, StoreFull, Unavailable
from serving.domain.upload import UploadBegun, UploadControl, UploadRequest, UploadStatus
from serving.store.upload_directories import NO_ROOM
from serving.store.version_tar import BodyWriter, make_body_writer

WRITE_BYTES = 1 << 20
GONE = "the client has gone"


class UploadReceiver:
    """Implements :class:`serving.domain.upload.Uploads`. Event loop thread only; files are written in threads."""

    def __init__(self, control: UploadControl) -> None:
        self._control = control

    async def receive(self, request: UploadRequest, actor: str, chunks: AsyncIterator[bytes]) -> UploadStatus:
        """Receive, check and publish one version."""
        begun = await self._begin(request, actor)
        size = await _Body(self._control, begun, request.file).receive(chunks)
        return await self._control.finish_upload(begun.id, size)

    async def _begin(self, request: UploadRequest, actor: str) -> UploadBegun:
        beginning = asyncio.ensure_future(self._control.begin_upload(request, actor))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(self._give_back)
            raise

    def _give_back(self, beginning: asyncio.Future[UploadBegun]) -> None:
        if not beginning.cancelled() and beginning.exception() is None:
            _go_on(self._control.abandon_upload(beginning.result().id, GONE))


class _Body:
    """The body of one upload. At most one thread writes at a time, and the files are closed when it has ended."""

    def __init__(self, control: UploadControl, begun: UploadBegun, file: str | None) -> None:
        self._control, self._begun, self._file = control, begun, file
        self._writer: BodyWriter | None = None
        self._writing: asyncio.Future[None] | None = None

    async def receive(self, chunks: AsyncIterator[bytes]) -> int:
        """Write everything, and return how many bytes that were; give the upload up if that fails."""
        try:
            return await self._receive(chunks)
        except OSError as error:
            why = error.strerror or str(error)
            await self._give_up(f"it cannot be written: {why}")
            if error.errno in NO_ROOM:
                raise StoreFull(f"the store has no room for this version: {why}") from None
            raise Unavailable(f"the version cannot be written: {why}") from None
        except Exception as error:
            await self._give_up(str(error) if isinstance(error, ServingError) else GONE)
            raise
        except BaseException:  # cancelled: there is no time to wait
            _go_on(self._give_up(GONE))
            raise

    async def _receive(self, chunks: AsyncIterator[bytes]) -> int:
        await self._run(self._open)
        waiting = bytearray()
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self._begun.max_bytes:
                raise BodyTooLarge(f"the body is larger than {self._begun.max_bytes} bytes (store.max_artifact_mb)")
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                data, waiting = waiting, bytearray()
                await self._run(lambda data=data: self._write(data))  # type: ignore[misc]
                self._control.note_upload(self._begun.id, size)
        await self._run(lambda: self._finish(waiting))
        return size

    async def _run(self, work: Callable[[], None]) -> None:
        self._writing = asyncio.get_running_loop().run_in_executor(None, work)
        await asyncio.shield(self._writing)

    def _open(self) -> None:
        self._writer = make_body_writer(Path(self._begun.directory), self._file)

    def _write(self, data: bytearray) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def _finish(self, data: bytearray) -> None:
        assert self._writer is not None
        self._writer.write(data)
        self._writer.finish()

    async def _give_up(self, reason: str) -> None:
        """Close the files when no thread writes any more, and have what there is of them removed."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._writer is not None:
            self._writer.close()
        await self._control.abandon_upload(self._begun.id, reason)


_going_on: set[asyncio.Future[None]] = set()  # the loop itself forgets them


def _go_on(work: Coroutine[Any, Any, None]) -> None:
    """Do something after the caller has ended."""
    task = asyncio.ensure_future(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)

"""Versions that operators upload: what they ask for, how far each is, and how it ends. Values only.

An upload is received, checked by the same gates as any candidate, and published only if none refuses.
`pydantic.TypeAdapter` reads and writes all of them as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import JsonValue

from serving.domain.errors import (
    BodyTooLarge,
    InvalidInput,
    Malformed,
    OperationRefused,
    ServingError,
    StoreFull,
    Unavailable,
    UploadRefused,
)
from serving.domain.report import GateResult
from serving.domain.snapshot import Snapshot

NEXT = "next"
RETRY_SECONDS = 5
TAR_FILE = "version.tar"  # what the file of a whole version directory is called where names are shown


class UploadState(StrEnum):
    """How far an upload is. The last three are ends; only PUBLISHED has changed the store."""

    RECEIVING, CHECKING = "receiving", "checking"
    PUBLISHED, REFUSED, FAILED = "published", "refused", "failed"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens."""
        return self not in (UploadState.RECEIVING, UploadState.CHECKING)


class UploadStatus(Snapshot):
    """One upload. `version` is None until the next number is chosen; `at` is when it came to its state.

    `file` is the name of the artefact, `version.tar` for a whole directory; `bytes` have arrived. `gates` are those
    that have spoken so far; `gate` is the one that refused.
    """

    id: str
    model: str
    version: str | None
    file: str
    bytes: int = 0
    state: UploadState
    gates: tuple[GateResult, ...] = ()
    gate: str | None = None
    reason: str | None = None
    digest: str | None = None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What a client wants to publish. `version` None asks for the next number.

    `file` is the name of the artefact; None: the body is a tar archive of a version directory. `size` is the number of
    bytes of the body, None where the client does not say.
    """

    model: str
    version: str | None
    file: str | None
    size: int | None
    is_breaking: bool
    metrics: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class UploadBegun:
    """Control has made room: write the files into `directory`, at most `max_bytes`."""

    id: str
    directory: str
    max_bytes: int


class UploadProblem(StrEnum):
    """Why an upload has come to nothing: each stands for one class of error."""

    REFUSED = "upload-refused"
    NOT_POSSIBLE = "operation-refused"
    INVALID = "invalid-input"
    MALFORMED = "malformed"
    TOO_LARGE = "body-too-large"
    FULL = "store-full"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class UploadFailed:
    """Nothing was published; `reason` is one line fit to show a user. `status` is there if a gate refused."""

    problem: UploadProblem
    reason: str
    status: UploadStatus | None = None

    @classmethod
    def from_error(cls, error: ServingError) -> UploadFailed:
        """Return the value that stands for an error; an unexpected one may pass."""
        if isinstance(error, UploadRefused):
            return cls(UploadProblem.REFUSED, str(error), error.status)
        found = (problem for problem, kind in _ERRORS.items() if isinstance(error, kind))
        return cls(next(found, UploadProblem.UNAVAILABLE), str(error))

    def to_error(self) -> ServingError:
        """Return the error for the caller."""
        if self.status is not None:
            return UploadRefused(self.reason, self.status)
        if self.problem is UploadProblem.UNAVAILABLE:
            return Unavailable(self.reason, RETRY_SECONDS)
        return _ERRORS[self.problem](self.reason)


_ERRORS: dict[UploadProblem, type[ServingError]] = {
    UploadProblem.NOT_POSSIBLE: OperationRefused,
    UploadProblem.INVALID: InvalidInput,
    UploadProblem.MALFORMED: Malformed,
    UploadProblem.TOO_LARGE: BodyTooLarge,
    UploadProblem.FULL: StoreFull,
    UploadProblem.UNAVAILABLE: Unavailable,
}


@dataclass(frozen=True, slots=True)
class UploadDone:
    """The version is in the store."""

    status: UploadStatus


UploadOutcome = UploadDone | UploadFailed


class Uploads(Protocol):
    """Where uploads go. Awaited on the event loop, which it never blocks."""

    async def receive(self, request: UploadRequest, actor: str, chunks: AsyncIterator[bytes]) -> UploadStatus:
        """Receive the body, check the version and publish it; return how it has ended.

        Nothing is read from `chunks` before the request is found possible. Raises UploadRefused when a gate refuses,
        the other errors of this module, and what `chunks` raises; nothing is left behind then. Once the whole body is
        there, the upload goes on to its end even if the caller is cancelled.
        """
        ...


class UploadControl(Protocol):
    """Control as one that receives a body sees it. Awaited on the event loop."""

    async def begin_upload(self, request: UploadRequest, actor: str) -> UploadBegun:
        """Make room for an upload. Raises the errors of this module."""
        ...

    def note_upload(self, upload_id: str, size: int) -> None:
        """Say how many bytes have arrived. Waits for nothing."""
        ...

    async def finish_upload(self, upload_id: str, size: int) -> UploadStatus:
        """Check what has been written, and publish it. Raises the errors of this module."""
        ...

    async def abandon_upload(self, upload_id: str, reason: str) -> None:
        """Give up an upload whose body has not arrived; return when nothing is left of it."""
        ...

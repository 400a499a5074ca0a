"""All errors of this package, as a small tree. They know nothing of HTTP.

ServingError
├── StoreUnavailable        the store cannot be listed; the desired state stands
├── StateUnavailable        the state directory or its database cannot be used
├── Cancelled               a long operation was told to stop, and did
├── StagingFailed           copying into the cache failed for a reason that may pass (disk, permissions)
├── NotPublished            the files changed while they were read, or do not match their manifest yet
├── PublishRefused          a version cannot be published as asked
├── StoreFull               the store has no room for what is uploaded
├── UploadRefused           a gate refuses what is uploaded; nothing was published
├── EnvironmentRefused      an environment cannot be made, checked or removed as asked
├── NeedsUnknown            what a version needs cannot be found out, because a gate refuses its files before
├── HostFailed              a host process died, was killed or broke the protocol
│   └── HostDied            ... with the signal or exit status
├── ProtocolError           bytes on the wire that are not a frame
├── GraphRefused            a graph without bounds in memory and time, or with wrong outputs
│   └── GraphHasNoRoom      all graphs in all workers may take only so much memory
├── RequestRefused          the caller's fault; the detail says what to change
│   ├── Misdirected         the request is addressed to a name that is not this server's
│   ├── CrossSite           a page of another site sent the request
│   ├── NotJson             the body is not JSON
│   ├── Malformed           the body is not what its content type says
│   ├── BodyTooLarge        more bytes or rows than allowed
│   ├── UnsupportedMedia    a content type that the route does not read
│   ├── NotAcceptable       no answer has the form that is asked for
│   ├── InvalidInput        JSON, but its rows do not fit this model
│   ├── UnknownModel        no such model
│   ├── UnknownVersion      no such version, or not loaded
│   └── UploadsOff          the settings do not let anybody upload versions
├── OperationRefused        an operator's call that cannot be carried out in this state
├── Unavailable             nothing can answer right now; try again later
│   ├── NothingActive       the model has no active version yet
│   ├── Overloaded          the queue is full
│   └── HostLost            the host died twice under the same request
├── DeadlineExceeded        the model did not answer in time
└── ModelFailed             the model raised while it answered
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.domain.report import CandidateReport
    from serving.domain.upload import UploadStatus


class ServingError(Exception):
    """Base of all errors raised by this package. ``str(error)`` is one line fit to show a user."""


class StoreUnavailable(ServingError):
    """The model directory cannot be listed. It is not empty: it is unknown."""


class StateUnavailable(ServingError):
    """The state directory or its database cannot be read or written."""


class Cancelled(ServingError):
    """A long operation was told to stop, and did. This is no failure, so it needs no message."""


class StagingFailed(ServingError):
    """An artefact could not be copied into the cache; trying again later may work."""


class NotPublished(ServingError):
    """A version is not complete on disk yet."""


class PublishRefused(ServingError):
    """A version cannot be published under this name or with these files.

    ``argument`` is the parameter of ``serving.publish`` that would change this, None when no parameter would; the
    command and the function each spell it in their own way. ``report`` is what the gates found, None when none ran.
    """

    def __init__(self, message: str, argument: str | None = None, report: CandidateReport | None = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.report = report


class NeedsUnknown(ServingError):
    """A gate refuses the files of a version before it is found out what they need; the message names it."""


class StoreFull(ServingError):
    """The disk of the store, or its quota, has no room for a version that is uploaded."""


class UploadRefused(ServingError):
    """A gate refuses a version that was uploaded; nothing was published. `status` has the gates' verdicts."""

    def __init__(self, message: str, status: UploadStatus) -> None:
        super().__init__(message)
        self.status = status


class EnvironmentRefused(ServingError):
    """An environment cannot be made, checked or removed as asked. The message says what to do."""


class HostFailed(ServingError):
    """A host process did not do what it was asked."""


class HostDied(HostFailed):
    """A host process ended by itself or was killed by another process.

    ``returncode`` is negative for a signal, as in :mod:`subprocess`; None when it is unknown.
    """

    def __init__(self, message: str, returncode: int | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode


class ProtocolError(ServingError):
    """Bytes on the wire that are not a well-formed frame."""


class GraphRefused(ServingError):
    """A compiled form that must not run in the server; the message says which part has no bounds or is wrong.

    `is_final` is False when the same graph may pass another time: the checker was too slow, or died.
    """

    def __init__(self, message: str, *, is_final: bool = True) -> None:
        super().__init__(message)
        self.is_final = is_final


class GraphHasNoRoom(GraphRefused):
    """A compiled form that the memory for all workers has no room for now; the message has the numbers."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_final=False)


class RequestRefused(ServingError):
    """A request that cannot be answered as it is. The message says what to change."""


class Misdirected(RequestRefused):
    """The request is addressed to a name that is not this server's."""


class CrossSite(RequestRefused):
    """A browser sent the request for a page of another site."""


class NotJson(RequestRefused):
    """The body is not a JSON document."""


class Malformed(RequestRefused):
    """The body is not what its content type says, which is not JSON."""


class BodyTooLarge(RequestRefused):
    """The body has more bytes or rows than the server takes."""


class UnsupportedMedia(RequestRefused):
    """This route does not read the body's content type."""


class NotAcceptable(RequestRefused):
    """No answer has the form the request asks for."""


class InvalidInput(RequestRefused):
    """The body is JSON, but its rows do not fit this model."""


class UnknownModel(RequestRefused):
    """The store has no model of this name and none is loaded."""

    @classmethod
    def for_name(cls, model: str, listed_by: str = "GET /models") -> UnknownModel:
        """Return the error for this name; `listed_by` is the call that lists the known models."""
        return cls(f"no model named {model[:120]!r}; {listed_by} lists the ones there are")


class UnknownVersion(RequestRefused):
    """The model has no such version, or it is not loaded."""


class UploadsOff(RequestRefused):
    """The settings do not let operators upload versions."""


class OperationRefused(ServingError):
    """An operator's call that cannot be carried out in the present state."""


class Unavailable(ServingError):
    """Nothing can answer right now. ``retry_after_seconds`` is a hint for the caller."""

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NothingActive(Unavailable):
    """The model is known but no version of it is active yet."""


class Overloaded(Unavailable):
    """More requests are waiting for this model than the queue holds."""


class HostLost(Unavailable):
    """The process that holds the model died while it answered, and again on the retry."""


class DeadlineExceeded(ServingError):
    """The model did not answer before the deadline."""


class ModelFailed(ServingError):
    """The model itself raised while it answered."""

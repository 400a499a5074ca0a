"""A dialect is one protocol, as the endpoint for predictions sees it: how it reads, writes and refuses.

A dialect knows no servable and keeps no state. Its methods only compute. Any thread may call them: for large bodies a
worker thread does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from starlette.responses import Response

from serving.api.bodies import Headers
from serving.domain.signature import Signature
from serving.plane.active_reference import Asked, Label
from serving.plane.prediction import Answer, PredictRequest

JSON = b"application/json"
QUERY = "?"


class Written(NamedTuple):
    """The body of an answer, its media type, and headers beyond the usual ones."""

    body: bytes
    media_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Call(NamedTuple):
    """One request as its protocol reads it.

    `read` makes the rows, when the signature of the servable is known; `write` makes the body of the answer. Both raise
    what `parse` raises. `reads_slowly` and `writes_slowly`: it must not run on the event loop, even if it looks short.
    """

    read: Callable[[Signature], PredictRequest]
    write: Callable[[Answer, Signature], Written]
    reads_slowly: bool = False
    writes_slowly: bool = False


class Refusal(NamedTuple):
    """A request that is not answered: the error, its status in the native interface, and a line that says what to do.

    `headers` are sent with it in every protocol. `model` and `version` are what answered or was asked, if that is
    known.
    """

    error: Exception
    status: int
    detail: str
    headers: Mapping[str, str]
    model: str | None = None
    version: str | None = None


class NamedInPath:
    """Base of dialects whose paths have the names of model, version and label unchanged."""

    def target(self, params: Mapping[str, str]) -> tuple[str | None, Asked]:
        """Return the model and the version in the path."""
        label = params.get("label")
        return params.get("model"), params.get("version") if label is None else Label(label)


class Dialect(Protocol):
    """One protocol. `takes_compressed`: bodies may have the content encodings gzip and deflate."""

    takes_compressed: bool

    def check_head(self, headers: Headers) -> None:
        """Raise UnsupportedMedia for a body that this dialect cannot read, before any of it is read."""
        ...

    def target(self, params: Mapping[str, str]) -> tuple[str | None, Asked]:
        """Return the model (None: the default one) and the version (None: the active one) in a path."""
        ...

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:
        """Read a whole body; `params` are those of the path and, under QUERY, the query string if there is one.

        Raises NotJson, InvalidInput, UnsupportedMedia or another RequestRefused.
        """
        ...

    def refuse(self, refusal: Refusal) -> Response:
        """Return the answer to a request that failed, in the protocol's own shape."""
        ...

"""One request for a prediction on its way in: what a protocol receives, what becomes of it, what is noted meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from serving.api.dialect import Call, Refusal, Written
from serving.api.inflight import Share
from serving.domain.signature import Signature
from serving.plane.active_reference import Asked
from serving.plane.prediction import Answer
from serving.plane.servable import Servable
from serving.plane.served_split import ServedSplit
from serving.settings import TokenScope

Reply_co = TypeVar("Reply_co", covariant=True)
Target = tuple[str | None, Asked]
"""The model (None: the default one) and the version (None: the active one) that are asked for."""


class Incoming(Protocol[Reply_co]):
    """One request that a protocol has received. Event loop thread only, except `parse`.

    `names` has the asked `model` and `version`, as far as they are known, for the texts of errors.
    """

    def check(self, scope: TokenScope) -> None:
        """Raise AccessRefused, or CrossSite, unless what the caller shows opens this scope."""
        ...

    @property
    def names(self) -> Mapping[str, str]:
        """See above."""
        ...

    async def receive(self, share: Share) -> int:
        """Read the whole body, counted in `share`; return how many bytes it has.

        Faults of its head are raised before anything is read.
        """
        ...

    def target(self) -> Target:
        """Return the asked model and version; call it after `receive`."""
        ...

    def parse(self) -> Call:
        """Parse the body; any thread, because a large one takes a while. Raises RequestRefused."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, or of a key of metadata, None without one. `name` is in lower case."""
        ...

    def seconds_left(self) -> float | None:
        """Return how much of the client's own deadline is left, None if it has none."""
        ...

    def sharpen(self, error: Exception) -> Exception:
        """Return the error to report: a fault of the body if it says more than `error`, else `error`."""
        ...

    def refuse(self, refusal: Refusal) -> tuple[int, Reply_co]:
        """Return the status of a refusal, and the refusal in the protocol's own shape."""
        ...


class AnsweredCall(NamedTuple):
    """An answer that is ready to be sent, and the version that gave it."""

    written: Written
    model: str
    version: str


class RefusedCall(NamedTuple, Generic[Reply_co]):
    """A refusal that is ready to be sent; `model` and `version` would have answered, empty if that is unknown."""

    reply: Reply_co
    status: int
    model: str
    version: str


class Respondent:
    """The version that would answer a request, set as soon as it is known.

    `split` is how requests are shared at that moment, where the answer counts for that. `key` is who the client is, and
    `is_new` whether the new version answers. `shadow` is set instead where the new version only gets a copy: of `call`,
    whose body has `size` bytes, as soon as it is parsed, and of the `answer`, as soon as it is computed.
    """

    __slots__ = ("answer", "call", "is_new", "key", "model", "shadow", "signature", "size", "split", "version")

    def __init__(self) -> None:
        self.model, self.version = "", ""
        self.signature: Signature | None = None
        self.split: ServedSplit | None = None
        self.key: bytes | None = None
        self.is_new = False
        self.shadow: ServedSplit | None = None
        self.call: Call | None = None
        self.size = 0
        self.answer: Answer | None = None

    def set(self, servable: Servable) -> None:
        """Note what answers."""
        self.model, self.version, self.signature = servable.id.model, servable.id.version, servable.signature

"""How the requests of a model are shared between a new version and the old one: chosen once, at admission.

A client that has a key is always given the same version: its key, hashed together with the digest of the new version,
is a number from 0 to 1, and the new version has those below its share. So a client that has come to the new version
stays there while the share grows, and each rollout begins with other clients.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from hashlib import blake2b

from serving.domain.plan import Split
from serving.plane.servable import Servable

HEADER, FIELD = "header:", "field:"
_HASHES = float(1 << 64)


@dataclass(frozen=True, slots=True)
class ServedSplit:
    """A `Split` with its servables. Event loop thread only.

    `header` is the header, in lower case, or `column` the one of the rows that says who the client is, if one does.
    """

    split: Split
    new: Servable
    old: Servable
    header: bytes | None = field(init=False)
    column: str | None = field(init=False)
    _salt: bytes = field(init=False)

    def __post_init__(self) -> None:
        sticky = self.split.sticky or ""
        header = sticky.removeprefix(HEADER).lower().encode() if sticky.startswith(HEADER) else None
        object.__setattr__(self, "header", header)
        object.__setattr__(self, "column", sticky.removeprefix(FIELD) if sticky.startswith(FIELD) else None)
        object.__setattr__(self, "_salt", blake2b(self.split.new.digest.encode(), digest_size=16).digest())

    def choose(self, key: bytes | None) -> Servable:
        """Return the version that answers a client with this key; without one chance decides."""
        part = random.random() if key is None else self._place(key) / _HASHES  # noqa: S311  (nothing is secret here)
        return self.new if part < self.split.share else self.old

    def _place(self, key: bytes) -> int:
        return int.from_bytes(blake2b(key, digest_size=8, salt=self._salt).digest(), "big")

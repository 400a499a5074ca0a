"""What a checker is told: headers of its frames. Imports no library that reads graphs, as the server sends these."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from serving.domain.compiled import Guard
from serving.domain.signature import Method, Signature


class CheckerRequest(BaseModel):
    """What comes first: how much memory the process may map beyond its imports, and a directory of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int
    scratch: str | None = None


class CheckRequest(BaseModel):
    """What graphs are checked against: signature and guard of their model, and how many rows the proof ran at once.

    `graphs` says of each graph, in order, which outputs answer each method, and how many bytes it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature
    guard: Guard
    most_rows: int
    graphs: tuple[tuple[dict[Method, tuple[str, ...]], int], ...]

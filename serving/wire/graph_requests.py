"""The headers of the frames that the server sends to a checker of graphs.

The server imports this module, so it imports no library that reads graphs.
"""

from __future__ import annotations

from serving.data_model import BaseModel, ConfigDict
from serving.domain.compiled_form import Guard
from serving.domain.signature import Method, Signature


class CheckerRequest(BaseModel):
    """The first request: how much memory the process may map beyond its imports, and its own directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: int
    scratch: str | None = None


class CheckRequest(BaseModel):
    """What graphs are checked against: signature and guard of their model, and how many rows the proof ran at once.

    `graphs` has an entry for each graph, in order: which outputs answer each method, and the size in bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature
    guard: Guard
    most_rows: int
    graphs: tuple[tuple[dict[Method, tuple[str, ...]], int], ...]

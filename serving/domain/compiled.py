"""The compiled form of a model and the proof that it answers alike: plain data for the wire, the cache and people.

Inputs of a graph follow from the signature. When every feature is a number: one input ``X``, float64 of shape (rows,
features), NaN for null. Otherwise one input for each feature, ``c0, c1, ...`` of shape (rows, 1): float64 (NaN for
null) for numbers and for bools that may be null, bool for other bools, strings for strings, where `NULL_TEXT` stands
for null. Outputs have exactly the dtype and shape of the arrays the estimator itself returns; labels that are text are
strings.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from serving.domain.signature import Method

MATRIX_INPUT = "X"
COLUMN_PREFIX = "c"
NULL_TEXT = "\x00null"
MAX_KNOWN_VALUES = 1_000_000
MAX_KNOWN_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX graph: its serialized form, and for each method it answers the names of the outputs to read."""

    content: bytes | memoryview
    outputs: dict[Method, tuple[str, ...]]


class Guard(BaseModel):
    """Rows that the compiled form must refuse, because the estimator refuses them or nothing was proved of them.

    Numbers above `largest` or below `smallest` (None: no bound). `known` gives, by the position of a feature, the only
    values it may have (null is always let through: the signature says where it may stand).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: float | None = None
    smallest: float | None = None
    known: dict[int, tuple[str | float | bool, ...]] = {}

    @property
    def is_open(self) -> bool:
        """True when there is nothing to refuse."""
        return self.largest is None and self.smallest is None and not self.known

    def why_too_large(self) -> str | None:
        """Say why this is more than the server looks up for each row, None when it is not."""
        values = sum(map(len, self.known.values()))
        characters = sum(len(value) for each in self.known.values() for value in each if isinstance(value, str))
        if values <= MAX_KNOWN_VALUES and characters <= MAX_KNOWN_CHARACTERS:
            return None
        most = f"{MAX_KNOWN_VALUES} of {MAX_KNOWN_CHARACTERS}"
        return f"its features have {values} known values of {characters} characters, at most {most} are looked up"


class ProvenRows(BaseModel):
    """How many rows of one kind (``golden``, ``random``, ``threshold``, ...) were answered alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    rows: int


class Compilation(BaseModel):
    """Whether a model is served compiled, and on what evidence. `is_final` says that asking again would be in vain.

    `engine` is ``onnx`` when it is, else None; `reason` says in a sentence why or why not. `guard` says what is
    refused. `largest_difference` is the largest distance between two numbers over all rows and methods, relative to the
    number or to 1 (less where all are smaller), like the tolerance; labels were equal on all rows. `row_seconds` and
    `batch_seconds` are medians for 1 and for `batch_rows` rows of the default method: as the estimator answers, and as
    the graph does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None
    reason: str
    is_final: bool = True
    rows: tuple[ProvenRows, ...] = ()
    guard: Guard = Guard()
    largest_difference: float | None = None
    row_seconds: tuple[float, float] | None = None
    batch_seconds: tuple[float, float] | None = None
    batch_rows: int = 0
    graph_bytes: int | None = None
    seconds: float = 0.0

    @property
    def speed_up(self) -> float | None:
        """How many times faster one row is answered; None when it was not measured."""
        return None if self.row_seconds is None else self.row_seconds[0] / self.row_seconds[1]

"""The compiled form of a model and the proof that it gives the same answers: data for the wire, the cache and people.

Inputs of a graph follow from the signature. When every feature is a number: one input ``X``, float64 of shape (rows,
features), NaN for null. Otherwise one input for each feature, ``c0, c1, ...`` of shape (rows, 1): float64 (NaN for
null) for numbers and for bools that may be null, bool for other bools, strings for strings, where `NULL_TEXT` stands
for null. Outputs have exactly the dtype and shape of the arrays the estimator itself returns; labels that are text are
strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.data_model import BaseModel, ConfigDict, Field
from serving.domain.signature import Method

MATRIX_INPUT = "X"
COLUMN_PREFIX = "c"
NULL_TEXT = "\x00null"
# limits of one run of a graph in the server: a run cannot be interrupted, and other requests wait for it
MOST_ROWS = 4096
PIECE_BYTES = 64 << 20
PIECE_SECONDS = 0.05
UNSIGNED_FILE = (
    "an .onnx file is a program of its author's, so a graph is made of it only when a key in security.trusted_keys has "
    "signed the version: publish it with 'serving publish --sign KEYFILE'"
)
MAX_KNOWN_VALUES = 200_000
MAX_KNOWN_CHARACTERS = 2_000_000


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX graph: its serialized form, and for each method it answers the names of the outputs to read."""

    content: bytes | memoryview
    outputs: dict[Method, tuple[str, ...]]

    def describe(self) -> dict[str, Any]:
        """Return the description that is written before the content, as JSON data."""
        return {"outputs": self.outputs, "bytes": len(self.content)}

    @classmethod
    def of(cls, described: Mapping[str, Any], content: bytes | memoryview) -> Graph:
        """Return the graph with this description; raises KeyError or AttributeError when the description is damaged."""
        return cls(content, {method: tuple(names) for method, names in described["outputs"].items()})


class Guard(BaseModel):
    """Rows that the compiled form must refuse: the estimator refuses them, too, or they were not part of the proof.

    Numbers above `largest` or below `smallest` (None: no bound). `known` gives, by the position of a feature, the only
    values it may have (null always passes: the signature says where it is allowed).
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
        """Say why this guard holds more values than the server looks up for each row, None when it does not."""
        values = sum(map(len, self.known.values()))
        characters = sum(len(value) for each in self.known.values() for value in each if isinstance(value, str))
        if values <= MAX_KNOWN_VALUES and characters <= MAX_KNOWN_CHARACTERS:
            return None
        most = f"{MAX_KNOWN_VALUES} of {MAX_KNOWN_CHARACTERS} characters"
        return f"its features have {values} known values of {characters} characters; the server looks up at most {most}"


class ProvenRows(BaseModel):
    """How many rows of one kind (``golden``, ``random``, ``threshold``, ...) had the same answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    rows: int


class RunBounds(BaseModel):
    """The limits of a run of a compiled form, measured in a process without any model: see `serving.host.graph_check`.

    A run answers `rows` rows at most, as many as were tried. It takes ``rows * row_bytes + fixed_bytes`` bytes, and
    holds the longest text of a request ``rows * row_texts + fixed_texts`` times. For each method, `answer_bytes` is
    the size of the answer to one row, and `seconds` the time of one row and of each further row, at the slowest values.
    `session_bytes` is what the form takes in each process that answers, also while nothing runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rows: int = Field(ge=1)
    row_bytes: int = Field(ge=0)
    fixed_bytes: int = Field(ge=0)
    row_texts: int = Field(ge=0)
    fixed_texts: int = Field(ge=0)
    answer_bytes: dict[Method, int]
    seconds: dict[Method, tuple[float, float]]
    session_bytes: int = Field(ge=0)

    def bytes_of(self, rows: int, longest_text: int = 0) -> int:
        """Return the most bytes that a run takes for `rows` rows, when the longest text has `longest_text` bytes."""
        texts = rows * self.row_texts + self.fixed_texts
        return rows * self.row_bytes + self.fixed_bytes + texts * longest_text

    def rows_within(self, most_bytes: int, longest_text: int = 0) -> int:
        """Return how many rows one run may have within `most_bytes`: at most `rows`, 0 when one row is too many."""
        left = most_bytes - self.bytes_of(0, longest_text)
        row_bytes = self.row_bytes + self.row_texts * longest_text
        return max(0, min(self.rows, left // row_bytes if row_bytes else self.rows))


class Compilation(BaseModel):
    """Whether a model is served compiled, and the evidence. `is_final`: another attempt would have the same result.

    `engine` is ``onnx`` when the model is served compiled, else None; `reason` says in a sentence why or why not.
    `guard` holds what is refused. `largest_difference` is the largest distance between two numbers over all rows and
    methods, relative to the number or to 1 (less where all are smaller), like the tolerance; labels were equal on all
    rows. `row_seconds` and `batch_seconds` are medians for 1 and for `batch_rows` rows of the default method: of the
    estimator, then of the graph. `most_rows` is how many rows the proof ran at once; `bounds` is what the checker of
    graphs found. `lacks_memory`: there is a proved form, which the memory for all workers has no room for.
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
    most_rows: int = 0
    bounds: RunBounds | None = None
    graph_bytes: int | None = None
    lacks_memory: bool = False
    seconds: float = 0.0

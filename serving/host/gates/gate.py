"""Defines a gate, and the data that gates share while they check one candidate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from serving.compiling.forked_worker import ForkedWorker
from serving.domain.compiled_form import Compilation, Graph
from serving.domain.environment import Needs
from serving.domain.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    MAX_DOCUMENT_BYTES,
    Golden,
    Manifest,
    parse_golden,
    parse_manifest,
)
from serving.domain.mlmodel import (
    EXAMPLE_NAMES,
    MAX_MLMODEL_BYTES,
    MLMODEL_NAME,
    NamedColumn,
    columns_of,
    rows_of_example,
)
from serving.domain.provenance import Provenance
from serving.domain.recent_rows import RecentRows
from serving.domain.report import GateName, Verdict
from serving.domain.sandbox import Sandbox
from serving.host.find_needs import find_needs
from serving.host.model import LoadedModel
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from serving.wire.evaluation import EvaluationRequest, NeedsFound
from serving.wire.recent_rows_document import decode_recent_rows

GateOutcome = tuple[Verdict, str]


class GateRefused(Exception):  # an outcome, not an error: caught by run_gates only
    """Raised by a gate to refuse the candidate; the message is one line that says why and what to do."""


class Gate(Protocol):
    """One check."""

    name: GateName

    def check(self, context: GateContext) -> GateOutcome:
        """Return the verdict and a sentence of evidence; raises GateRefused, or any other exception, to refuse."""
        ...


@dataclass
class GateContext:
    """One candidate, and what the gates have found out about it so far.

    - `compiler`: the process to compile in; None where nothing will be compiled.
    - `model`: set by the gate `load`.
    - `memory_bytes`: private memory of this process, set by `budget` and `warm_up`.
    - `why_unanswerable`: set when the model refuses made-up rows and there are no golden rows, so that no gate can try
      it. This is not a fault of the model.
    - `why_unvouched`: why the server must not run a compiled form of the model, where that is so.
    - `provenance`: set when a trusted key has signed the version.
    - `compilation`, `graphs`: set by the gate `compile`; `graphs` only when a compiled form is to answer.
    - `watch`: called after a file was read without running code, and before any object in it is used. From then on an
      attempt of the model to do more than compute ends the process.
    - `why_unwatched`: why `watch` was not called.
    - `skew`: the versions of scikit-learn in training and here, after a warning of the gate `environment`.
    - `why_one_by_one`: why rows of several requests must not be answered together, where that is so.
    - `recent_rows`: rows that the active version has answered, until the gate `replay` takes them: see
      `serving.wire.recent_rows_document`.
    - `takes_example`: the model refuses made-up rows, but takes the rows of MLflow's input example.
    """

    request: EvaluationRequest
    sandbox: Sandbox = field(default_factory=Sandbox)
    compiler: ForkedWorker | None = None
    model: LoadedModel | None = None
    memory_bytes: int | None = None
    why_unanswerable: str | None = None
    why_unvouched: str | None = None
    provenance: Provenance | None = None
    compilation: Compilation | None = None
    graphs: tuple[Graph, ...] = ()
    watch: Callable[[], None] = lambda: None
    why_unwatched: str | None = None
    skew: str | None = None
    why_one_by_one: str | None = None
    takes_example: bool = False
    recent_rows: str | None = None

    def note_read(self, vouched: str | None) -> None:
        """Note that the file was read. `vouched` says which trust this needed; None for no trust, and then watch."""
        self.why_unwatched = vouched
        if vouched is None:
            self.watch()

    @property
    def loaded_model(self) -> LoadedModel:
        """The model, for the gates after `load`; raises GateRefused where there is none."""
        if self.model is None:
            raise GateRefused("nothing was loaded")
        return self.model

    @cached_property
    def manifest(self) -> Manifest | None:
        """The parsed manifest, None when the version has none; raises InvalidDocument."""
        raw = self.read_file(MANIFEST_NAME)
        return None if raw is None else parse_manifest(raw)

    @cached_property
    def needs_found(self) -> NeedsFound:
        """What the candidate needs; found out once. Raises InvalidDocument."""
        return find_needs(self.request, self.manifest)

    @property
    def needs(self) -> Needs:
        """What the candidate needs, as the host at home has found out. Raises InvalidDocument."""
        return self.request.needs or self.needs_found.needs

    @property
    def named_columns(self) -> tuple[NamedColumn, ...]:
        """The columns in MLflow's description, if MLflow saved the version; a manifest with a signature says more."""
        raw = self.read_file(MLMODEL_NAME, MAX_MLMODEL_BYTES)
        return () if raw is None else columns_of(raw)

    @cached_property
    def golden(self) -> Golden | None:
        """The parsed golden examples, None when the version has none; raises InvalidDocument."""
        raw = self.read_file(GOLDEN_NAME)
        return None if raw is None else parse_golden(raw)

    @cached_property
    def example_rows(self) -> list[Any]:
        """The rows of MLflow's input example; empty where there is none."""
        raw = next(
            (raw for name in EXAMPLE_NAMES if (raw := self.read_file(name, MAX_MLMODEL_BYTES)) is not None), b"[]"
        )
        return rows_of_example(raw)

    def take_recent_rows(self) -> RecentRows | None:
        """Return the recent rows, once: this process keeps none of them."""
        document, self.recent_rows = self.recent_rows, None
        return None if document is None else decode_recent_rows(document)

    def pick_rows(self, count: int) -> Batch:
        """Return `count` rows to try the model with: golden rows or the example's, repeated, or else made-up rows."""
        if self.golden is None and not self.takes_example:
            return self.loaded_model.make_rows(count)
        instances = self.example_rows if self.golden is None else self.golden.instances
        return rows_to_batch(self.loaded_model.signature, [instances[row % len(instances)] for row in range(count)])

    def read_file(self, name: str, at_most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """Return the bytes of a small file; see `EvaluationRequest.read`."""
        return self.request.read(name, at_most)

"""What a gate is, and what gates share while one candidate passes through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from serving.compiling.forked_worker import ForkedWorker
from serving.domain.compiled_form import Compilation, Graph
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
from serving.domain.report import GateName, Verdict
from serving.domain.sandbox import Sandbox
from serving.host.model import LoadedModel
from serving.rows.batch import Batch
from serving.rows.parsing import rows_to_batch
from serving.wire.evaluation import EvaluationRequest

Outcome = tuple[Verdict, str]


class Refused(Exception):  # an outcome, not an error: caught by run_gates only
    """Raised by a gate to refuse the candidate; the message is one line that says why and what to do."""


class Gate(Protocol):
    """One check."""

    name: GateName

    def check(self, context: Context) -> Outcome:
        """Return the verdict and a sentence of evidence; raises Refused, or any other exception, to refuse."""
        ...


@dataclass
class Context:
    """One candidate on its way through the gates.

    `model` is set by the load gate, `memory_bytes` by budget and warm-up. `unanswerable` is set when the model refuses
    made-up rows and there are no golden ones: then nothing can be tried, which is no fault of the model. `unvouched`
    says why a compiled form of the model must not get into the server, where that is so. `provenance` is set when a
    trusted key has signed. The compile gate sets `compilation`, and `graphs` when a compiled form is to answer;
    `compiler` is the process to compile in. `watch` is called when a file has been read that ran nothing for that, and
    before anything of it is called: what it does from then on ends the process. `unwatched` says why it was not.
    `skew` names the versions that the model was trained with and that are here, after a warning of the environment
    gate. `one_by_one` says why rows of several requests must not meet, where they must not. `takes_example` says that
    the model refuses made-up rows, and takes those that MLflow has as an example.
    """

    request: EvaluationRequest
    sandbox: Sandbox = field(default_factory=Sandbox)
    compiler: ForkedWorker | None = None
    model: LoadedModel | None = None
    memory_bytes: int | None = None
    unanswerable: str | None = None
    unvouched: str | None = None
    provenance: Provenance | None = None
    compilation: Compilation | None = None
    graphs: tuple[Graph, ...] = ()
    watch: Callable[[], None] = lambda: None
    unwatched: str | None = None
    skew: str | None = None
    one_by_one: str | None = None
    takes_example: bool = False

    def note_read(self, vouched: str | None) -> None:
        """Note that the file has been read, and whose word that took; nobody's for None."""
        self.unwatched = vouched
        if vouched is None:
            self.watch()

    @property
    def loaded(self) -> LoadedModel:
        """The model, for the gates after load."""
        if self.model is None:
            raise Refused("nothing was loaded")
        return self.model

    @cached_property
    def manifest(self) -> Manifest | None:
        """The parsed manifest, None when the version has none; raises InvalidDocument."""
        raw = self.read(MANIFEST_NAME)
        return None if raw is None else parse_manifest(raw)

    @property
    def columns(self) -> tuple[NamedColumn, ...]:
        """What MLflow says of the columns, where it saved the version; a manifest with a signature says more."""
        raw = self.read(MLMODEL_NAME, MAX_MLMODEL_BYTES)
        return () if raw is None else columns_of(raw)

    @cached_property
    def golden(self) -> Golden | None:
        """The parsed golden examples, None when the version has none; raises InvalidDocument."""
        raw = self.read(GOLDEN_NAME)
        return None if raw is None else parse_golden(raw)

    @cached_property
    def example(self) -> list[Any]:
        """The rows of MLflow's input example; none where there is none."""
        raw = next((raw for name in EXAMPLE_NAMES if (raw := self.read(name, MAX_MLMODEL_BYTES)) is not None), b"[]")
        return rows_of_example(raw)

    def rows(self, count: int) -> Batch:
        """Return `count` rows to try the model with: golden ones or an example's, over and over, or made-up ones."""
        if self.golden is None and not self.takes_example:
            return self.loaded.make_rows(count)
        instances = self.example if self.golden is None else self.golden.instances
        return rows_to_batch(self.loaded.signature, [instances[row % len(instances)] for row in range(count)])

    def read(self, name: str, at_most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """Return the bytes of a small file; see `EvaluationRequest.read`."""
        return self.request.read(name, at_most)

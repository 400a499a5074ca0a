"""What the gates found out about a candidate: plain data for the wire, the log, HTTP and the history."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from serving.data_model import BaseModel, ConfigDict
from serving.domain.compiled_form import Compilation, Graph
from serving.domain.environment import OWN, Choice, Needs
from serving.domain.pinned_versions import PYTHON, is_version_text
from serving.domain.provenance import Provenance
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Signature

MAX_EVIDENCE_CHARACTERS = 2000


class GateName(StrEnum):
    """Every gate, in the order in which a candidate passes them."""

    PUBLISHED = "published"
    INTEGRITY = "integrity"
    PROVENANCE = "provenance"
    FORMAT = "format"
    LOAD = "load"  # the first that opens the candidate's file
    ENVIRONMENT = "environment"
    CONTRACT = "contract"
    GOLDEN = "golden"
    FINITE = "finite"
    BUDGET = "budget"
    BATCHING = "batching"
    REPLAY = "replay"
    COMPILE = "compile"
    WARM_UP = "warm-up"


RESPAWN_GATES = (GateName.LOAD, GateName.WARM_UP)  # for a version that has passed every gate before


class Verdict(StrEnum):
    """The outcome of one gate."""

    PASSED = "passed"
    WARNED = "warned"
    SKIPPED = "skipped"
    REFUSED = "refused"


class GateResult(BaseModel):
    """One gate's verdict with its evidence: a sentence that says what was looked at and what was seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    verdict: Verdict
    evidence: str
    duration_seconds: float = 0.0


class CandidateReport(BaseModel):
    """All that is known about a candidate after its evaluation. `signature` is None when it never loaded.

    `engine` names what computes the answers: ``sklearn`` or ``onnx``. `libraries` are the versions it ran under.
    `memory_bytes` is the host's private memory after warm-up, for a compiled form `RunBounds.session_bytes`
    (the size of its graphs where no checker has seen them).
    `compilation` says whether it is served compiled and why, `sandbox` which layers held the host it was evaluated in.
    `provenance` says which trusted key signed it, None when no trusted key did. `needs` is what it needs to run, and
    `environment` the environment that was chosen for it, and why; None where its file was not looked into.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gates: tuple[GateResult, ...]
    signature: Signature | None = None
    engine: str | None = None
    libraries: dict[str, str] = {}
    memory_bytes: int | None = None
    compilation: Compilation | None = None
    sandbox: Sandbox = Sandbox()
    provenance: Provenance | None = None
    needs: Needs | None = None
    environment: Choice | None = None

    @property
    def place(self) -> str:
        """The name of the environment that it was evaluated in: its hosts run there."""
        return OWN if self.environment is None or self.environment.name is None else self.environment.name

    @property
    def is_compiled(self) -> bool:
        """True when a proved compiled form answers and no host is needed."""
        return self.compilation is not None and self.compilation.engine is not None

    @property
    def may_batch(self) -> bool:
        """True when a test has shown that other rows in a batch do not change the answer to a row."""
        return any(result.gate == GateName.BATCHING and result.verdict is Verdict.PASSED for result in self.gates)

    @property
    def refusal(self) -> GateResult | None:
        """The gate that refused, if one did."""
        return next((result for result in self.gates if result.verdict is Verdict.REFUSED), None)

    def list_training_libraries(self) -> dict[str, str]:
        """Return the versions that it was trained with, as far as anything states them, else those it ran under."""
        stated = {} if self.needs is None else self.needs.libraries
        python = {} if self.needs is None or self.needs.python is None else {PYTHON: self.needs.python}
        exact = {name: version for name, version in stated.items() if is_version_text(version)}
        return {**self.libraries, **exact, **python}

    @property
    def is_ready(self) -> bool:
        """True when every gate ran, none refused and the model is warm."""
        asked = {result.gate for result in self.gates}
        return self.refusal is None and self.signature is not None and {GateName.LOAD, GateName.WARM_UP} <= asked


class Evaluation(NamedTuple):
    """The result of an evaluation: the report, and the graphs that answer instead of the host, if any."""

    report: CandidateReport
    graphs: tuple[Graph, ...] = ()

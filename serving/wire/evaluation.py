"""The headers of an evaluation's frames: what the server asks a host to evaluate, and what the host reports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from serving.data_model import BaseModel, ConfigDict
from serving.domain.compiled_form import Compilation
from serving.domain.environment import OWN, Choice, Needs
from serving.domain.manifest import MAX_DOCUMENT_BYTES, InvalidDocument
from serving.domain.provenance import SIGNATURE_NAME, Provenance
from serving.domain.report import RESPAWN_GATES, GateName, GateResult
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Signature
from serving.domain.version import Format


class EvaluationFile(BaseModel):
    """One staged file: its name in the store, sha256 as hashed while copied, size in bytes, path of the copy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    size: int
    path: str


class CompileRequest(BaseModel):
    """The limits of compiling and what it must prove: see the settings of `engine` with the same names.

    `known` is the verdict of an earlier evaluation of the same digest under the same libraries, if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["auto", "off", "require"] = "auto"
    seconds: float = 60.0
    nodes: int = 2_000_000
    bytes: int = 256 << 20
    tolerance: float = 1e-5
    known: Compilation | None = None


class EvaluationRequest(BaseModel):
    """One candidate, the settings of its gates and what it is compared with.

    `quiet_seconds` is None when a manifest proved that the files are complete. `published_digest` is the digest under
    which this version, with a manifest, was accepted before: it may not change. `was_accepted` says that these bytes
    were accepted before. The candidate must be compatible with `active_signature` (None: there is nothing to be
    compatible with); `active_version` names that version, and `active_provenance` says who signed it, and when.
    `publisher_key` is set when a file is evaluated before it is published: the public key that will sign it. The host
    may write to the directory `scratch`. `recent_rows` are rows that the active version has answered, as
    `serving.wire.recent_rows_document` writes them; at most the share `max_disagreement` of them may get another label.
    `trust`, `pickle_trusted`, `skops_trusted`, `trusted_keys` and `require_sandbox` are settings of `security`.
    `is_respawn` asks for load and warm-up only: the same digest has passed every gate, under the libraries
    `passed_under`.

    `place` is the environment of the host. In another one than the server's own, `prior` are the results of the gates
    that have run at home, which also found out who signed the version (`provenance`) and what it `needs`; `choice` says
    why this environment was chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    digest: str
    format: Format
    main: EvaluationFile
    files: tuple[EvaluationFile, ...]
    quiet_seconds: float | None
    published_digest: str | None = None
    was_accepted: bool = False
    active_signature: Signature | None = None
    active_version: str | None = None
    active_provenance: Provenance | None = None
    publisher_key: str | None = None
    environment: str = "refuse"
    max_latency_seconds: float = 5.0
    max_disagreement: float | None = None
    recent_rows: str | None = None
    memory_bytes: int = 4096 << 20
    max_rows: int = 100_000
    skops_trusted: tuple[str, ...] = ()
    pickle_trusted: tuple[str, ...] = ()
    trusted_keys: tuple[str, ...] = ()
    max_expansion: float = 200.0
    trust: Literal["known", "signed", "any"] = "known"
    require_sandbox: bool = False
    scratch: str | None = None
    compile: CompileRequest = CompileRequest()
    is_respawn: bool = False
    passed_under: dict[str, str] = {}
    place: str = OWN
    prior: tuple[GateResult, ...] = ()
    provenance: Provenance | None = None
    needs: Needs | None = None
    choice: Choice | None = None

    @property
    def gates(self) -> tuple[str, ...]:
        """All gates of the evaluation, in order; those of `prior` have run."""
        return RESPAWN_GATES if self.is_respawn else tuple(GateName)

    @property
    def asks_needs(self) -> bool:
        """Whether the host finds out what the candidate needs before it may load it."""
        return self.place == OWN and not self.is_respawn

    @property
    def may_compile(self) -> bool:
        """Whether this evaluation may make a graph, as far as is known before the gates run."""
        is_asked = self.compile.mode != "off" and self.compile.known is None and not self.is_respawn
        is_signed = self.publisher_key is not None or any(file.name == SIGNATURE_NAME for file in self.files)
        return is_asked and self.trust != "any" and (self.format is not Format.ONNX or is_signed)

    def read(self, name: str, at_most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """Return the bytes of a small staged file; None when no file has this name.

        Blocks on the disk; raises InvalidDocument beyond `at_most`, and OSError.
        """
        staged = next((file for file in self.files if file.name == name), None)
        if staged is None:
            return None
        if staged.size > at_most:
            raise InvalidDocument(f"{name} has {staged.size} bytes, at most {at_most} are read")
        return Path(staged.path).read_bytes()


class Preparation(BaseModel):
    """What a host says before it opens the candidate's file. Until then the server can trust the host.

    `sandbox` lists the layers around the host, `libraries` its versions. `provenance` says who signed the candidate;
    None when no trusted key signed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sandbox: Sandbox
    libraries: dict[str, str] = {}
    provenance: Provenance | None = None


class NeedsFound(BaseModel):
    """What a host of the server's own environment says a candidate needs, before it may load it. Nothing was run.

    `absent` are the needed modules that cannot be imported there. `stays` says that no other environment would help:
    the gate `load` of this host explains best why it refuses the file, which names another framework, or names that
    nothing trusts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: Needs
    absent: tuple[str, ...] = ()
    stays: bool = False


class Findings(BaseModel):
    """What a host says of a candidate at the end. By then it has run the candidate's code, so it is not trusted.

    `signature` is None when the candidate never loaded. `engine` names what computes the answers. `memory_bytes` is the
    host's private memory after warm-up; for a compiled form it is the size of its graphs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: Signature | None = None
    engine: str | None = None
    memory_bytes: int | None = None
    compilation: Compilation | None = None


def why_hosted(request: EvaluationRequest, sandbox: Sandbox) -> str | None:
    """Say why the server takes no graph from the host of this candidate; None when it may take one.

    A graph comes from a process that has opened the candidate's file. If that file could run any code, or if a layer of
    the sandbox was missing while it ran, the server takes no graph at all.
    """
    if request.trust == "any":
        return "security.trust is any, so its file may have run anything in the process that would compile it"
    if not sandbox.is_whole:
        return f"a layer of the sandbox is missing around the process that would compile it: {sandbox}"
    return None

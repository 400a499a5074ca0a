"""Builds the request to a host: the candidate's files, the settings of the gates, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.compiled_form import Compilation
from serving.domain.environment import OWN
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport
from serving.domain.signature import Signature
from serving.domain.version import VersionId
from serving.settings import Settings
from serving.wire.evaluation import CompileRequest, EvaluationFile, EvaluationRequest


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a candidate is compared with: the active version, and the digest this version was accepted under before.

    `active_provenance` is that of the version that is active, or was active before a restart, if it is signed.
    `answered_digest` is the one under which this version was active last. `replayed` is the active version whose recent
    rows the candidate answers, None where it answers none.
    """

    active_version: str | None = None
    active_signature: Signature | None = None
    active_provenance: Provenance | None = None
    accepted_digest: str | None = None
    answered_digest: str | None = None
    replayed: VersionId | None = None


def evaluation_request(
    artifact: Artifact,
    settings: Settings,
    comparison: Comparison | None = None,
    known: Compilation | None = None,
    *,
    publisher_key: str | None = None,
    passed: CandidateReport | None = None,
    recent_rows: str | None = None,
) -> EvaluationRequest:
    """Return the request to evaluate `artifact`; `known` is an earlier verdict on its compiled form.

    `publisher_key` is the public key that the version will be signed with, if it is evaluated to be published.
    `recent_rows` are those of the active version that the candidate answers.
    `passed` is the report of a version that is only loaded again, in the same environment.
    """
    comparison = comparison or Comparison()
    engine = settings.engine
    return EvaluationRequest(
        model=artifact.id.model,
        version=artifact.id.version,
        digest=artifact.id.digest,
        format=artifact.format,
        main=_describe(artifact.main),
        files=tuple(_describe(file) for file in artifact.files),
        quiet_seconds=artifact.quiet_seconds,
        published_digest=comparison.accepted_digest if artifact.file(MANIFEST_NAME) else None,
        was_accepted=artifact.id.digest in (comparison.accepted_digest, comparison.answered_digest),
        active_signature=comparison.active_signature,
        active_version=comparison.active_version,
        active_provenance=comparison.active_provenance,
        publisher_key=publisher_key,
        environment=settings.gates.environment,
        max_latency_seconds=settings.gates.max_latency_seconds,
        max_disagreement=settings.gates.max_disagreement,
        recent_rows=recent_rows,
        memory_bytes=int(settings.candidate.memory_mb * (1 << 20)),
        max_rows=settings.server.max_rows,
        skops_trusted=settings.security.skops_trusted,
        pickle_trusted=settings.security.pickle_trusted,
        trusted_keys=settings.security.trusted_keys,
        trust=settings.security.trust,
        require_sandbox=settings.security.require_sandbox,
        max_expansion=settings.candidate.max_expansion,
        compile=CompileRequest(
            mode=engine.compile,
            seconds=engine.compile_seconds,
            nodes=engine.compile_nodes,
            bytes=int(engine.compile_mb * (1 << 20)),
            tolerance=engine.compile_tolerance,
            known=known,
        ),
        is_respawn=passed is not None,
        passed_under=passed.libraries if passed is not None else {},
        place=passed.place if passed is not None else OWN,
    )


def _describe(file: StagedFile) -> EvaluationFile:
    return EvaluationFile(name=file.name, sha256=file.sha256, size=file.size, path=str(file.path))

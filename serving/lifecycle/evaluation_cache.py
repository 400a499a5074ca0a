"""Earlier evaluations of the same bytes, so that a restart does not evaluate and compile them again."""

from __future__ import annotations

import hashlib

import structlog

from serving.domain.artifact import Artifact
from serving.domain.errors import StagingFailed
from serving.domain.provenance import Provenance, is_reissue
from serving.domain.report import Evaluation
from serving.domain.signature import Signature, incompatibilities
from serving.store.staging import Cache

log = structlog.get_logger("serving.candidate")


class EvaluationCache:
    """Evaluations kept in the cache. Any thread; blocks on the disk.

    `basis` names what a verdict depends on besides the bytes: libraries and settings. Verdicts that depend on the
    active version (the contract, reissues) are made again each time. The history knows what was published under this
    name before.
    """

    def __init__(self, cache: Cache, basis: str) -> None:
        self._cache = cache
        self._basis = basis

    def find(
        self,
        artifact: Artifact,
        active: Signature | None,
        accepted_digest: str | None,
        active_provenance: Provenance | None = None,
    ) -> Evaluation | None:
        """Return the kept evaluation if a new one would say the same; None if a new one is needed."""
        if accepted_digest not in (None, artifact.id.digest):
            return None
        try:
            kept = self._cache.read_evaluation(artifact.id.digest, self._basis_of(artifact))
        except StagingFailed as error:
            log.warning("evaluation_not_recalled", model=artifact.id.model, reason=str(error))
            return None
        if kept is None or kept.report.signature is None or not kept.report.is_ready:
            return None
        if active is not None and incompatibilities(active, kept.report.signature):
            return None
        if is_reissue(kept.report.provenance, active_provenance):
            return None
        return kept

    def keep(self, artifact: Artifact, evaluation: Evaluation) -> Evaluation:
        """Keep an evaluation, and return it as it is kept.

        A cache that cannot be written costs time at the next start, nothing else. Failures by chance are not kept.
        """
        compilation = evaluation.report.compilation
        if compilation is not None and not compilation.is_final:
            return evaluation
        digest, basis = artifact.id.digest, self._basis_of(artifact)
        try:
            self._cache.keep_evaluation(digest, basis, evaluation)
            return self._cache.read_evaluation(digest, basis) or evaluation
        except StagingFailed as error:
            log.warning("evaluation_not_kept", model=artifact.id.model, reason=str(error))
            return evaluation

    def _basis_of(self, artifact: Artifact) -> str:
        name = f"{self._basis} {artifact.id.model} {artifact.id.version}"
        return hashlib.sha256(name.encode()).hexdigest()

"""Gate: the bytes are those that were published."""

from __future__ import annotations

from serving.domain.contents import why_not_listed, why_not_named
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import GateName, Verdict
from serving.domain.version import digest_of
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.wire.evaluation import EvaluationRequest


class IntegrityGate:
    """The manifest lists exactly the staged files, names this model and version, and has not changed its bytes."""

    name = GateName.INTEGRITY

    def check(self, context: GateContext) -> GateOutcome:
        """Compare names, sizes and sha256 with the manifest; without a manifest, only report the digest."""
        request = context.request
        manifest = context.manifest
        if manifest is None:
            return Verdict.PASSED, f"no {MANIFEST_NAME}; digest {request.digest}"
        wrong = why_not_named(manifest, request.model, request.version) or why_not_listed(manifest, request.files)
        if wrong is not None:
            raise GateRefused(wrong)
        _refuse_conflict(request)
        return Verdict.PASSED, f"{len(manifest.files)} files as listed in {MANIFEST_NAME}; digest {request.digest}"


def _refuse_conflict(request: EvaluationRequest) -> None:
    """Refuse a version whose bytes are not those accepted before. A signature that is added later is no change."""
    unsigned = digest_of((file.name, file.sha256) for file in request.files if file.name != SIGNATURE_NAME)
    if request.published_digest not in (None, request.digest, unsigned):
        raise GateRefused(
            f"conflict: version {request.version} was published as {request.published_digest}, "
            "its bytes may not change; publish a new version"
        )

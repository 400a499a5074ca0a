"""Gate: the bytes are the ones that were published."""

from __future__ import annotations

from serving.domain.contents import why_not_listed, why_not_named
from serving.domain.manifest import MANIFEST_NAME
from serving.domain.provenance import SIGNATURE_NAME
from serving.domain.report import GateName, Verdict
from serving.domain.version import digest_of
from serving.host.gates.gate import Context, Outcome, Refused
from serving.wire.evaluation import EvaluationRequest


class Integrity:
    """The manifest lists exactly the staged files, names this model and version, and has not changed its bytes."""

    name = GateName.INTEGRITY

    def check(self, context: Context) -> Outcome:
        """Compare names, sizes and sha256 with the manifest; without one the digest is all there is to say."""
        request = context.request
        manifest = context.manifest
        if manifest is None:
            return Verdict.PASSED, f"no {MANIFEST_NAME}; digest {request.digest}"
        wrong = why_not_named(manifest, request.model, request.version) or why_not_listed(manifest, request.files)
        if wrong is not None:
            raise Refused(wrong)
        _refuse_conflict(request)
        return Verdict.PASSED, f"{len(manifest.files)} files as listed in {MANIFEST_NAME}; digest {request.digest}"


def _refuse_conflict(request: EvaluationRequest) -> None:
    """Refuse other bytes than were accepted. A signature that arrives after the rest changes nothing."""
    unsigned = digest_of((file.name, file.sha256) for file in request.files if file.name != SIGNATURE_NAME)
    if request.published_digest not in (None, request.digest, unsigned):
        raise Refused(
            f"conflict: version {request.version} was published as {request.published_digest}, "
            "its bytes may not change; publish a new version"
        )

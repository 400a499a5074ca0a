"""Gate: the version is complete on disk."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import GateName, Verdict
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused


class PublishedGate:
    """The files had not changed for the settle window when they were read, or a manifest vouches for them."""

    name = GateName.PUBLISHED

    def check(self, context: GateContext) -> GateOutcome:
        """Report why the files count as complete; refuse files with neither a manifest nor quiet time."""
        request = context.request
        if request.quiet_seconds is not None:
            return Verdict.PASSED, f"unchanged for {request.quiet_seconds:.3g} s when it was taken"
        if not any(file.name == MANIFEST_NAME for file in request.files):
            raise GateRefused("no manifest and no quiet time: nothing says that the files are complete")
        return Verdict.PASSED, f"{MANIFEST_NAME} vouches for {len(request.files) - 1} files"

"""Gate: the file can be loaded, and what it holds can be served."""

from __future__ import annotations

from time import monotonic

from serving.domain.report import Verdict
from serving.host.gates.gate import Context, Outcome
from serving.host.loading import load


class Load:
    """Loading survives and gives a fitted estimator; deadline and memory limit are the process's."""

    name = "load"

    def check(self, context: Context) -> Outcome:
        """Load the artefact and find out its signature; LoadRefused says why it cannot be."""
        request = context.request
        declared = context.manifest.signature if context.manifest is not None else None
        begin = monotonic()
        context.model = load(request.main.path, request.format, request.skops_trusted, declared)
        return Verdict.PASSED, f"loaded {context.model.name} in {monotonic() - begin:.3g} s"

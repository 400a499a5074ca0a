"""Gate: the model answers the rows that the active version has answered recently, too."""

from __future__ import annotations

from serving.domain.report import GateName, Verdict
from serving.domain.signature import Signature, incompatibilities
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.host.replaying import ReplayFindings, replay_rows
from serving.wire.compatibility import name_active_version


class ReplayGate:
    """Every recent row is answered, with finite numbers where the active version gave some.

    Other answers are evidence: they are what a new version is for. They are a reason only where the setting
    `gates.max_disagreement` says how many labels may differ.
    """

    name = GateName.REPLAY

    def check(self, context: GateContext) -> GateOutcome:
        """Answer the rows with every method that the active version has answered them with, and compare."""
        recent = context.take_recent_rows()
        if recent is None:
            return Verdict.SKIPPED, "there are no recent rows of an active version"
        request, model = context.request, context.loaded_model
        reason = _why_not_comparable(request.active_signature, model.signature)
        if reason is not None:
            return Verdict.SKIPPED, reason
        active = name_active_version(request)
        found = replay_rows(model, recent)
        tried = f"{found.rows} of {recent.count}" if found.rows < recent.count else f"{found.rows}"
        if found.failed:
            raise GateRefused(_describe_failures(found, tried, active))
        differences = "; ".join(f"{method}: {each}" for method, each in found.differences.items())
        _require_agreement(found, request.max_disagreement, active)
        return Verdict.PASSED, f"answers {tried} recent rows, as {active} does; {differences}"


def _describe_failures(found: ReplayFindings, tried: str, active: str) -> str:
    assert found.first is not None
    method = f" by {found.first.method}" if found.first.method else ""
    return (
        f"{found.failed} of {tried} recent rows, which {active} answers, are not answered as well; "
        f"the first{method}: {found.first.kind}"
    )


def _require_agreement(found: ReplayFindings, most: float | None, active: str) -> None:
    if most is None:
        return
    for method, differences in found.differences.items():
        if differences.share > most:
            raise GateRefused(
                f"{method}: {differences}, compared with {active}; at most {most:.2%} may (gates.max_disagreement)"
            )


def _why_not_comparable(active: Signature | None, own: Signature) -> str | None:
    """Say why recent rows say nothing about a model; None where they do."""
    if active is None:
        return "there is no active version to compare with"
    if incompatibilities(active, own):
        return "declared breaking: clients of the active version send other rows"
    for before, after in zip(active.features, own.features, strict=True):
        if after.is_used and not before.is_used:
            return f"the active version does not use '{after.name}', so that its recent values are not known"
    return None

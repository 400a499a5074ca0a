"""Gate: the signature agrees with the declared one, and does not break clients of the active version."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import GateName, Verdict
from serving.domain.signature import incompatibilities
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.wire.compatibility import explain_contract_break, join_first_sentences, name_active_version


class ContractGate:
    """A declared signature agrees with the model, and the new version breaks no client of the active one."""

    name = GateName.CONTRACT

    def check(self, context: GateContext) -> GateOutcome:
        """Compare with the manifest's signature, then with the active version's unless the manifest says breaking."""
        manifest, request = context.manifest, context.request
        own = context.loaded_model.signature
        reason = explain_contract_break(request, manifest, own)
        if reason is not None:
            raise GateRefused(reason)
        agreed = []
        if manifest is not None and manifest.signature is not None:
            agreed.append(f"as declared in {MANIFEST_NAME}")
        if request.active_signature is not None:
            broken = incompatibilities(request.active_signature, own)
            if broken:
                return (
                    Verdict.WARNED,
                    f"declared breaking, differs from {name_active_version(request)}: {join_first_sentences(broken)}",
                )
            agreed.append(f"compatible with {name_active_version(request)}")
        features = f"{len(own.features)} feature{'s' * (len(own.features) != 1)}, {', '.join(own.methods)}"
        if not agreed:
            return Verdict.SKIPPED, f"{features}; nothing declared and no active version to compare with"
        return Verdict.PASSED, f"{features}; {', '.join(agreed)}"

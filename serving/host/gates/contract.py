"""Gate: the signature is what was declared, and does not break the clients of the active version."""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME
from serving.domain.report import Verdict
from serving.domain.signature import incompatibilities
from serving.host.contract import disagreements
from serving.host.gates.gate import Context, Outcome, Refused

_SHOWN = 3


class Contract:
    """A declared signature agrees with the model; a client of the active version will not notice the change."""

    name = "contract"

    def check(self, context: Context) -> Outcome:
        """Compare with the manifest's signature, then with the active version's unless the manifest says breaking."""
        manifest, request = context.manifest, context.request
        own = context.loaded.signature
        agreed = []
        if manifest is not None and manifest.signature is not None:
            wrong = disagreements(manifest.signature, own)
            if wrong:
                raise Refused(f"{MANIFEST_NAME} {_listed(wrong)}: correct its signature or leave it out")
            agreed.append(f"as declared in {MANIFEST_NAME}")
        if request.active_signature is not None:
            active = f"the active version {request.active_version}" if request.active_version else "the active version"
            broken = incompatibilities(request.active_signature, own)
            if broken and not (manifest is not None and manifest.breaking):
                hint = f'to allow it, publish it with "breaking": true in {MANIFEST_NAME}'
                raise Refused(f"not compatible with {active}: {_listed(broken)}; {hint}")
            if broken:
                return Verdict.WARNED, f"declared breaking, differs from {active}: {_listed(broken)}"
            agreed.append(f"compatible with {active}")
        features = f"{len(own.features)} feature{'s' * (len(own.features) != 1)}, {', '.join(own.methods)}"
        if not agreed:
            return Verdict.SKIPPED, f"{features}; nothing declared and no active version to compare with"
        return Verdict.PASSED, f"{features}; {', '.join(agreed)}"


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - _SHOWN
    return "; ".join(sentences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")

"""Check the signature of a candidate: is it sound, does it match the manifest, and can present clients go on using it.

The contract gate checks this in the host, where a refusal saves the time of later gates. The server checks it again
when it has the report, because the model may have changed what its host says.
"""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME, Manifest
from serving.domain.signature import Signature, incompatibilities, why_not_sound
from serving.wire.evaluation import EvaluationRequest

_SHOWN = 3


def explain_contract_break(request: EvaluationRequest, manifest: Manifest | None, own: Signature) -> str | None:
    """Say why a candidate with the signature `own` must not be served; None when it may be."""
    unsound = why_not_sound(own)
    if unsound is not None:
        return unsound
    wrong = (
        find_disagreements(manifest.signature, own) if manifest is not None and manifest.signature is not None else []
    )
    if wrong:
        return f"{MANIFEST_NAME} {join_first_sentences(wrong)}: correct its signature or leave it out"
    broken = incompatibilities(request.active_signature, own) if request.active_signature is not None else []
    if broken and not (manifest is not None and manifest.breaking):
        hint = f'to allow it, publish it with "breaking": true in {MANIFEST_NAME}'
        return f"not compatible with {name_active_version(request)}: {join_first_sentences(broken)}; {hint}"
    return None


def name_active_version(request: EvaluationRequest) -> str:
    """Return a name for the version that a candidate is compared with."""
    return f"the active version {request.active_version}" if request.active_version else "the active version"


def join_first_sentences(sentences: list[str]) -> str:
    """Join the first sentences and count the others."""
    more = len(sentences) - _SHOWN
    return "; ".join(sentences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def find_disagreements(declared: Signature, own: Signature) -> list[str]:
    """List where `declared` contradicts the model, one sentence each; empty when `declared` can be used.

    The publisher decides the dtypes and which features take null. If the model was fitted with names, it decides the
    names and their order, otherwise only their number. The methods must be among those that the model offers.
    """
    found = []
    declared_names = [feature.name for feature in declared.features]
    own_names = [feature.name for feature in own.features]
    if len(declared_names) != len(own_names):
        found.append(f"declares {len(declared_names)} features, the model takes {len(own_names)}")
    elif own.is_named and declared_names != own_names:
        pairs = zip(declared_names, own_names, strict=True)
        place, (said, real) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        found.append(f"declares feature {place} as '{said}', the model was fitted with '{real}' there")
    missing = [method for method in declared.methods if method not in own.methods]
    if missing:
        found.append(f"declares {', '.join(missing)}, the model offers {', '.join(own.methods)}")
    if declared.container != own.container:
        found.append(f"declares the container {declared.container}, the model takes {own.container}")
    if declared.kind != own.kind:
        found.append(f"declares a {declared.kind}, the model is a {own.kind}")
    if declared.outputs != own.outputs:
        found.append(f"declares {declared.outputs} outputs per row, the model gives {own.outputs}")
    if own.classes is not None and declared.classes != own.classes:
        found.append("declares other classes, or in another order, than the model has")
    return found

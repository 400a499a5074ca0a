"""Whether the signature of a candidate is sound, what its publisher declared, and no break for clients.

The contract gate asks in the host, where a refusal spares the gates behind it. The server asks again when the report is
there, because a host may have been told by its model what to say.
"""

from __future__ import annotations

from serving.domain.manifest import MANIFEST_NAME, Manifest
from serving.domain.signature import Signature, incompatibilities, why_not_sound
from serving.wire.evaluation import EvaluationRequest

_SHOWN = 3


def why_not_kept(request: EvaluationRequest, manifest: Manifest | None, own: Signature) -> str | None:
    """Say why a candidate with the signature `own` must not be served, None when nothing speaks against it."""
    unsound = why_not_sound(own)
    if unsound is not None:
        return unsound
    wrong = disagreements(manifest.signature, own) if manifest is not None and manifest.signature is not None else []
    if wrong:
        return f"{MANIFEST_NAME} {list_some(wrong)}: correct its signature or leave it out"
    broken = incompatibilities(request.active_signature, own) if request.active_signature is not None else []
    if broken and not (manifest is not None and manifest.breaking):
        hint = f'to allow it, publish it with "breaking": true in {MANIFEST_NAME}'
        return f"not compatible with {name_active(request)}: {list_some(broken)}; {hint}"
    return None


def name_active(request: EvaluationRequest) -> str:
    """Return what the version is called that a candidate is compared with."""
    return f"the active version {request.active_version}" if request.active_version else "the active version"


def list_some(sentences: list[str]) -> str:
    """Join the first sentences and count the others."""
    more = len(sentences) - _SHOWN
    return "; ".join(sentences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def disagreements(declared: Signature, own: Signature) -> list[str]:
    """Say, one sentence each, where `declared` contradicts the model; an empty list means it can be taken over.

    Dtypes and what takes null are the publisher's to say. Names and their order are the model's where it was fitted
    with names, else only their number is. The methods must be among those the model offers.
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

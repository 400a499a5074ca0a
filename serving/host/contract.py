"""Whether what a publisher declared fits what a model is."""

from __future__ import annotations

from serving.domain.signature import Signature


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

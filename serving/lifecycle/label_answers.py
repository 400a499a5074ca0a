"""Which loaded version each label of a model answers with."""

from __future__ import annotations

from collections.abc import Mapping

from serving.lifecycle.records import ModelRecord, VersionRecord


def find_label_answers(model: ModelRecord, labels: Mapping[str, str]) -> dict[str, VersionRecord | None]:
    """Return the loaded version that answers for each label; `labels` are the versions that operators have named.

    That is the named version; until it is loaded, what the label answered with before, also before a restart. Of two
    contents of the named version it is the one in the store, or else the active one. None: nothing answers. Reconciler
    thread only.
    """
    return {label: _find_answer(model, label, version) for label, version in sorted(labels.items())}


def _find_answer(model: ModelRecord, label: str, version: str) -> VersionRecord | None:
    before, kept = model.labelled.get(label), model.kept_labelled.get(label)
    if before is None and kept is not None:
        before = model.find_loaded(kept.version, kept.digest or "")
    named = [record for record in model.loaded if record.version == version]
    preferred = (model.listed.get(version), model.active, before)
    chosen = next((record for record in preferred if record in named), None) or next(iter(named), None)
    return chosen or (before if before in model.loaded else None)

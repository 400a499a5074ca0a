"""The status for the outside: immutable snapshots made from the reconciler's records."""

from __future__ import annotations

from serving.domain.report import Verdict
from serving.domain.state import State
from serving.domain.status import ActiveStatus, GateWarning, ModelStatus, ModelSummary, Quarantine, TargetStatus
from serving.domain.version import order_key
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.standing_decisions import StandingDecisions


def model_status(
    model_table: ModelTable, exclusion: Exclusion, model: ModelRecord, decisions: StandingDecisions, now: float
) -> ModelStatus:
    """Return the snapshot of one model. Reconciler thread only."""
    records = [record for record in model.listed.values() if not _is_shown_loaded(model, record)]
    records += [record for record in [*model.loaded, *model.leaving] if record not in records]
    for kept in model.all_kept:
        if kept.version not in {record.version for record in records}:
            records.append(kept)
    records.sort(key=lambda record: order_key(record.version), reverse=True)
    active = model.active
    return ModelStatus(
        name=model.name,
        active=_active_status(exclusion, model, decisions),
        target=_target(model_table, model, now),
        pinned=decisions.pins.get(model.name),
        labels=dict(sorted(decisions.labels_of(model.name).items())),
        unloaded=model.name in decisions.unloaded,
        problem=model.problem,
        last_failure=model.last_failure,
        warnings=_warnings(active),
        quarantined=_quarantined(model, exclusion, decisions),
        signature=active.report.signature if active and active.report else None,
        rollout=model_table.rollouts.status(model),
        versions=tuple(record.status(is_quarantined=exclusion.is_quarantined(record)) for record in records),
    )


def summary(status: ModelStatus) -> ModelSummary:
    """Return the part of a model's snapshot that ``GET /models/active`` shows."""
    return ModelSummary(**{name: getattr(status, name) for name in ModelSummary.model_fields})


def _active_status(exclusion: Exclusion, model: ModelRecord, decisions: StandingDecisions) -> ActiveStatus | None:
    active = model.active
    if active is None or model.activated_at is None or active.placement is None:
        return None
    return ActiveStatus(
        version=active.version,
        digest=active.digest or "",
        engine=active.placement.engine,
        environment=active.environment,
        state=active.state,
        activated_at=model.activated_at,
        note=_note(exclusion, model, decisions),
    )


def _warnings(active: VersionRecord | None) -> tuple[GateWarning, ...]:
    if active is None or active.report is None:
        return ()
    return tuple(
        GateWarning(version=active.version, gate=result.gate, evidence=result.evidence)
        for result in active.report.gates
        if result.verdict is Verdict.WARNED
    )


def _quarantined(model: ModelRecord, exclusion: Exclusion, decisions: StandingDecisions) -> tuple[Quarantine, ...]:
    """Return the versions in quarantine, newest first, whether the store still has them or not."""
    versions = {version for owner, version, _ in decisions.quarantine if owner == model.name}
    found = []
    for version in sorted(versions, key=order_key, reverse=True):
        listed = model.listed.get(version)
        entry = listed.entry if listed is not None and exclusion.is_quarantined(listed) else None
        found.append(Quarantine(version=version, path=entry.path if entry is not None else None))
    return tuple(found)


def _target(model_table: ModelTable, model: ModelRecord, now: float) -> TargetStatus | None:
    record = model_table.aspired(model, now) or model.running
    return TargetStatus(version=record.version, state=record.state) if record else None


def _note(exclusion: Exclusion, model: ModelRecord, decisions: StandingDecisions) -> str | None:
    """Return what an operator should know about the active version, None if nothing."""
    active = model.active
    assert active is not None
    if active.host_problem is not None:
        return active.host_problem
    if exclusion.is_quarantined(active):
        return "in quarantine, and goes on being served because no other version can be activated"
    listed = model.listed.get(active.version)
    if listed is None:
        is_free = model.name not in decisions.pins and decisions.held is None
        if is_free and any(not exclusion.is_excluded(model, record) for record in model.listed.values()):
            return (
                "its files are no longer in the store; another version takes over when nothing there changes any more"
            )
        return "its files are no longer in the store; it goes on being served until the model is unloaded"
    if listed is not active and exclusion.is_excluded(model, listed):
        return "its files were replaced by ones that are refused; the old ones go on being served"
    compilation = active.report.compilation if active.report is not None else None
    return model.problem or (compilation.reason if compilation is not None and compilation.lacks_memory else None)


def _is_shown_loaded(model: ModelRecord, record: VersionRecord) -> bool:
    """Whether a version is loaded as it was before the restart, and its files have not been compared with it yet."""
    loaded = (one for one in [*model.loaded, *model.leaving] if one.version == record.version)
    return record.digest is None and record.state is State.DISCOVERED and any(one.entry is None for one in loaded)

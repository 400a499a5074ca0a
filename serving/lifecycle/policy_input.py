"""The input of the policy for one model: what is wanted, and what is there. Reconciler thread only."""

from __future__ import annotations

import math
from dataclasses import replace

from serving.domain.policy import (
    Desired,
    LoadedVersion,
    Observed,
    RunningCandidate,
    WantedVersion,
    choose_aspired_version,
    find_missing_label,
)
from serving.domain.state import State
from serving.domain.version import order_key
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.label_answers import find_label_answers
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.rollouts import Rollouts
from serving.lifecycle.standing_decisions import StandingDecisions


class PolicyInput:
    """Makes the values that the policy decides from. `keep_warm` is the setting."""

    def __init__(self, exclusion: Exclusion, decisions: StandingDecisions, rollouts: Rollouts, keep_warm: int) -> None:
        self._exclusion = exclusion
        self._decisions = decisions
        self._rollouts = rollouts
        self._keep_warm = keep_warm

    def desired(self, model: ModelRecord) -> Desired:
        """Return what is wanted: the versions that the store lists, then loaded ones that the store does not have."""
        pin = self._decisions.pins.get(model.name)
        versions = [self._wanted(model, record) for record in model.listed.values()]
        for record in self._unlisted(model):
            if record.version == pin or (self._must_leave(model) and record is not model.active):
                is_excluded = self._exclusion.is_quarantined(record) or record.is_copy_lost
                versions.append(_describe(record, is_excluded=is_excluded))
        if self._decisions.held is not None:  # decisions have been lost: nothing but what an operator names anew
            loaded = {(record.version, record.digest) for record in model.loaded if record.was_active}
            versions = [one for one in versions if one.version == pin or (one.version, one.digest) in loaded]
        active = model.active
        removed_at = model.settles_at if active is not None and active.version not in model.listed else 0.0
        return Desired(
            tuple(versions),
            pin,
            model.name in self._decisions.unloaded,
            self._kept(model),
            removed_at,
            is_gradual=self._rollouts.is_gradual(model.name),
            is_stopped=self._rollouts.is_stopped(model.name),
            labelled=self._labelled(model),
        )

    def observed(self, model: ModelRecord) -> Observed:
        """Return what is there."""
        running = model.running
        labelled = find_label_answers(model, self._decisions.labels_of(model.name)).values()
        loaded = {record: replace(self._loaded(record), is_labelled=record in labelled) for record in model.loaded}
        return Observed(
            active=loaded[model.active] if model.active else None,
            standbys=tuple(loaded[record] for record in model.standbys),
            running=RunningCandidate(running.version, running.fingerprint, running.state) if running else None,
            keep_warm=self._keep_warm,
            arrival=self._rollouts.arrival(model),
        )

    def aspired(self, model: ModelRecord, now: float) -> WantedVersion | None:
        """Return what the policy wants active for `model`, None for what is active already."""
        found = choose_aspired_version(self.desired(model), self.observed(model), now)
        active = model.active
        if found is None or (active and (found.version, found.digest) == (active.version, active.digest)):
            return None
        return found

    def is_label_missing(self, model: ModelRecord, now: float) -> bool:
        """Whether a version is to be loaded now for a label."""
        return find_missing_label(self.desired(model), self.observed(model), now) is not None

    def _labelled(self, model: ModelRecord) -> tuple[WantedVersion, ...]:
        """Return what labels answered with before a restart, then the versions that they name.

        A lone file that has not been read may be one of these.
        """
        nameless = next((record for record in model.listed.values() if record.is_nameless), None)
        named = dict.fromkeys(self._decisions.labels_of(model.name).values())
        listed = [model.listed.get(version) or nameless for version in named]
        kept = [
            _describe(
                record, is_excluded=self._exclusion.is_quarantined(record) or self._exclusion.is_refused(model, record)
            )
            for record in model.kept_labelled.values()
        ]
        return tuple(dict.fromkeys([*kept, *(self._wanted(model, record) for record in listed if record is not None)]))

    def _kept(self, model: ModelRecord) -> WantedVersion | None:
        kept = model.kept
        if kept is None or model.active is not None or self._exclusion.is_refused(model, kept):
            return None
        return _describe(kept, is_excluded=self._exclusion.is_quarantined(kept))

    def _wanted(self, model: ModelRecord, record: VersionRecord) -> WantedVersion:
        return _describe(record, is_excluded=self._exclusion.is_excluded(model, record))

    def _unlisted(self, model: ModelRecord) -> list[VersionRecord]:
        """Return the loaded versions whose bytes the store does not have under their name, newest first."""
        unlisted = [record for record in model.loaded if model.listed.get(record.version) is not record]
        return sorted(unlisted, key=lambda record: order_key(record.version), reverse=True)

    def _must_leave(self, model: ModelRecord) -> bool:
        return model.active is None or self._loaded(model.active).must_leave

    def _loaded(self, record: VersionRecord) -> LoadedVersion:
        is_quarantined = self._exclusion.is_quarantined(record)
        return LoadedVersion(record.version, record.digest or "", is_quarantined, record.is_copy_lost)


def _describe(record: VersionRecord, *, is_excluded: bool) -> WantedVersion:
    return WantedVersion(
        version=record.version,
        fingerprint=record.fingerprint,
        digest=record.digest,
        is_staged=record.artifact is not None,
        not_before=math.inf if record.state is State.DRAINING else record.not_before,
        is_excluded=is_excluded,
        has_failed=record.failures + record.host_deaths + record.postponements > 0,
        is_nameless=record.is_nameless,
    )

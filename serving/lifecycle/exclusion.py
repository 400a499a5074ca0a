"""Which versions must not become candidates, and why: quarantine, problems on disk, remembered verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from serving.domain.report import GateName
from serving.domain.state import State
from serving.lifecycle.environment_watch import EnvironmentWatch, is_against_environments
from serving.lifecycle.journal import Journal
from serving.lifecycle.label_answers import find_label_answers
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.remembered_verdicts import RememberedRefusal, RememberedVerdicts
from serving.lifecycle.served_versions import ServedVersions
from serving.lifecycle.standing_decisions import StandingDecisions

_NOT_LOADED = frozenset({State.DISCOVERED, State.REJECTED, State.FAILED, State.RETIRED, State.STAGING})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a version from being a candidate: the gate that refused it, if one did, and why.

    Its text is for people only.
    """

    evidence: str
    gate: str | None = None

    def __str__(self) -> str:
        return f"{self.gate}: {self.evidence}" if self.gate else self.evidence


_IN_QUARANTINE = Obstacle("in quarantine")


class Exclusion:
    """Decides which versions are excluded, and sets their states. Reconciler thread only.

    Decisions and verdicts are about bytes. Until the bytes have been read after a start, only the name is known. Then
    operators' calls use what is known about that name, while the policy lets the bytes be read.
    """

    def __init__(
        self,
        journal: Journal,
        decisions: StandingDecisions,
        verdicts: RememberedVerdicts,
        served: ServedVersions,
        environments: EnvironmentWatch,
    ) -> None:
        self._journal = journal
        self._decisions = decisions
        self._verdicts = verdicts
        self._served = served
        self._environments = environments

    def is_quarantined(self, record: VersionRecord) -> bool:
        """Whether these bytes are in quarantine; while they are not known yet, whether any of this name are."""
        return self._decisions.is_quarantined(record.model, record.version, record.digest)

    def is_refused(self, model: ModelRecord, record: VersionRecord) -> bool:
        """Whether there is a verdict on these bytes that still holds."""
        return self._verdict(model, record) is not None

    def why_excluded(self, model: ModelRecord, record: VersionRecord) -> Obstacle | None:
        """Return why a version cannot be a candidate as it is; None if it can, or if that is not known yet."""
        if record.digest is not None and self.is_quarantined(record):
            return _IN_QUARANTINE
        if record.entry is not None and record.entry.problem is not None:
            return Obstacle(record.entry.problem, GateName.PUBLISHED)
        return None if record.digest is None else self._verdict(model, record)

    def is_excluded(self, model: ModelRecord, record: VersionRecord) -> bool:
        """Whether a version cannot be a candidate as it is."""
        return self.why_excluded(model, record) is not None

    def why_not_chosen(self, model: ModelRecord, record: VersionRecord) -> Obstacle | None:
        """Return why an operator cannot choose a version: it is excluded, or its name is; None if it can be chosen."""
        if self.is_quarantined(record):
            return _IN_QUARANTINE
        return self.why_excluded(model, record) or self._verdict(model, record)

    def why_not_pinned(self, model: ModelRecord, record: VersionRecord) -> Obstacle | None:
        """Return why an operator cannot pin a version. A refusal by recent rows is no reason: a pin outweighs it."""
        obstacle = self.why_not_chosen(model, record)
        return None if obstacle is not None and obstacle.gate == GateName.REPLAY else obstacle

    def mark(self, model: ModelRecord) -> None:
        """Set the states of versions that are not loaded, so that they show whether something excludes them."""
        for record in model.listed.values():
            if record is model.running or record.placement is not None:
                continue
            is_quarantined = self.is_quarantined(record)
            obstacle = self.why_excluded(model, record) or (_IN_QUARANTINE if is_quarantined else None)
            if obstacle is None:
                if record.state in (State.STAGING, State.QUARANTINED):
                    self._journal.move(record, State.DISCOVERED, "waits for its turn")
                self._mark_held(record)
                continue
            after = State.QUARANTINED if is_quarantined else State.REJECTED
            if record.state is not after and after is not State.REJECTED:
                self._journal.move(record, after, str(obstacle))
            elif record.state in _NOT_LOADED and record.state is not after:
                self._remember(model, record, obstacle)

    def find_problem(self, model: ModelRecord) -> str | None:
        """Return one line that says why a model does not do what an operator has decided, None if it does.

        Its pin or a label cannot be served, or nothing may be activated.
        """
        if model.name in self._decisions.unloaded:
            return None
        problems = (self._find_pin_problem(model), *self._find_label_problems(model))
        return "; ".join(filter(None, problems)) or None

    def _find_pin_problem(self, model: ModelRecord) -> str | None:
        active, pin = model.active, self._decisions.pins.get(model.name)
        if active is None and self._decisions.held is not None and model.kept is None and pin is None:
            return f"nothing is activated: {self._decisions.held_problem}"
        if pin is None or (active is not None and active.version == pin and not active.is_copy_lost):
            return None
        why = self._why_not_served(model, pin)
        if why is None:
            return None
        effect = f"'{active.version}' goes on" if active else "nothing is active yet"
        return f"pinned to '{pin}', which {why}; {effect}"

    def _find_label_problems(self, model: ModelRecord) -> list[str]:
        labels = self._decisions.labels_of(model.name)
        answers = find_label_answers(model, labels)
        problems = []
        for label, version in sorted(labels.items()):
            answer, listed = answers.get(label), model.listed.get(version)
            if answer is not None and answer.version == version:
                if listed not in (None, answer) and self.is_excluded(model, listed):
                    problems.append(
                        f"label '{label}' names '{version}', whose files were replaced by ones that are refused; "
                        "the old ones go on being served"
                    )
                continue
            why = self._why_not_served(model, version)
            if why is not None:
                effect = f"'{answer.version}' goes on" if answer else "nothing answers for it"
                problems.append(f"label '{label}' names '{version}', which {why}; {effect}")
        return problems

    def _why_not_served(self, model: ModelRecord, version: str) -> str | None:
        record = model.find(version)
        if record is None:
            return "is not in the store"
        obstacle = self.why_not_chosen(model, record)
        if obstacle is not None:
            return f"cannot be served: {obstacle}"
        if record.is_copy_lost:
            return f"cannot be loaded again: {record.host_problem}"
        return f"has failed: {record.reason}" if record.state is State.FAILED else None

    def _mark_held(self, record: VersionRecord) -> None:
        is_held = self._decisions.held is not None and record.state is State.DISCOVERED and record.reason is None
        if record.is_held != is_held:
            record.is_held = is_held
            record.touch()

    def _remember(self, model: ModelRecord, record: VersionRecord, obstacle: Obstacle) -> None:
        """Apply the verdict on bytes that were refused before, perhaps before a restart: it still holds."""
        refusal = None if record.digest is None else self._verdicts.refusals.get(record.id)
        record.report = refusal.report if refusal else None
        self._journal.fail(model, record, State.REJECTED, obstacle.gate or GateName.PUBLISHED, obstacle.evidence)

    def _verdict(self, model: ModelRecord, record: VersionRecord) -> Obstacle | None:
        """Return the verdict that holds for these bytes; while they are not known yet, for any of this name."""
        for one in self._verdicts.find_refusals(record.model, record.version, record.digest):
            refusal = self._verdicts.refusals[one]
            if self._still_holds(model, refusal) and not self._is_outweighed(record, refusal):
                result = refusal.report.refusal
                return Obstacle(result.evidence, result.gate) if result else Obstacle("refused before")
        return None

    def _is_outweighed(self, record: VersionRecord, refusal: RememberedRefusal) -> bool:
        """Whether an operator has pinned a version that recent rows speak against."""
        gate = refusal.report.refusal
        is_pinned = self._decisions.pins.get(record.model) == record.version
        return is_pinned and gate is not None and gate.gate == GateName.REPLAY

    def _still_holds(self, model: ModelRecord, refusal: RememberedRefusal) -> bool:
        if refusal.against is None:
            return True
        if is_against_environments(refusal.against):
            return self._environments.holds(refusal.against)
        contract = self._served.find_contract(model)
        return contract is not None and refusal.against == contract.digest

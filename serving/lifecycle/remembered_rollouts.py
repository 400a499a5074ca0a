"""Rollouts over restarts: how far one had come, on what evidence, how the last one ended, whether others may begin."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from serving.domain.judge import Evidence, JudgeBounds, Outcomes
from serving.domain.rollout import PastRollout, RolloutPhase
from serving.domain.version import VersionId
from serving.lifecycle.database import Database, Statement
from serving.lifecycle.state_file import StateFile

_INSERT = "INSERT OR REPLACE INTO rollouts VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class RememberedRun:
    """A rollout under way: of which bytes in place of which, how far it had come, and what the counts had said."""

    version: str
    digest: str
    kept: str
    kept_digest: str
    phase: RolloutPhase
    step: int
    since: datetime
    is_held: bool
    evidence: Evidence

    def is_of(self, new: VersionId, old: VersionId) -> bool:
        """Whether these are the versions that shared the requests."""
        here = (self.version, self.digest, self.kept, self.kept_digest)
        return here == (new.version, new.digest, old.version, old.digest)


@dataclass(frozen=True, slots=True)
class RememberedRollout:
    """What is known of one model. `rollbacks` counts those in a row that nobody has asked for."""

    running: RememberedRun | None = None
    last: PastRollout | None = None
    rollbacks: int = 0
    is_stopped: bool = False


class RememberedRollouts:
    """By model. For one thread. Methods that change something write it soon; `write` at once, as a decision."""

    def __init__(self, file: StateFile) -> None:
        self._by_model: dict[str, RememberedRollout] = {}
        self._file = file

    def get(self, model: str) -> RememberedRollout:
        """Return what is known of a model."""
        return self._by_model.get(model, RememberedRollout())

    def note(self, model: str, remembered: RememberedRollout) -> None:
        """Remember this from now on; it is on the disk soon."""
        if remembered != self.get(model):
            self._by_model[model] = remembered
            self._file.write_later(_INSERT, model, _to_json(remembered))

    def decide(self, model: str, remembered: RememberedRollout) -> None:
        """Remember what an operator has decided. Blocks until it is on the disk; raises StateUnavailable."""
        self._file.write_decision([(_INSERT, (model, _to_json(remembered)))])
        self._by_model[model] = remembered

    def forget(self, model: str) -> None:
        """Forget a model that is gone."""
        if self._by_model.pop(model, None) is not None:
            self._file.write_later("DELETE FROM rollouts WHERE model = ?", model)

    def read_from(self, database: Database) -> None:
        """Read everything from the database; raises StateUnavailable. Newer values in memory stay."""
        for model, document in database.read("SELECT model, document FROM rollouts"):
            with suppress(ValueError, TypeError, KeyError, ValidationError):
                self._by_model.setdefault(model, _of_json(document))

    def list_inserts(self) -> list[Statement]:
        """Return the statements that write everything to an empty database."""
        return [(_INSERT, (model, _to_json(one))) for model, one in self._by_model.items()]


def _to_json(remembered: RememberedRollout) -> str:
    running = None if remembered.running is None else asdict(remembered.running)
    last = None if remembered.last is None else remembered.last.model_dump(mode="json")
    document = {"running": running, "last": last, "rollbacks": remembered.rollbacks, "stopped": remembered.is_stopped}
    return json.dumps(document, default=datetime.isoformat)


def _of_json(text: str) -> RememberedRollout:
    document = json.loads(text)
    running = document["running"]
    last = None if document["last"] is None else PastRollout.model_validate(document["last"])
    found = RememberedRollout(None, last, int(document["rollbacks"]), bool(document["stopped"]))
    if running is None:
        return found
    evidence = running.pop("evidence")
    evidence["bounds"] = JudgeBounds(**evidence["bounds"])
    for side in ("candidate", "active"):
        evidence[side] = Outcomes(**evidence[side])
    for logs in ("worse", "as_good", "rarely_bad"):
        evidence[logs] = tuple(evidence[logs])
    running["phase"], running["since"] = RolloutPhase(running["phase"]), datetime.fromisoformat(running["since"])
    return replace(found, running=RememberedRun(**running, evidence=Evidence(**evidence)))

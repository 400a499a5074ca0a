"""Control, whatever happens in whatever order: random days of a server without processes, from seeds.

A day has writers that touch, replace, remove and spoil files, operators, workers that end in every way, hosts that die,
and a plane that drains in its own time. After each event what must always hold is checked. In the evening everything
that is under way ends well, and what should answer has to answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.decision import (
    LoadModel,
    ModelDecision,
    PinVersion,
    ReleaseVersion,
    RollBackModel,
    SteerRollout,
    UnloadModel,
    UnpinModel,
)
from serving.domain.listing import Entry, FileStamp, Fingerprint
from serving.domain.plan import Drained, Hosted, HostGone, Load, ReplaceHost, Route
from serving.domain.rollout import RolloutAction, RolloutPhase
from serving.domain.state import State
from serving.domain.version import Format, VersionId, order_key
from serving.lifecycle import evaluation_runs, operations, respawn
from serving.lifecycle.candidate import (
    CandidateFailed,
    CandidateReady,
    CandidateRefused,
    CandidateStaged,
    CandidateStopped,
    CandidateUnfinished,
    CopyDamaged,
    CopyLost,
    Outcome,
)
from serving.lifecycle.operations import Operations
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.lifecycle.state_file import StateFile
from serving.settings import RolloutSettings
from tests.fakes import NUMBERS
from tests.unit.lifecycle.control import Control, Work, entry, passed, refused

MODELS = ("m", "n")
VERSIONS = ("1", "2", "3", "4")
GOOD, BAD = "abc", "e"  # contents of files: those that pass every gate, and one that does not
WORK = ("stage", "evaluate", "respawn")
EVENTS = 200
UNDER_WAY = (State.STAGING, State.LOADING, State.VALIDATING, State.WARMING)


class Day:
    """A store, its server, and everybody who does something to them."""

    def __init__(self, directory: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random = Random(seed)
        usual = (15, 2, 45, 10, 15, 15, 10, 1, 10 if seed % 2 else 0)  # of what happens, in the order of `take_event`
        self.slow = self.random.choice((*WORK, None))
        self.weights = [weight * self.random.choice((0.3, 1, 3)) for weight in usual]
        self.control = Control(directory)
        clock = SimpleNamespace(monotonic=lambda: self.control.now)  # else a day is another one where the machine waits
        for module in (evaluation_runs, operations, respawn):
            patch.setattr(module, "time", clock)
        if seed % 2:
            self.control.rollout = self.choose_rollout()
        table, history, journal = self.control.table, self.control.history, self.control.journal
        store: Any = None  # no decision here is about it
        self.operations = Operations(store, table, table._exclusion, history, journal, table.rollouts)
        self.contents: dict[Fingerprint, str] = {}
        self.store: dict[str, dict[str, Entry]] = {name: {} for name in MODELS}
        self.hosts: dict[VersionId, int] = {}  # of what is loaded: the number of its host
        self.lost: set[VersionId] = set()  # what is loaded and has no host now
        self.draining: Counter[VersionId] = Counter()
        self.is_listed = True
        self.has_passed: set[VersionId] = set()
        self.was_active: dict[str, VersionRecord | None] = {}

    def choose_rollout(self) -> RolloutSettings:
        """Return settings under which newer versions take over step by step."""
        return RolloutSettings(
            strategy=self.random.choice(("canary", "canary", "shadow")),
            steps=(20.0, 50.0),
            step_seconds=self.random.choice((0.0, 60.0)),
            min_requests=20,
            on_inconclusive=self.random.choice(("hold", "promote", "rollback")),
            holdback=self.random.choice((0.0, 5.0)),
            bake_seconds=100.0,
        )

    # --- what may happen ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start, perhaps with what was active before."""
        for name in MODELS:
            for version in VERSIONS:
                if self.random.random() < 0.5:
                    self.write(name, version)
            if self.random.random() < 0.4:
                self.control.table.restore(
                    self.artifact(name, self.random.choice(VERSIONS), self.random.choice(GOOD)), self.control.now
                )
        self.look()

    def take_event(self) -> None:
        """Let one thing happen."""
        happens = (
            *(self.change_store, self.lose_store, self.end_work, self.lose_host, self.drain),
            *(self.decide, self.wait, self.control.turn, self.answer),
        )
        self.random.choices(happens, self.weights)[0]()

    def change_store(self) -> None:
        """Touch, replace or remove a version, and look."""
        name, version = self.random.choice(MODELS), self.random.choice(VERSIONS)
        if version in self.store[name] and self.random.random() < 0.4:
            del self.store[name][version]
        elif version in self.store[name] and self.random.random() < 0.4:
            self.write(name, version, self.contents[self.store[name][version].fingerprint])
        else:
            self.write(name, version)
        self.look()

    def write(self, name: str, version: str, content: str | None = None) -> None:
        """Put files into the store; without a `content`, any."""
        stamp = (FileStamp("model.joblib", len(self.contents), 1, 0, 0),)
        self.contents[stamp] = content or self.random.choice(GOOD + BAD)
        self.store[name][version] = replace(entry(version), model=name, fingerprint=stamp)

    def look(self) -> None:
        """List the store."""
        self.is_listed = True
        listed = {
            name: tuple(entries[version] for version in sorted(entries, reverse=True))
            for name, entries in self.store.items()
            if entries
        }
        self.control.table.update(listed, self.control.now - self.random.choice((0, 1000)))
        self.control.turn()

    def lose_store(self) -> None:
        """Find that the store cannot be listed."""
        self.is_listed = False
        self.control.table.lose_store()
        self.control.turn()

    def end_work(self, *, is_evening: bool = False) -> None:
        """End something that a worker does, in any way; in the evening well."""
        waiting = self.control.threads.waiting
        if waiting:
            quick = [work for work in waiting if self.kind_of(work) != self.slow] or waiting
            work = self.random.choice(waiting if self.random.random() < 0.1 else quick)
            waiting.remove(work)
            kind = self.kind_of(work)
            outcome = getattr(self, f"outcome_of_{kind}")(work, is_evening or self.random.random() < 0.6)
            if isinstance(outcome, Exception):
                work.future.set_exception(outcome)
            else:
                work.future.set_result(outcome)
            self.control.turn()

    def kind_of(self, work: Work) -> str:
        return str(work.call(*work.arguments).split()[0])

    def outcome_of_stage(self, work: Work, ends_well: bool) -> Outcome | Exception:
        candidate = work.arguments[0]
        record = self.control.table.models[candidate.model].running
        assert record is not None
        if ends_well:
            return CandidateStaged(self.artifact(candidate.model, candidate.version, self.contents[record.fingerprint]))
        return self.random.choice(
            (
                CandidateUnfinished("it changes"),
                CandidateFailed("no space left"),
                CandidateStopped(),
                RuntimeError("a defect"),
            )
        )

    def outcome_of_evaluate(self, work: Work, ends_well: bool) -> Outcome | Exception:
        candidate = work.arguments[0]
        record = self.control.table.models[candidate.model].running
        assert record is not None
        if not ends_well:
            failures = (
                CandidateFailed("no memory"),
                CandidateFailed("the host died", is_host_death=True),
                CopyDamaged("other bytes"),
            )
            return self.random.choice((*failures, CandidateStopped(), RuntimeError("a defect")))
        assert record.digest is not None
        if record.digest[-1] in BAD:
            return CandidateRefused(refused("golden"))
        number, placement = self.control.runner.next_host(), Hosted(NUMBERS, "sklearn", 8)
        assert record.id not in self.control.plane.loaded, "loaded twice"
        self.control.plane.load(Load(record.id, placement, number))
        self.hosts[record.id] = number
        self.lost.discard(record.id)
        self.has_passed.add(record.id)
        return CandidateReady(placement, passed(), number)

    def outcome_of_respawn(self, work: Work, ends_well: bool) -> str | Exception | None:
        command: ReplaceHost = work.arguments[0]
        if not ends_well:
            return self.random.choice(("no memory", CopyLost("the copy is damaged"), RuntimeError("a defect")))
        if command.key not in self.control.plane.loaded or self.hosts[command.key] > command.host:
            return "the version is not loaded any more"
        self.hosts[command.key] = command.host
        self.lost.discard(command.key)
        return None

    def lose_host(self) -> None:
        """Let the host of something that is loaded, or drains, die."""
        if self.hosts:
            key = self.random.choice([*self.hosts])
            number = self.hosts[key]
            if self.random.random() < 0.2:
                number -= 1  # the end of an earlier host, told late
            else:
                self.lost.add(key)
            violation = self.random.choice((None, "broke the protocol"))
            self.control.tell(HostGone(key, number, violation, has_answered=self.random.random() < 0.8))

    def drain(self) -> None:
        """Answer the last request of something that is to be unloaded."""
        if self.draining:
            key = self.random.choice([*self.draining])
            self.draining -= Counter([key])
            self.control.tell(Drained(key, self.random.choice((None, "a defect"))))

    def decide(self) -> None:
        """Have an operator decide something, which may be refused."""
        name, version = self.random.choice(MODELS), self.random.choice(VERSIONS)
        decisions: list[ModelDecision] = [PinVersion(name, version)] * 4
        decisions += [UnpinModel(name), RollBackModel(name), ReleaseVersion(name, version), LoadModel(name)] * 2
        decisions += [UnloadModel(name)]
        if self.control.rollout.strategy != "swap":
            decisions += [SteerRollout(name, action) for action in RolloutAction]
        self.operations.decide(self.random.choice(decisions), "somebody")
        self.control.turn()

    def answer(self, *, is_evening: bool = False) -> None:
        """Answer requests while a model's versions share them; in the evening well."""
        for name, model in self.control.table.models.items():
            run = model.rollout
            if run is not None:
                worst = 0 if is_evening else self.random.choice((0, 0, 0, 1, 30))
                for is_new, bad in ((True, worst), (False, self.random.choice((0, 0, worst)))):
                    for place in range(600 if is_evening else 60):
                        is_bad = place < bad
                        self.control.metrics.count_in_split(name, run.number, None, is_new=is_new, is_bad=is_bad)
        self.control.now += 0.5
        self.control.turn()

    def wait(self) -> None:
        """Let time pass."""
        self.control.now += self.random.choice((0.1, 3, 30, 1000))
        self.control.turn()

    @staticmethod
    def artifact(model: str, version: str, content: str) -> Artifact:
        file = StagedFile("model.joblib", content * 64, 1, PurePath("/nowhere"))
        return Artifact(VersionId(model, version, f"sha256:{content * 64}"), Format.JOBLIB, file, (file,))

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what holds after every event."""
        plane, models = self.control.plane, self.control.table.models
        self.draining += Counter(plane.unloaded)
        plane.unloaded.clear()
        assert plane.plan.routes.keys() == models.keys()
        assert plane.loaded == {record.id for model in models.values() for record in model.loaded}, "an engine is lost"
        leaving = Counter(record.id for model in models.values() for record in model.leaving)
        assert leaving == self.draining, "a drain has no end, or has ended twice"
        self.hosts = {key: host for key, host in self.hosts.items() if key in plane.loaded}
        self.lost &= self.hosts.keys()
        for model in models.values():
            self.check_model(model)

    def check_model(self, model: ModelRecord) -> None:
        route = self.control.plane.plan.routes[model.name]
        assert [record.id for record in model.loaded] == [*route.loaded]
        assert (model.active.id if model.active else None) == route.active
        assert {record.id for record in model.loaded} <= self.has_passed
        run = model.rollout
        arriving = None if run is None or run.phase is RolloutPhase.BAKE else run.new
        assert all(record.state is State.READY for record in model.standbys if record is not arriving)
        self.check_rollout(model, route)
        assert all(record.state is State.DRAINING for record in model.leaving)
        assert model.active is None or model.active.state is State.ACTIVE
        assert model.running is None or model.running.state in UNDER_WAY
        candidates = [work for work in self.control.threads.waiting if self.is_candidate_of(work, model)]
        assert len(candidates) == (model.running is not None), "at most one candidate at once"
        assert model.active is None or model.kept is None
        before, self.was_active[model.name] = self.was_active.get(model.name), model.active
        if before is not None and model.active is not None and before is not model.active:
            self.check_swap(model, before, model.active)

    def check_rollout(self, model: ModelRecord, route: Route) -> None:
        """What shares the requests of a model is loaded, is not in quarantine, and is what control knows."""
        run, decisions = model.rollout, self.control.history.decisions
        assert route.split == (None if run is None else run.to_split())
        if run is None:
            return
        assert {run.new, run.old} <= {*model.loaded}
        assert run.new is not run.old
        assert (run.new if run.phase is RolloutPhase.BAKE else run.old) is model.active
        assert run.new.state in (State.ACTIVE, State.CANARY, State.SHADOW)
        assert (run.new.state is State.ACTIVE) == (run.phase is RolloutPhase.BAKE)
        for record in (run.new, run.old):
            assert not decisions.is_quarantined(model.name, record.version, record.digest), "it is in quarantine"
            assert record is model.active or not record.is_copy_lost, "it cannot answer"
        assert model.name not in decisions.pins, "a pinned version answers everything"

    def is_candidate_of(self, work: Work, model: ModelRecord) -> bool:
        first = work.arguments[0]
        return not isinstance(first, ReplaceHost) and first.model == model.name

    def check_swap(self, model: ModelRecord, before: VersionRecord, after: VersionRecord) -> None:
        """An older version takes over only from one that had to go, or by an operator's will."""
        decisions = self.control.history.decisions
        had_to_go = before.is_copy_lost or decisions.is_quarantined(model.name, before.version, before.digest)
        is_asked_for = model.name in decisions.pins
        is_older = order_key(after.version) < order_key(before.version)
        assert not is_older or had_to_go or is_asked_for or before.version not in model.listed
        assert not decisions.is_quarantined(model.name, after.version, after.digest), "back to quarantine"

    def end(self) -> None:
        """Let everything that is under way end well, and see what answers."""
        self.look()
        for _ in range(400):
            self.check()
            if self.control.threads.waiting:
                self.end_work(is_evening=True)
            elif self.draining:
                self.drain()
            else:
                self.control.now += 10_000
                self.release_rollouts()
                self.answer(is_evening=True)
                if any(model.rollout is not None for model in self.control.table.models.values()):
                    continue
                if not (self.control.threads.waiting or self.draining or self.control.plane.unloaded):
                    break
        else:
            pytest.fail("it never comes to rest")
        self.check()
        for model in self.control.table.models.values():
            self.check_rest(model)

    def release_rollouts(self) -> None:
        """Let nothing that an operator or the judge has stopped stay so."""
        for model in self.control.table.models.values():
            is_held = model.rollout is not None and model.rollout.is_held
            if is_held or self.control.table.rollouts.is_stopped(model.name):
                assert self.operations.decide(SteerRollout(model.name, RolloutAction.RESUME), "somebody") is None

    def check_rest(self, model: ModelRecord) -> None:
        decisions, exclusion = self.control.history.decisions, self.control.table._exclusion
        assert (model.running, model.leaving) == (None, [])
        assert model.is_settled
        assert not self.lost & {record.id for record in model.loaded}, "a version has no host, and none is brought"
        if model.name in decisions.unloaded:
            assert model.loaded == []
            return
        fit = [record for record in model.listed.values() if not exclusion.is_excluded(model, record)]
        assert (model.active is not None) or not fit, "nothing answers, and something could"
        if model.active is None:
            return
        pin = decisions.pins.get(model.name)
        pinned = next((record for record in fit if record.version == pin), None)
        if pinned is not None:
            assert model.active is pinned
        elif pin is None and fit and model.active.version in model.listed:
            is_own = model.listed[model.active.version] is model.active
            best = fit[0]
            assert model.active is best or (not is_own and order_key(best.version) <= order_key(model.active.version))


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nothing durable: it would take most of the time."""
    for name in ("write", "write_decision", "write_later", "decide_later"):
        monkeypatch.setattr(StateFile, name, lambda *_: None)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as written:
        yield written


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_whatever_happens_in_whatever_order_what_should_answer_answers(
    first: int, tmp_path: Path, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(first, first + 20):
        day = Day(tmp_path / str(seed), seed, monkeypatch)
        try:
            day.begin()
            for _ in range(EVENTS):
                day.check()
                day.take_event()
            day.check()
            day.end()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        finally:
            day.control.history.close()
        stuck = [log for log in logs if log["event"] == "model_stuck"]
        assert stuck == [], f"seed {seed}"

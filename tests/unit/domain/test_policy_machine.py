"""Whatever happens to a store and its server, in whatever order, the policy ends in the aspired version."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.domain.listing import FileStamp
from serving.domain.policy import (
    Action,
    Activate,
    Cancel,
    Desired,
    Evaluate,
    Loaded,
    Observed,
    Retire,
    Running,
    Stage,
    Wanted,
    next_action,
)
from serving.domain.state import State
from serving.domain.version import order_key

VERSIONS = st.integers(1, 4).map(str)
SETTLE_SECONDS = 5.0
MOST_STEPS = 200


@dataclass
class World:
    """A store, an operator and the processes of one model. A content that is odd is refused by the gates."""

    now: float = 0.0
    files: dict[str, int] = field(default_factory=dict)
    settled_at: dict[str, float] = field(default_factory=dict)
    contents: int = 0
    pin: str | None = None
    is_unloaded: bool = False
    quarantined: set[str] = field(default_factory=set)
    staged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    active: Loaded | None = None
    standbys: list[Loaded] = field(default_factory=list)
    running: Running | None = None
    keep_warm: int = 1

    def wanted(self) -> tuple[Wanted, ...]:
        """Return what the store holds, newest first."""
        return tuple(self._wanted(version) for version in sorted(self.files, key=order_key, reverse=True))

    def _wanted(self, version: str) -> Wanted:
        digest = f"{version}:{self.files[version]}"
        is_staged = digest in self.staged
        return Wanted(
            version,
            self.fingerprint(version),
            digest if is_staged else None,
            is_staged,
            self.settled_at[version],
            digest in self.refused or version in self.quarantined,
        )

    def fingerprint(self, version: str) -> tuple[FileStamp, ...]:
        return (FileStamp("model.joblib", 1, self.files[version], 0, 0),)

    def next_action(self) -> Action | None:
        standbys = tuple(map(self._seen, self.standbys))
        active = self._seen(self.active) if self.active else None
        observed = Observed(active, standbys, self.running, self.keep_warm)
        return next_action(Desired(self.wanted(), self.pin, self.is_unloaded), observed, self.now)

    def _seen(self, one: Loaded) -> Loaded:
        return Loaded(one.version, one.digest, one.version in self.quarantined)

    def apply(self, action: Action) -> None:
        match action:
            case Stage(wanted):
                assert self.running is None
                self.running = Running(wanted.version, wanted.fingerprint, State.STAGING)
            case Evaluate(wanted):
                assert self.running is None
                assert wanted.digest in self.staged
                assert wanted.digest not in self.refused
                self.running = Running(wanted.version, wanted.fingerprint, State.LOADING)
            case Cancel():
                assert self.running is not None
                self.running = None
            case Activate(one):
                chosen = next(each for each in self.standbys if each.digest == one.digest)
                assert chosen.version not in self.quarantined
                self.standbys.remove(chosen)
                self.standbys[:0] = [self.active] if self.active else []
                self.active = chosen
            case Retire(one):
                if one == self.active:
                    assert self.is_unloaded
                    self.active = None
                self.standbys = [each for each in self.standbys if each.digest != one.digest]

    def finish(self) -> None:
        """Let the candidate under way come to its end; of files that have changed comes nothing."""
        running, self.running = self.running, None
        assert running is not None
        version = running.version
        if version not in self.files or self.fingerprint(version) != running.fingerprint:
            return
        digest = f"{version}:{self.files[version]}"
        if running.state is State.STAGING:
            self.staged.add(digest)
        elif self.files[version] % 2:
            self.refused.add(digest)
        else:
            self.standbys.append(Loaded(version, digest))

    def rest(self) -> None:
        """Let time pass and do what the policy says until it says nothing any more."""
        self.now += SETTLE_SECONDS
        for _ in range(MOST_STEPS):
            action = self.next_action()
            if action is not None:
                self.apply(action)
            elif self.running is not None:
                self.finish()
            else:
                return
        pytest.fail(f"the policy does not come to rest: {self}")

    def aspired(self) -> str | None:
        """Return the digest that should answer at rest: the newest that may, or what is active where none may.

        What is active is not left for an older version while its own name is there with other, refused bytes.
        """
        active = self.active
        if self.is_unloaded:
            return None
        for wanted in self.wanted():
            if self.pin not in (None, wanted.version):
                continue
            if not wanted.is_excluded and self.files[wanted.version] % 2 == 0:
                return f"{wanted.version}:{self.files[wanted.version]}"
            if active and active.version == wanted.version and active.version not in self.quarantined:
                return active.digest
        return active.digest if active else None


class Life(RuleBasedStateMachine):
    """What people and bad luck do, in any order, with steps of the policy in between."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(versions=st.sets(VERSIONS, min_size=2))
    def begin(self, versions: set[str]) -> None:
        """A store of some versions that have settled."""
        for version in sorted(versions):
            self.drop(version, is_good=True)
        self.world.now += SETTLE_SECONDS

    @rule(version=VERSIONS, is_good=st.sampled_from([True, True, False]))
    def drop(self, version: str, is_good: bool) -> None:
        """A version appears, or its bytes are replaced."""
        self.world.contents += 2
        self.world.files[version] = self.world.contents + (not is_good)
        self.world.settled_at[version] = self.world.now + SETTLE_SECONDS

    @rule(version=VERSIONS)
    def delete(self, version: str) -> None:
        self.world.files.pop(version, None)

    @rule(version=VERSIONS)
    def pin(self, version: str) -> None:
        self.world.pin = version

    @rule()
    def unpin(self) -> None:
        self.world.pin = None

    @rule()
    def unload(self) -> None:
        self.world.is_unloaded = True

    @rule()
    def load(self) -> None:
        self.world.is_unloaded = False

    @rule(version=VERSIONS)
    def quarantine(self, version: str) -> None:
        self.world.quarantined.add(version)

    @rule(version=VERSIONS)
    def release(self, version: str) -> None:
        self.world.quarantined.discard(version)

    @rule(keep_warm=st.integers(0, 2))
    def configure(self, keep_warm: int) -> None:
        self.world.keep_warm = keep_warm

    @rule(seconds=st.sampled_from([1.0, SETTLE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(which=st.integers(0, 2))
    def host_dies(self, which: int) -> None:
        if which == 0:
            self.world.active = None
        elif which <= len(self.world.standbys):
            del self.world.standbys[which - 1]

    @rule()
    def server_dies(self) -> None:
        self.world.active, self.world.running = None, None
        self.world.standbys.clear()

    @rule()
    def copies_are_lost(self) -> None:
        self.world.staged.clear()

    @rule()
    def step(self) -> None:
        action = self.world.next_action()
        if action is not None:
            self.world.apply(action)

    @precondition(lambda self: self.world.running is not None)
    @rule()
    def finish(self) -> None:
        self.world.finish()

    @rule()
    def rest(self) -> None:
        self.world.rest()
        expected = self.world.aspired()
        assert (self.world.active.digest if self.world.active else None) == expected, self.world
        assert len(self.world.standbys) <= (0 if self.world.is_unloaded else self.world.keep_warm)

    @invariant()
    def holds_each_once(self) -> None:
        everything = [*self.world.standbys, *([self.world.active] if self.world.active else [])]
        assert len({one.digest for one in everything}) == len(everything)

    def teardown(self) -> None:
        self.rest()


BOUNDED = settings(max_examples=150, stateful_step_count=30, deadline=None, derandomize=True, database=None)


def run(bounds: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Life, settings=bounds)


def test_any_life_ends_in_the_aspired_version() -> None:
    run(BOUNDED)


@pytest.mark.soak
def test_any_long_life_ends_in_the_aspired_version() -> None:
    run(settings(BOUNDED, max_examples=3000, stateful_step_count=60))

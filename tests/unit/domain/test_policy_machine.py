"""Whatever happens to a store and its server, in whatever order, the policy ends in the aspired version."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.domain.listing import FileStamp
from serving.domain.policy import (
    Action,
    Activate,
    Arrival,
    Cancel,
    Desired,
    EndArrival,
    Evaluate,
    Introduce,
    LoadedVersion,
    Observed,
    Retire,
    RunningCandidate,
    Stage,
    WantedVersion,
    choose_action,
)
from serving.domain.state import State
from serving.domain.version import order_key

VERSIONS = st.integers(1, 4).map(str)
SETTLE_SECONDS = 5.0
BACKOFF_SECONDS = 1000.0
MOST_STEPS = 200


@dataclass
class World:
    """A store, an operator, a cache and the processes of one model. A content that is odd is refused by the gates.

    `remembered` is the digest that the state says was active; `kept` is that digest after a restart, until something is
    active. `broken` are versions that cannot be copied or loaded for now, `failed` those that were tried meanwhile.
    `labels` are versions with a label.
    """

    now: float = 0.0
    files: dict[str, int] = field(default_factory=dict)
    settled_at: dict[str, float] = field(default_factory=dict)
    removed_at: float = 0.0
    contents: int = 0
    pin: str | None = None
    labels: set[str] = field(default_factory=set)
    is_unloaded: bool = False
    quarantined: set[str] = field(default_factory=set)
    staged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    failed: dict[str, float] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    remembered: str | None = None
    kept: str | None = None
    active: LoadedVersion | None = None
    standbys: list[LoadedVersion] = field(default_factory=list)
    running: RunningCandidate | None = None
    keep_warm: int = 1
    is_gradual: bool = False
    is_stopped: bool = False
    arrival: Arrival | None = None

    # --- what the policy sees ----------------------------------------------------------------------------------------

    def choose_action(self) -> Action | None:
        standbys = tuple(map(self._seen, self.standbys))
        active = self._seen(self.active) if self.active else None
        observed = Observed(active, standbys, self.running, self.keep_warm, self.arrival)
        return choose_action(self.desired(), observed, self.now)

    def desired(self) -> Desired:
        versions = [self._listed(version) for version in sorted(self.files, key=order_key, reverse=True)]
        for one in self.unlisted():
            if one.version == self.pin or (self.must_leave() and one != self.active):
                seen = self._seen(one)
                versions.append(WantedVersion(one.version, (), one.digest, True, is_excluded=seen.must_leave))
        kept = None
        if self.kept is not None:
            version = version_of(self.kept)
            until = self.failed.get(self.kept, 0.0)
            excluded = self.kept in self.quarantined
            kept = WantedVersion(version, (), self.kept, True, until, excluded, has_failed=until > 0)
        labelled = tuple(self._listed(version) for version in sorted(self.labels & self.files.keys()))
        return Desired(
            *(tuple(versions), self.pin, self.is_unloaded, kept, self._removed_at(), self.is_gradual, self.is_stopped),
            labelled,
        )

    def _removed_at(self) -> float:
        is_removed = self.active is not None and self.active.version not in self.files
        return self.removed_at if is_removed else 0.0

    def _listed(self, version: str) -> WantedVersion:
        digest = self.digest(version)
        is_staged = digest in self.staged
        until = self.failed.get(digest, 0.0)
        return WantedVersion(
            version,
            self.fingerprint(version),
            digest if is_staged else None,
            is_staged,
            max(self.settled_at[version], until),
            is_staged and (digest in self.refused or digest in self.quarantined),
            has_failed=until > 0,
        )

    def unlisted(self) -> list[LoadedVersion]:
        """Return what is loaded and is not what the store has under its name, newest first."""
        everything = [*([self.active] if self.active else []), *self.standbys]
        unlisted = [
            one for one in everything if one.version not in self.files or self.digest(one.version) != one.digest
        ]
        return sorted(unlisted, key=lambda one: order_key(one.version), reverse=True)

    def must_leave(self) -> bool:
        return self.active is None or self._seen(self.active).must_leave

    def digest(self, version: str) -> str:
        return f"{version}:{self.files[version]}"

    def fingerprint(self, version: str) -> tuple[FileStamp, ...]:
        return (FileStamp("model.joblib", 1, self.files[version], 0, 0),)

    def _seen(self, one: LoadedVersion) -> LoadedVersion:
        is_labelled = one.digest in self.labelled()
        return LoadedVersion(
            one.version, one.digest, one.digest in self.quarantined, one.digest in self.lost, is_labelled
        )

    def labelled(self) -> set[str]:
        """Return what labels answer with: the bytes in the store, or else those that are loaded under the name."""
        found = set()
        for version in self.labels:
            everything = [*([self.active] if self.active else []), *self.standbys]
            loaded = [one.digest for one in everything if one.version == version]
            in_store = self.digest(version) if version in self.files else None
            found.update([in_store] if in_store in loaded else loaded[:1])
        return {digest for digest in found if digest is not None}

    # --- what is done about it ---------------------------------------------------------------------------------------

    def apply(self, action: Action) -> None:
        match action:
            case Stage(wanted):
                assert self.running is None
                self.running = RunningCandidate(wanted.version, wanted.fingerprint, State.STAGING)
            case Evaluate(wanted):
                assert self.running is None
                assert wanted.digest not in self.refused
                self.running = RunningCandidate(wanted.version, wanted.fingerprint, State.LOADING)
            case Cancel():
                assert self.running is not None
                self.running = None
            case Introduce(one):
                self._introduce(one)
            case EndArrival():
                assert self.arrival is not None
                self.arrival = None
            case Activate(one):
                self._activate(next(each for each in self.standbys if each.digest == one.digest))
            case Retire(one):
                arrival = self.arrival
                assert arrival is None or one.digest != arrival.digest, "what arrives was unloaded"
                assert arrival is None or not arrival.is_baking or one.version != arrival.kept
                if self.active is not None and one.digest == self.active.digest:
                    assert self.is_unloaded
                    self.active = None
                self.standbys = [each for each in self.standbys if each.digest != one.digest]

    def _introduce(self, one: LoadedVersion) -> None:
        assert self.arrival is None
        assert self.active is not None
        assert not self.must_leave()
        assert self.pin is None
        assert self.is_gradual
        assert not self.is_stopped
        assert one.digest not in self.quarantined | self.lost
        assert order_key(one.version) >= order_key(self.active.version)
        self.arrival = Arrival(one.version, one.digest, self.active.version)

    def _pass_on(self, chosen: LoadedVersion) -> None:
        """Take note of what becomes active: only what has passed does, unless what is active cannot stay."""
        arrival, self.arrival = self.arrival, None
        if self.active is None or self.must_leave() or self.pin is not None or not self.is_gradual:
            return
        if order_key(chosen.version) < order_key(self.active.version):
            return
        assert arrival is not None, "a newer version took over at once"
        assert arrival.has_passed
        assert arrival.digest == chosen.digest
        self.arrival = replace(arrival, is_baking=True)

    def _activate(self, chosen: LoadedVersion) -> None:
        self._pass_on(chosen)
        assert chosen.digest not in self.lost
        if self.now < self._removed_at() and not self.must_leave() and self.pin is None:
            assert self.active is not None
            assert order_key(chosen.version) > order_key(self.active.version), "an older one came before that settled"
        if chosen.digest in self.quarantined:
            assert chosen.digest == self.kept, "a version in quarantine came back that had not answered before"
            assert not self.could_answer(), "a version in quarantine came back in place of one that may answer"
        elif (
            self.active is None
            and self.kept is not None
            and self.kept not in self.failed | dict.fromkeys(self.quarantined)
        ):
            assert chosen.digest == self.kept, "another version than before answered first after a restart"
        self.standbys.remove(chosen)
        self.standbys[:0] = [self.active] if self.active else []
        self.active = chosen
        self.remembered, self.kept = chosen.digest, None

    def finish(self) -> None:
        """Let the candidate under way come to its end; of files that have changed comes nothing."""
        running, self.running = self.running, None
        assert running is not None
        version = running.version
        if running.fingerprint == ():
            assert self.kept is not None
            digest = self.kept
            if digest in self.lost:
                self.kept = None  # the copy is damaged
                return
        elif version not in self.files or self.fingerprint(version) != running.fingerprint:
            return
        else:
            digest = self.digest(version)
        if version in self.broken:
            self.failed[digest] = self.now + BACKOFF_SECONDS
        elif running.state is State.STAGING:
            self.staged.add(digest)
        elif int(digest.partition(":")[2]) % 2:
            self.refused.add(digest)
        else:
            self.standbys.append(LoadedVersion(version, digest))
            self.failed.pop(digest, None)

    def restart(self) -> None:
        """Die and come back: nothing is loaded, the state and the cache are as they were."""
        self.active, self.running, self.arrival = None, None, None
        self.standbys.clear()
        self.failed.clear()
        self.kept = None if self.remembered in self.lost else self.remembered
        self.lost.clear()

    def rest(self) -> None:
        """Let time pass and do what the policy says until it says nothing any more."""
        self.now += SETTLE_SECONDS
        self.act()

    def act(self, *, is_judged: bool = True) -> None:
        """Do what the policy says until it says nothing any more; it takes no time.

        What arrives passes at once if it is judged; else it stays on its way.
        """
        for _ in range(MOST_STEPS):
            action = self.choose_action()
            if action is not None:
                self.apply(action)
            elif self.running is not None:
                self.finish()
            elif self.arrival is not None and is_judged:
                self.judge()
            else:
                return
        pytest.fail(f"the policy does not come to rest: {self}")

    def judge(self) -> None:
        """Let what arrives pass, or let the version before lose its part."""
        assert self.arrival is not None
        self.arrival = None if self.arrival.is_baking else replace(self.arrival, has_passed=True)

    # --- what should come of it --------------------------------------------------------------------------------------

    def could_answer(self) -> bool:
        """Whether anything could that is not in quarantine: in the store, loaded, or as it was before the restart."""
        candidates = {self.digest(version) for version in self.files if int(self.files[version]) % 2 == 0}
        candidates = {digest for digest in candidates if self._is_to_be_had(digest)}
        candidates |= {one.digest for one in [*self.standbys, *([self.active] if self.active else [])]}
        candidates |= {self.kept} - {None} if self.kept and self._is_to_be_had(self.kept) else set()  # type: ignore[arg-type]
        return bool(candidates - self.quarantined - self.lost)

    def labels_to_be_had(self) -> set[str]:
        """Return what labels should answer with of what is in the store."""
        digests = {self.digest(version) for version in self.labels & self.files.keys()}
        return {digest for digest in digests if self._may_answer(digest) and version_of(digest) not in self.broken}

    def _is_to_be_had(self, digest: str) -> bool:
        return version_of(digest) not in self.broken and self.failed.get(digest, 0.0) <= self.now

    def aspired(self) -> str | None:
        """Return the digest that should answer at rest.

        The pinned version, or while it cannot be served what is active; else the newest that may. What is active is not
        left for an older version while its own name is there with other bytes, or while a newer one is tried again.
        """
        if self.is_unloaded:
            return None
        goes_on = self.active.digest if self.active is not None and not self.must_leave() else None
        pinned = self._pinned()
        if pinned or (goes_on and self.pin is not None):
            return pinned or goes_on
        for version in sorted(self.files, key=order_key, reverse=True):
            digest = self.digest(version)
            if self._may_answer(digest):
                return digest
            is_refused = self.files[version] % 2 or digest in self.quarantined
            if goes_on and (
                not is_refused or version_of(goes_on) == version or self.failed.get(digest, 0.0) > self.now
            ):
                return goes_on
        return self.active.digest if self.active else None

    def _pinned(self) -> str | None:
        """Return the digest of the pinned version, when it may answer."""
        found = [one.digest for one in self.unlisted() if one.version == self.pin]
        found = [self.digest(self.pin)] if self.pin in self.files else found
        return found[0] if found and self._may_answer(found[0]) else None

    def _may_answer(self, digest: str) -> bool:
        loaded = {one.digest for one in [*self.standbys, *([self.active] if self.active else [])]}
        is_good = int(digest.partition(":")[2]) % 2 == 0 and digest not in self.quarantined | self.lost
        return is_good and (digest in loaded or self.failed.get(digest, 0.0) <= self.now)


def version_of(digest: str) -> str:
    return digest.partition(":")[0]


class Life(RuleBasedStateMachine):
    """What people and bad luck do, in any order, with steps of the policy in between."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(versions=st.sets(VERSIONS, min_size=2), is_gradual=st.booleans())
    def begin(self, versions: set[str], is_gradual: bool) -> None:
        """A store of some versions that have settled."""
        self.world.is_gradual = is_gradual
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
        self.world.removed_at = self.world.now + SETTLE_SECONDS

    @rule()
    def delete_the_active_version(self) -> None:
        """And let the server act before the removal has settled."""
        self.rest()
        if self.world.active is not None:
            self.delete(self.world.active.version)
            self.world.act()

    @rule()
    def delete_all(self) -> None:
        """The last files go, or the volume is not mounted."""
        self.world.files.clear()
        self.world.removed_at = self.world.now + SETTLE_SECONDS

    @rule(version=VERSIONS)
    def pin(self, version: str) -> None:
        """A pin is a name: the version may not be there any more, or not yet."""
        self.world.pin = version

    @rule()
    def unpin(self) -> None:
        self.world.pin = None

    @rule(version=VERSIONS)
    def label(self, version: str) -> None:
        self.world.labels.add(version)

    @rule(version=VERSIONS)
    def unlabel(self, version: str) -> None:
        self.world.labels.discard(version)

    @rule()
    def unload(self) -> None:
        self.world.is_unloaded = True

    @rule()
    def load(self) -> None:
        self.world.is_unloaded = False

    @rule(version=VERSIONS)
    def quarantine(self, version: str) -> None:
        """Of the bytes that have the name now, read or not, and of those that are loaded under it."""
        world = self.world
        world.quarantined |= {world.digest(version)} if version in world.files else set()
        everything = [*world.standbys, *([world.active] if world.active else [])]
        world.quarantined |= {one.digest for one in everything if one.version == version}

    @rule(version=VERSIONS)
    def release(self, version: str) -> None:
        self.world.quarantined = {digest for digest in self.world.quarantined if version_of(digest) != version}

    @rule(keep_warm=st.integers(0, 2))
    def configure(self, keep_warm: int) -> None:
        self.world.keep_warm = keep_warm

    @rule(version=VERSIONS)
    def arrive(self, version: str) -> None:
        """A version appears and gets on its way, if it may."""
        self.drop(version, is_good=True)
        self.world.now += SETTLE_SECONDS
        self.world.act(is_judged=False)

    @precondition(lambda self: self.world.arrival is not None)
    @rule()
    def judge(self) -> None:
        self.world.judge()

    @precondition(lambda self: self.world.arrival is not None)
    @rule(is_second=st.booleans())
    def roll_back(self, is_second: bool) -> None:
        """The judge finds what arrives worse; perhaps for the second time."""
        world = self.world
        assert world.arrival is not None
        world.quarantined.add(world.arrival.digest)
        world.is_stopped = is_second
        world.arrival = None

    @precondition(lambda self: self.world.is_stopped)
    @rule()
    def rest_while_stopped(self) -> None:
        """Nothing newer takes over, unless what is active has to go or an operator chooses another version."""
        world, before = self.world, self.world.active
        may_stay = before is not None and not world.must_leave() and world.pin is None and not world.is_unloaded
        world.rest()
        if may_stay and world.is_gradual:
            assert before is not None
            assert world.active is not None
            assert order_key(world.active.version) <= order_key(before.version)
            assert world.running is None

    @rule(seconds=st.sampled_from([1.0, SETTLE_SECONDS, BACKOFF_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(version=VERSIONS)
    def break_(self, version: str) -> None:
        """The version cannot be copied or loaded for a while, for no fault of its own."""
        self.world.broken.add(version)

    @rule()
    def mend(self) -> None:
        self.world.broken.clear()
        self.world.failed.clear()

    @rule(which=st.integers(0, 2))
    def damage(self, which: int) -> None:
        """The host of something loaded dies, and its copy is damaged: only the store can bring it back."""
        world = self.world
        for one in [*([world.active] if world.active else []), *world.standbys][which : which + 1]:
            if one in world.unlisted():
                world.lost.add(one.digest)
                world.staged.discard(one.digest)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def restart_and_rest(self) -> None:
        """What answered before a restart answers after it, first, where there is a sound copy."""
        world = self.world
        world.restart()
        kept = world.kept
        is_to_come = kept is not None and version_of(kept) not in world.broken and not world.is_unloaded
        while is_to_come and kept not in world.quarantined and world.active is None:
            action = world.choose_action()
            if action is None:
                assert world.running is not None
                world.finish()
            else:
                world.apply(action)
        self.rest()

    @precondition(lambda self: self.world.active is not None)
    @rule()
    def roll_back_and_restart(self) -> None:
        """A version that was in quarantine when the server ended comes back only when nothing else can answer."""
        assert self.world.active is not None
        self.quarantine(self.world.active.version)
        self.restart_and_rest()

    @rule()
    def copies_are_lost(self) -> None:
        """What nothing refers to is evicted; what was active never is."""
        self.world.staged.clear()

    @rule()
    def step(self) -> None:
        action = self.world.choose_action()
        if action is not None:
            self.world.apply(action)

    @precondition(lambda self: self.world.running is not None)
    @rule()
    def finish(self) -> None:
        self.world.finish()

    @rule()
    def rest(self) -> None:
        world = self.world
        world.is_stopped = False
        world.rest()
        expected = world.aspired()
        assert (world.active.digest if world.active else None) == expected, world
        unlabelled = [one for one in world.standbys if one.digest not in world.labelled() or world.is_unloaded]
        assert len(unlabelled) <= (0 if world.is_unloaded else world.keep_warm)
        assert world.is_unloaded or world.labels_to_be_had() <= world.labelled(), world
        if not world.is_unloaded and world.kept is not None and version_of(world.kept) not in world.broken:
            assert world.active is not None, f"what answered before the restart does not answer after it: {world}"
        if not world.is_unloaded and world.could_answer():
            assert world.active is not None, f"nothing answers: {world}"
            assert world.active.digest not in world.lost, f"what answers cannot: {world}"

    @invariant()
    def holds_each_once(self) -> None:
        everything = [*self.world.standbys, *([self.world.active] if self.world.active else [])]
        assert len({one.digest for one in everything}) == len(everything)

    def teardown(self) -> None:
        self.rest()


BOUNDED = settings(max_examples=250, stateful_step_count=40, deadline=None, derandomize=True, database=None)


def run(bounds: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Life, settings=bounds)


def test_any_life_ends_in_the_aspired_version() -> None:
    run(BOUNDED)


@pytest.mark.soak
def test_any_long_life_ends_in_the_aspired_version() -> None:
    run(settings(BOUNDED, max_examples=3000, stateful_step_count=60))

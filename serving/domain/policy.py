"""Decides what to do next for one model: a pure function of desired state, observed state and time.

The idea is that of TensorFlow Serving's availability-preserving policy: all known facts go in, at most one action comes
out, and races become rows of a table in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.domain.listing import Fingerprint
from serving.domain.state import State
from serving.domain.version import order_key


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """One version in the store, or one that only the cache still holds.

    `digest` is None until the version has been staged; `is_staged`: the cache holds a verified copy. `not_before` is
    the monotonic time of the first try: the end of the settle window or of a backoff. `is_excluded`: the version cannot
    be a candidate as it is, for a problem on disk, a refusal on record or a quarantine. `has_failed`: the last try
    failed, another may work. `is_nameless` marks a lone file that has not been read yet: its version gets a name when
    it is staged.
    """

    version: str
    fingerprint: Fingerprint
    digest: str | None = None
    is_staged: bool = False
    not_before: float = 0.0
    is_excluded: bool = False
    has_failed: bool = False
    is_nameless: bool = False


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """One version that can answer right now.

    Unless it `is_lost`: its host is gone, and the cache has no sound copy of its files to start another host from.
    `is_labelled`: a label answers with it, so it stays loaded.
    """

    version: str
    digest: str
    is_quarantined: bool = False
    is_lost: bool = False
    is_labelled: bool = False

    @property
    def must_leave(self) -> bool:
        """True when any other version that can answer is better than this."""
        return self.is_quarantined or self.is_lost


@dataclass(frozen=True, slots=True)
class RunningCandidate:
    """The candidate under evaluation, as it was when the evaluation started."""

    version: str
    fingerprint: Fingerprint
    state: State


@dataclass(frozen=True, slots=True)
class Arrival:
    """A new version that takes over step by step: `has_passed` when it may become active.

    With `is_baking` it is active already, and the version before still answers a part. `kept` is that version.
    """

    version: str
    digest: str
    kept: str
    has_passed: bool = False
    is_baking: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """Versions, newest first, and the operator's decisions: a pin, or that the model is unloaded.

    `kept` is the version in the cache that answered before a restart. It counts until a version is active; when it is
    excluded (in quarantine), only if no other version can answer. `removed_at` is the monotonic time from which the
    files of the active version count as removed; 0 while they are there. `is_gradual`: a newer version takes over step
    by step, not at once. With `is_stopped` it does not at all until an operator says so. `labelled` are the versions
    that labels name, and before them those in the cache that labels answered with before a restart: they are loaded,
    and not activated for that.
    """

    versions: tuple[WantedVersion, ...]
    pin: str | None = None
    is_unloaded: bool = False
    kept: WantedVersion | None = None
    removed_at: float = 0.0
    is_gradual: bool = False
    is_stopped: bool = False
    labelled: tuple[WantedVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """The present state of a model. `standbys` are loaded but not active, most recently active first."""

    active: LoadedVersion | None = None
    standbys: tuple[LoadedVersion, ...] = ()
    running: RunningCandidate | None = None
    keep_warm: int = 1
    arrival: Arrival | None = None

    @property
    def must_leave(self) -> bool:
        """True when any version that can answer is better than the active one."""
        return self.active is None or self.active.must_leave


@dataclass(frozen=True, slots=True)
class Stage:
    """Copy this version into the cache and learn its digest."""

    wanted: WantedVersion


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Load the staged copy in a host and run the gates."""

    wanted: WantedVersion


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the candidate under evaluation: it is no longer wanted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Make this loaded version the active one."""

    loaded: LoadedVersion


@dataclass(frozen=True, slots=True)
class Introduce:
    """Let this loaded version take over from the active one step by step."""

    loaded: LoadedVersion


@dataclass(frozen=True, slots=True)
class EndArrival:
    """The version that was taking over does so no more: something else is wanted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Drain and unload this version: a standby, or the active one of a model that is to be unloaded."""

    loaded: LoadedVersion


Action = Stage | Evaluate | Cancel | Activate | Introduce | EndArrival | Retire

_CANCELLABLE = frozenset({State.STAGING, State.LOADING, State.VALIDATING})


def choose_aspired_version(desired: Desired, observed: Observed, now: float) -> WantedVersion | None:
    """Return the version that should answer, or None to keep the active version, or when the model is unloaded.

    The version that answered before a restart comes first: a restart changes nothing. Then the pinned version wins.
    While it cannot be served, the active version stays, else the best version that can answer becomes active. Without a
    pin the newest version wins that is not excluded.
    """
    if desired.is_unloaded:
        return None
    kept = desired.kept if observed.active is None else None
    if kept is not None and not kept.is_excluded and _can_be_had(observed, kept, now):
        return kept
    if desired.pin is not None:
        pinned = _find_pinned(desired)
        if pinned is not None and not pinned.is_excluded:
            if _can_be_had(observed, pinned, now):
                return pinned
            if not pinned.has_failed:
                return None  # it may still settle
        if not observed.must_leave:
            return None
    found = _find_newest(desired, observed, now)
    if found is not None and desired.is_stopped and _is_gradual(desired, observed, found):
        found = None
    is_last = found is None and all(wanted.is_excluded or wanted.has_failed for wanted in desired.versions)
    return kept if is_last and kept is not None and _can_be_had(observed, kept, now) else found


def choose_action(desired: Desired, observed: Observed, now: float) -> Action | None:
    """Return the next thing to do for one model, or None."""
    arrival = observed.arrival
    if desired.is_unloaded and observed.active is not None:
        return EndArrival("the model is unloaded") if arrival is not None else Retire(observed.active)
    aspired = choose_aspired_version(desired, observed, now)
    better = _find_better_loaded(desired, observed, aspired)
    swap = _choose_swap(desired, observed, better)
    if swap is not None:
        return swap
    running = observed.running
    if running is not None:
        reason = "it is unloaded" if desired.is_unloaded else _why_stale(desired, running, aspired, observed)
        if reason is not None:
            return Cancel(reason)
    else:
        missing = aspired if _is_missing(observed, aspired) else find_missing_label(desired, observed, now)
        if missing is not None:
            return Evaluate(missing) if missing.is_staged and missing.digest is not None else Stage(missing)
    return _choose_surplus(observed, None if desired.is_unloaded else observed.keep_warm)


def find_missing_label(desired: Desired, observed: Observed, now: float) -> WantedVersion | None:
    """Return the first version that is to be loaded for a label now; None when all are that can be."""
    if desired.is_unloaded:
        return None
    due = (one for one in desired.labelled if not one.is_excluded and one.not_before <= now)
    return next((one for one in due if _is_missing(observed, one)), None)


def _choose_swap(desired: Desired, observed: Observed, better: LoadedVersion | None) -> Action | None:
    """Return the next step from the active version to a better one that is loaded."""
    arrival = observed.arrival
    if arrival is not None:
        reason = _why_no_arrival(desired, observed, arrival, better)
        if reason is not None:
            return EndArrival(reason)
        if not arrival.is_baking:
            better = _find_arriving(observed, arrival)  # also while a newer one settles or is tried again
    if better is None:
        return None
    if not _is_gradual(desired, observed, better) or (arrival is not None and arrival.has_passed):
        return Activate(better)
    return Introduce(better) if arrival is None else None


def find_wake_time(desired: Desired, now: float) -> float | None:
    """Return the next monotonic time at which `choose_action` may return something else without any event."""
    everything = (*desired.versions, *([desired.kept] if desired.kept else []), *desired.labelled)
    times = [wanted.not_before for wanted in everything if not wanted.is_excluded]
    return min((time for time in [*times, desired.removed_at] if time > now), default=None)


def _find_pinned(desired: Desired) -> WantedVersion | None:
    """Return the pinned version, or the lone file that may turn out to be it."""
    named = next((wanted for wanted in desired.versions if wanted.version == desired.pin), None)
    return named or next((wanted for wanted in desired.versions if wanted.is_nameless), None)


def _find_newest(desired: Desired, observed: Observed, now: float) -> WantedVersion | None:
    """Return the newest version that is not excluded and can be had now, None to keep the active version.

    An older version never replaces the active one while the active name is still in the store (worse bytes may have
    replaced its own), while a newer version may still settle, or while the removal of the active files may still
    settle: the older version may be removed next.
    """
    active, keeps_active = observed.active, not observed.must_leave
    for wanted in desired.versions:
        is_named_like_active = active is not None and wanted.version == active.version
        if not wanted.is_excluded:
            if active is not None and is_named_like_active and wanted.digest == active.digest:
                return wanted
            if keeps_active and now < desired.removed_at and not _is_newer(wanted.version, active):
                return None
            if _can_be_had(observed, wanted, now):
                return wanted
            if keeps_active:
                return None
        elif keeps_active and is_named_like_active:
            return None
    return None


def _is_newer(version: str, active: LoadedVersion | None) -> bool:
    return active is not None and order_key(version) > order_key(active.version)


def _can_be_had(observed: Observed, wanted: WantedVersion, now: float) -> bool:
    return wanted.not_before <= now or _find_loaded(observed, wanted) is not None


def _find_loaded(observed: Observed, wanted: WantedVersion) -> LoadedVersion | None:
    everything = (observed.active, *observed.standbys)
    return next(
        (one for one in everything if one and (one.version, one.digest) == (wanted.version, wanted.digest)), None
    )


def _is_missing(observed: Observed, wanted: WantedVersion | None) -> bool:
    return wanted is not None and _find_loaded(observed, wanted) is None


def _find_better_loaded(desired: Desired, observed: Observed, aspired: WantedVersion | None) -> LoadedVersion | None:
    """Return the loaded version to activate now: the aspired one, or until then one better than the active."""
    active = observed.active
    if aspired is None:
        return None
    target = _find_loaded(observed, aspired)
    if target is not None:
        return None if target == active or target.is_lost else target
    if desired.pin is not None and not observed.must_leave:
        return None
    for wanted in desired.versions:
        loaded = None if wanted.is_excluded else _find_loaded(observed, wanted)
        if loaded is None or loaded == active:
            continue
        if observed.must_leave or _is_newer(loaded.version, active):
            return loaded
    return None


def _is_gradual(desired: Desired, observed: Observed, one: LoadedVersion | WantedVersion) -> bool:
    """Whether a version takes over from the active one step by step: a newer one, that nobody has chosen."""
    active = observed.active
    if active is None or active.must_leave or not desired.is_gradual or desired.pin is not None:
        return False
    return order_key(one.version) >= order_key(active.version)


def _why_no_arrival(desired: Desired, observed: Observed, arrival: Arrival, better: LoadedVersion | None) -> str | None:
    """Say why the version that is taking over should not any more, None if it should go on."""
    if arrival.is_baking:
        return _why_bake_ends(desired, observed, arrival, better)
    if better is None:
        if desired.pin is not None:
            return f"version '{desired.pin}' is pinned"
        wanted = (arrival.version, arrival.digest)
        is_wanted = any((one.version, one.digest) == wanted and not one.is_excluded for one in desired.versions)
        loaded = _find_arriving(observed, arrival)
        is_fit = is_wanted and loaded is not None and not loaded.must_leave
        return None if is_fit else "it may not be activated any more"
    if (better.version, better.digest) != (arrival.version, arrival.digest):
        return f"version '{better.version}' is wanted instead"
    return None


def _find_arriving(observed: Observed, arrival: Arrival) -> LoadedVersion | None:
    return next(
        (one for one in observed.standbys if (one.version, one.digest) == (arrival.version, arrival.digest)), None
    )


def _why_bake_ends(desired: Desired, observed: Observed, arrival: Arrival, better: LoadedVersion | None) -> str | None:
    """Say why the version before should not keep its part any more, None if it should."""
    active = observed.active
    if active is None or (active.version, active.digest) != (arrival.version, arrival.digest):
        return "another version is active"
    if desired.pin is not None:
        return f"version '{desired.pin}' is pinned"
    if better is not None:
        return f"version '{better.version}' is wanted instead"
    kept = next((one for one in observed.standbys if one.version == arrival.kept), None)
    return "the version before cannot answer any more" if kept is None or kept.must_leave else None


def _why_stale(
    desired: Desired, running: RunningCandidate, aspired: WantedVersion | None, observed: Observed
) -> str | None:
    kept = desired.kept
    if kept is not None and (kept.version, kept.fingerprint) == (running.version, running.fingerprint):
        return None  # no version is active: the kept version answers first, whatever else has arrived
    is_wanted = aspired is not None and aspired.version == running.version
    if _is_for_label(desired, running):
        is_in_the_way = aspired is not None and not is_wanted and _is_missing(observed, aspired)
        return "what is to be active is loaded first" if is_in_the_way and running.state in _CANCELLABLE else None
    return _why_gone(desired, running) or _why_unwanted(desired, running, aspired, observed)


def _why_unwanted(
    desired: Desired, running: RunningCandidate, aspired: WantedVersion | None, observed: Observed
) -> str | None:
    is_wanted = aspired is not None and aspired.version == running.version
    is_only_hope = aspired is not None and aspired.has_failed and observed.must_leave
    if is_wanted or is_only_hope:
        return None
    if desired.pin is not None and desired.pin != running.version:
        return f"version '{desired.pin}' is pinned"
    if aspired is None or running.state not in _CANCELLABLE:
        return None
    is_loaded = _find_loaded(observed, aspired) is not None
    return f"version '{aspired.version}' is {'active' if is_loaded else 'wanted'} instead"


def _is_for_label(desired: Desired, running: RunningCandidate) -> bool:
    """Whether a label needs the running candidate, as it was when its evaluation started."""
    return any(
        (one.version, one.fingerprint) == (running.version, running.fingerprint) and not one.is_excluded
        for one in desired.labelled
    )


def _why_gone(desired: Desired, running: RunningCandidate) -> str | None:
    """Say why the running candidate is no longer in the store as it was, or may not become active."""
    everything = (*desired.versions, *desired.labelled)
    current = next((wanted for wanted in everything if wanted.version == running.version), None)
    if current is None:
        return "its files are no longer in the store" if running.fingerprint else "no label names it any more"
    if current.fingerprint != running.fingerprint:
        return "its files have changed"
    return "it may not be activated any more" if current.is_excluded else None


def _choose_surplus(observed: Observed, keep_warm: int | None) -> Retire | None:
    """Return a standby to retire; `keep_warm` counts only what nothing else needs, and None keeps none at all."""
    active, arrival = observed.active, observed.arrival
    needed = () if arrival is None else (arrival.version, arrival.kept)
    labelled = {loaded.version for loaded in observed.standbys if loaded.is_labelled}
    position = 0
    for loaded in observed.standbys:
        if keep_warm is None or loaded.must_leave:
            return Retire(loaded)
        if loaded.is_labelled or loaded.version in needed:
            continue
        is_replaced = loaded.version in labelled or (active is not None and loaded.version == active.version)
        if is_replaced or position >= keep_warm:
            return Retire(loaded)
        position += 1
    return None

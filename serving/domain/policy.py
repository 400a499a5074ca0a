"""What to do next for one model: a pure function of what is wanted, what is there and the time.

Same idea as TensorFlow Serving's availability-preserving policy: everything known goes in, at most one action comes
out, and races become rows of a table in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.domain.listing import Fingerprint
from serving.domain.state import State
from serving.domain.version import order_key


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version the store holds.

    `digest` is None until it has been staged; `is_staged` says that a verified copy is at hand. `not_before` is the
    monotonic time before which nothing may be tried: the end of the settle window or of a backoff. `is_excluded` says
    that it cannot be a candidate as it is: a problem on disk, a refusal on record, a quarantine.
    """

    version: str
    fingerprint: Fingerprint
    digest: str | None = None
    is_staged: bool = False
    not_before: float = 0.0
    is_excluded: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version that can answer right now."""

    version: str
    digest: str
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """The candidate under way, as it was when it started."""

    version: str
    fingerprint: Fingerprint
    state: State


@dataclass(frozen=True, slots=True)
class Desired:
    """Versions newest first, and what the operator has decided: a pin, or that none of them is to be loaded."""

    versions: tuple[Wanted, ...]
    pin: str | None = None
    is_unloaded: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there. `standbys` are loaded but not active, most recently active first."""

    active: Loaded | None = None
    standbys: tuple[Loaded, ...] = ()
    running: Running | None = None
    keep_warm: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Copy this version into the cache and learn its digest."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Load the staged copy in a host and ask the gates."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the candidate under way: it is no longer wanted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Let this loaded version answer from now on."""

    loaded: Loaded


@dataclass(frozen=True, slots=True)
class Retire:
    """Drain and unload this version: a standby, or the active one of a model that is to be unloaded."""

    loaded: Loaded


Action = Stage | Evaluate | Cancel | Activate | Retire

_CANCELLABLE = frozenset({State.STAGING, State.LOADING, State.VALIDATING})


def aspired_version(desired: Desired, observed: Observed, now: float) -> Wanted | None:
    """Return the version that should answer, or None when what is active should go on, or the model is unloaded.

    The newest version that is not excluded wins. An active version is never given up for an older one while its name
    is still in the store (its bytes may have been replaced by worse ones) or while a newer one is about to settle.
    """
    if desired.is_unloaded:
        return None
    active = observed.active
    keeps_active = active is not None and not active.is_quarantined and desired.pin in (None, active.version)
    for wanted in desired.versions:
        if desired.pin is not None and wanted.version != desired.pin:
            continue
        is_named_like_active = active is not None and wanted.version == active.version
        if not wanted.is_excluded:
            if active is not None and is_named_like_active and wanted.digest == active.digest:
                return wanted
            if wanted.not_before <= now or _find(observed, wanted):
                return wanted
            if keeps_active:
                return None
        elif keeps_active and is_named_like_active:
            return None
    return None


def next_action(desired: Desired, observed: Observed, now: float) -> Action | None:
    """Return the next thing to do for one model, or None."""
    if desired.is_unloaded and observed.active is not None:
        return Retire(observed.active)
    aspired = aspired_version(desired, observed, now)
    better = _better_loaded(desired, observed, aspired)
    if better is not None:
        return Activate(better)
    running = observed.running
    if running is not None:
        reason = "it is unloaded" if desired.is_unloaded else _why_stale(desired, running, aspired, observed)
        if reason is not None:
            return Cancel(reason)
    elif aspired is not None and _find(observed, aspired) is None:
        return Evaluate(aspired) if aspired.is_staged and aspired.digest is not None else Stage(aspired)
    return _surplus(observed, 0 if desired.is_unloaded else observed.keep_warm)


def wake_at(desired: Desired, now: float) -> float | None:
    """Return the next monotonic time at which waiting alone changes what `next_action` says."""
    times = [wanted.not_before for wanted in desired.versions if not wanted.is_excluded and wanted.not_before > now]
    return min(times, default=None)


def _find(observed: Observed, wanted: Wanted) -> Loaded | None:
    everything = (observed.active, *observed.standbys)
    return next(
        (one for one in everything if one and (one.version, one.digest) == (wanted.version, wanted.digest)), None
    )


def _better_loaded(desired: Desired, observed: Observed, aspired: Wanted | None) -> Loaded | None:
    """Return the loaded version to activate now: the aspired one, or one on the way to it that beats the active."""
    active = observed.active
    if aspired is None:
        return None
    target = _find(observed, aspired)
    if target is not None:
        return None if target == active else target
    must_leave = active is None or active.is_quarantined
    for wanted in desired.versions:
        if wanted.is_excluded or desired.pin is not None:
            continue
        loaded = _find(observed, wanted)
        if loaded is None or loaded == active:
            continue
        if must_leave or (active and order_key(loaded.version) > order_key(active.version)):
            return loaded
    return None


def _why_stale(desired: Desired, running: Running, aspired: Wanted | None, observed: Observed) -> str | None:
    current = next((wanted for wanted in desired.versions if wanted.version == running.version), None)
    if current is None:
        return "its files are no longer in the store"
    if current.fingerprint != running.fingerprint:
        return "its files have changed"
    if current.is_excluded:
        return "it may not be activated any more"
    if desired.pin is not None and desired.pin != running.version:
        return f"version '{desired.pin}' is pinned"
    if aspired is not None and aspired.version != running.version and running.state in _CANCELLABLE:
        is_loaded = _find(observed, aspired) is not None
        return f"version '{aspired.version}' is {'active' if is_loaded else 'wanted'} instead"
    return None


def _surplus(observed: Observed, keep_warm: int) -> Retire | None:
    active = observed.active
    for position, loaded in enumerate(observed.standbys):
        is_replaced = active is not None and loaded.version == active.version
        if loaded.is_quarantined or is_replaced or position >= keep_warm:
            return Retire(loaded)
    return None

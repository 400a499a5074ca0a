"""The policy: each row says what is wanted, what is there, and what comes next."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.listing import FileStamp
from serving.domain.policy import (
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
    find_wake_time,
)
from serving.domain.state import State
from serving.domain.version import order_key


def stamp(version: str, content: int = 0) -> tuple[FileStamp, ...]:
    return (FileStamp("model.joblib", 1, content, 0, 0),)


def want(version: str, *, digest: str | None = "same", content: int = 0, **kwargs: object) -> WantedVersion:
    known = f"d{version}" if digest == "same" else digest
    return WantedVersion(version, stamp(version, content), digest=known, **kwargs)  # type: ignore[arg-type]


def fresh(version: str, **kwargs: object) -> WantedVersion:
    return want(version, digest=None, **kwargs)


def kept(version: str, **kwargs: object) -> WantedVersion:
    return WantedVersion(version, (), digest=f"d{version}", is_staged=True, **kwargs)  # type: ignore[arg-type]


def loaded(version: str, digest: str | None = None, *, quarantined: bool = False, lost: bool = False) -> LoadedVersion:
    return LoadedVersion(version, digest or f"d{version}", quarantined, lost)


def labelled(version: str, *, quarantined: bool = False) -> LoadedVersion:
    return replace(loaded(version, quarantined=quarantined), is_labelled=True)


def running(version: str, state: State = State.LOADING, content: int = 0) -> RunningCandidate:
    return RunningCandidate(version, stamp(version, content), state)


NOW = 100.0
CASES = {
    "a first version is staged": (Desired((fresh("1"),)), Observed(), Stage(fresh("1"))),
    "a staged version is evaluated": (
        Desired((want("1", is_staged=True),)),
        Observed(),
        Evaluate(want("1", is_staged=True)),
    ),
    "a known digest without a copy is staged again": (Desired((want("1"),)), Observed(), Stage(want("1"))),
    "an unsettled version waits": (Desired((fresh("1", not_before=101.0),)), Observed(), None),
    "an older version is used while the newest settles and nothing is active": (
        Desired((fresh("2", not_before=101.0), fresh("1"))),
        Observed(),
        Stage(fresh("1")),
    ),
    "what is active is not left for an older version while a newer one settles": (
        Desired((fresh("3", not_before=101.0), want("1"))),
        Observed(active=loaded("2")),
        None,
    ),
    "the newest is staged first": (Desired((fresh("3"), fresh("2"))), Observed(), Stage(fresh("3"))),
    "nothing older than the active version is touched": (
        Desired((want("2"), fresh("1"))),
        Observed(active=loaded("2")),
        None,
    ),
    "a ready version is activated": (
        Desired((want("2"), want("1"))),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "a refused version falls through to the next": (
        Desired((want("2", is_excluded=True), fresh("1"))),
        Observed(),
        Stage(fresh("1")),
    ),
    "a refused overwrite of the active version changes nothing": (
        Desired((want("2", digest="bad", is_excluded=True), want("1"))),
        Observed(active=loaded("2"), standbys=(loaded("1"),)),
        None,
    ),
    "an overwrite of the active version that settles changes nothing yet": (
        Desired((fresh("2", not_before=101.0), want("1"))),
        Observed(active=loaded("2"), standbys=(loaded("1"),)),
        None,
    ),
    "a settled overwrite of the active version is a candidate": (
        Desired((fresh("2"), want("1"))),
        Observed(active=loaded("2")),
        Stage(fresh("2")),
    ),
    "a deleted active version falls back to a standby": (
        Desired((want("1"),)),
        Observed(active=loaded("2"), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "a deleted active version falls back to one that has to be loaded": (
        Desired((fresh("1"),)),
        Observed(active=loaded("2")),
        Stage(fresh("1")),
    ),
    "an active version whose removal settles is not left for a standby": (
        Desired((want("1"),), removed_at=101.0),
        Observed(active=loaded("2"), standbys=(loaded("1"),)),
        None,
    ),
    "an active version whose removal settles is not left for one that compares equal": (
        Desired((want("02"),), removed_at=101.0),
        Observed(active=loaded("2"), standbys=(loaded("02"),)),
        None,
    ),
    "nothing older is loaded while the removal of the active version settles": (
        Desired((want("3", is_excluded=True), fresh("1")), removed_at=101.0),
        Observed(active=loaded("2")),
        None,
    ),
    "a newer version takes over while the removal of the active one settles": (
        Desired((want("3"), want("1")), removed_at=101.0),
        Observed(active=loaded("2"), standbys=(loaded("3"), loaded("1"))),
        Activate(loaded("3")),
    ),
    "a quarantined version is left at once, whatever settles": (
        Desired((want("1"),), removed_at=101.0),
        Observed(active=loaded("2", quarantined=True), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "an emptied store changes nothing": (Desired(()), Observed(active=loaded("2"), standbys=(loaded("1"),)), None),
    "a quarantined active version is left for its standby": (
        Desired((want("2", is_excluded=True), want("1"))),
        Observed(active=loaded("2", quarantined=True), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "a standby takes over at once even if a better version has to be loaded first": (
        Desired((want("3", is_excluded=True), fresh("2"), want("1"))),
        Observed(active=loaded("3", quarantined=True), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "a quarantined active version with no alternative goes on": (
        Desired((want("2", is_excluded=True),)),
        Observed(active=loaded("2", quarantined=True)),
        None,
    ),
    "a pin loads exactly its version": (
        Desired((want("3"), fresh("1")), pin="1"),
        Observed(active=loaded("3")),
        Stage(fresh("1")),
    ),
    "a pin ignores newer versions": (Desired((fresh("3"), want("1")), pin="1"), Observed(active=loaded("1")), None),
    "an unloaded model lets go of what is active first": (
        Desired((want("2"), want("1")), is_unloaded=True),
        Observed(active=loaded("1"), standbys=(loaded("2"),), running=running("2")),
        Retire(loaded("1")),
    ),
    "then of its candidate": (
        Desired((fresh("2"),), is_unloaded=True),
        Observed(standbys=(loaded("1"),), running=running("2", State.WARMING)),
        Cancel("it is unloaded"),
    ),
    "and of every standby": (
        Desired((want("1"),), is_unloaded=True),
        Observed(standbys=(loaded("1"),), keep_warm=3),
        Retire(loaded("1")),
    ),
    "an unloaded model loads nothing, pinned or not": (
        Desired((fresh("2"), want("1")), pin="1", is_unloaded=True),
        Observed(),
        None,
    ),
    "a pin on a version that is refused keeps what is active": (
        Desired((want("3"), want("1", is_excluded=True)), pin="1"),
        Observed(active=loaded("3")),
        None,
    ),
    "a pin on a version that is refused falls back to the newest when nothing is active": (
        Desired((want("3", is_staged=True), want("2", is_excluded=True), want("1")), pin="2"),
        Observed(),
        Evaluate(want("3", is_staged=True)),
    ),
    "a pin on a version that is gone falls back too": (
        Desired((fresh("3"), fresh("1")), pin="2"),
        Observed(),
        Stage(fresh("3")),
    ),
    "what a pin fell back to is not left for anything newer": (
        Desired((fresh("3"), want("1")), pin="2"),
        Observed(active=loaded("1")),
        None,
    ),
    "nor is the candidate it falls back to cancelled": (
        Desired((want("3"), want("2", is_excluded=True)), pin="2"),
        Observed(running=running("3")),
        None,
    ),
    "a pinned version that settles is waited for": (
        Desired((want("3"), fresh("2", not_before=101.0)), pin="2"),
        Observed(),
        None,
    ),
    "one that has failed is not, until it is tried again": (
        Desired((fresh("3"), fresh("2", not_before=101.0, has_failed=True)), pin="2"),
        Observed(),
        Stage(fresh("3")),
    ),
    "the next try of a pinned version does not stop the one that may answer meanwhile": (
        Desired((want("3"), fresh("2", has_failed=True)), pin="2"),
        Observed(running=running("3")),
        None,
    ),
    "nor does the next try of a newer version": (
        Desired((fresh("3", has_failed=True), want("2"))),
        Observed(running=running("2")),
        None,
    ),
    "a pinned version that can be served again is": (
        Desired((want("3"), fresh("2")), pin="2"),
        Observed(active=loaded("3")),
        Stage(fresh("2")),
    ),
    "a lone file is read to see whether it is the pinned version": (
        Desired((fresh("20261120T090000Z", is_nameless=True),), pin="20261119T090000Z"),
        Observed(active=loaded("20261119T090000Z")),
        Stage(fresh("20261120T090000Z", is_nameless=True)),
    ),
    "a quarantined active version is left although the pin cannot be served": (
        Desired((want("3", is_excluded=True), want("1")), pin="2"),
        Observed(active=loaded("3", quarantined=True), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "what answered before a restart is brought back first": (
        Desired((fresh("4"), fresh("3")), kept=kept("3")),
        Observed(),
        Evaluate(kept("3")),
    ),
    "also before the pinned version": (
        Desired((fresh("4"), fresh("3")), pin="4", kept=kept("3")),
        Observed(),
        Evaluate(kept("3")),
    ),
    "nothing that has come meanwhile stops it": (
        Desired((fresh("4"), fresh("3")), pin="4", kept=kept("3")),
        Observed(running=RunningCandidate("3", (), State.LOADING)),
        None,
    ),
    "it does not count any more when something is active": (
        Desired((want("2"),), kept=kept("3")),
        Observed(active=loaded("2")),
        None,
    ),
    "it is not waited for when it cannot be had": (
        Desired((fresh("2"),), kept=kept("3", not_before=101.0, has_failed=True)),
        Observed(),
        Stage(fresh("2")),
    ),
    "in quarantine it does not come back while anything else may answer": (
        Desired((fresh("2", not_before=101.0),), kept=kept("3", is_excluded=True)),
        Observed(),
        None,
    ),
    "in quarantine it goes on when nothing else can answer": (
        Desired((want("2", is_excluded=True),), kept=kept("3", is_excluded=True)),
        Observed(),
        Evaluate(kept("3", is_excluded=True)),
    ),
    "an unloaded model does not come back": (
        Desired((), is_unloaded=True, kept=kept("3")),
        Observed(),
        None,
    ),
    "an active version that cannot be brought back is left for its standby": (
        Desired((want("1"),)),
        Observed(active=loaded("2", lost=True), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "or for one that has to be loaded": (
        Desired((fresh("1"),), pin="2"),
        Observed(active=loaded("2", lost=True)),
        Stage(fresh("1")),
    ),
    "what answered before a restart does not become active when its host cannot be brought back": (
        Desired((), kept=kept("1")),
        Observed(standbys=(loaded("1", lost=True),)),
        Retire(loaded("1", lost=True)),
    ),
    "a standby that cannot be brought back is retired": (
        Desired((want("2"),)),
        Observed(active=loaded("2"), standbys=(loaded("1", lost=True),)),
        Retire(loaded("1", lost=True)),
    ),
    "a pin cancels the candidate of another version": (
        Desired((fresh("3"), want("1")), pin="1"),
        Observed(active=loaded("1"), running=running("3")),
        Cancel("version '1' is pinned"),
    ),
    "a newer version cancels the candidate that is loading": (
        Desired((fresh("3"), want("2"))),
        Observed(active=loaded("1"), running=running("2")),
        Cancel("version '3' is wanted instead"),
    ),
    "a candidate that is nearly ready is let through": (
        Desired((fresh("3"), want("2"))),
        Observed(active=loaded("1"), running=running("2", State.WARMING)),
        None,
    ),
    "a ready version is activated on the way to a newer one": (
        Desired((fresh("3"), want("2"), want("1"))),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "a candidate whose files are gone is cancelled": (
        Desired((want("1"),)),
        Observed(active=loaded("1"), running=running("2")),
        Cancel("its files are no longer in the store"),
    ),
    "a candidate whose files changed is cancelled": (
        Desired((fresh("2", content=9), want("1"))),
        Observed(active=loaded("1"), running=running("2")),
        Cancel("its files have changed"),
    ),
    "a candidate that was put in quarantine is cancelled": (
        Desired((want("2", is_excluded=True), want("1"))),
        Observed(active=loaded("1"), running=running("2", State.WARMING)),
        Cancel("it may not be activated any more"),
    ),
    "the candidate under way is left alone": (
        Desired((want("2"), want("1"))),
        Observed(active=loaded("1"), running=running("2")),
        None,
    ),
    "one standby more than kept warm is retired": (
        Desired((want("3"), want("2"), want("1"))),
        Observed(active=loaded("3"), standbys=(loaded("2"), loaded("1"))),
        Retire(loaded("1")),
    ),
    "with keep_warm 0 the previous version is retired": (
        Desired((want("2"), want("1"))),
        Observed(active=loaded("2"), standbys=(loaded("1"),), keep_warm=0),
        Retire(loaded("1")),
    ),
    "a standby in quarantine is retired": (
        Desired((want("2"), want("1", is_excluded=True))),
        Observed(active=loaded("2"), standbys=(loaded("1", quarantined=True),)),
        Retire(loaded("1", quarantined=True)),
    ),
    "replaced bytes of the active version are retired": (
        Desired((want("2", digest="new"),)),
        Observed(active=loaded("2", "new"), standbys=(loaded("2", "old"),)),
        Retire(loaded("2", "old")),
    ),
    "a version with a label is loaded when the active version is": (
        Desired((want("3"), fresh("1")), labelled=(fresh("1"),)),
        Observed(active=loaded("3")),
        Stage(fresh("1")),
    ),
    "a staged version with a label is evaluated": (
        Desired((want("3"),), labelled=(kept("1"),)),
        Observed(active=loaded("3")),
        Evaluate(kept("1")),
    ),
    "what is to be active is loaded before a version with a label": (
        Desired((fresh("4"), want("3"), fresh("1")), labelled=(fresh("1"),)),
        Observed(active=loaded("3")),
        Stage(fresh("4")),
    ),
    "a candidate for a label makes way for what is to be active": (
        Desired((fresh("4"), want("3"), fresh("1")), labelled=(fresh("1"),)),
        Observed(active=loaded("3"), running=running("1")),
        Cancel("what is to be active is loaded first"),
    ),
    "one that is almost loaded does not": (
        Desired((fresh("4"), want("3"), fresh("1")), labelled=(fresh("1"),)),
        Observed(active=loaded("3"), running=running("1", State.WARMING)),
        None,
    ),
    "a candidate for a label goes on beside the active version": (
        Desired((want("3"), fresh("1")), labelled=(fresh("1"),)),
        Observed(active=loaded("3"), running=running("1")),
        None,
    ),
    "a candidate for a label goes on beside a pinned version": (
        Desired((want("3"), fresh("1")), pin="3", labelled=(fresh("1"),)),
        Observed(active=loaded("3"), running=running("1")),
        None,
    ),
    "a candidate whose label is gone is cancelled": (
        Desired((want("3"), fresh("1"))),
        Observed(active=loaded("3"), running=running("1")),
        Cancel("version '3' is active instead"),
    ),
    "one from the cache, too": (
        Desired((want("3"),)),
        Observed(active=loaded("3"), running=RunningCandidate("1", (), State.LOADING)),
        Cancel("no label names it any more"),
    ),
    "a candidate for a label that was put in quarantine is cancelled": (
        Desired((want("3"),), labelled=(kept("1", is_excluded=True),)),
        Observed(active=loaded("3"), running=RunningCandidate("1", (), State.LOADING)),
        Cancel("it may not be activated any more"),
    ),
    "a version with a label is not activated for that": (
        Desired((want("3"), want("2")), pin="2", labelled=(want("3"),)),
        Observed(active=loaded("2"), standbys=(labelled("3"),)),
        None,
    ),
    "a version with a label that is excluded is not loaded": (
        Desired((want("3"), want("1", is_excluded=True)), labelled=(want("1", is_excluded=True),)),
        Observed(active=loaded("3")),
        None,
    ),
    "one that has failed waits, and the next one is loaded": (
        Desired((want("3"),), labelled=(want("1", not_before=101.0, has_failed=True), fresh("2"))),
        Observed(active=loaded("3")),
        Stage(fresh("2")),
    ),
    "a standby with a label stays, whatever is kept warm": (
        Desired((want("3"),), labelled=(want("1"),)),
        Observed(active=loaded("3"), standbys=(labelled("1"),), keep_warm=0),
        None,
    ),
    "a standby with a label is not one of those kept warm": (
        Desired((want("4"),)),
        Observed(active=loaded("4"), standbys=(labelled("1"), loaded("3"), loaded("2"))),
        Retire(loaded("2")),
    ),
    "replaced bytes of a version with a label are retired": (
        Desired((want("3"),)),
        Observed(active=loaded("3"), standbys=(loaded("1", "old"), labelled("1"))),
        Retire(loaded("1", "old")),
    ),
    "a standby in quarantine is retired, whatever its label": (
        Desired((want("2"), want("1", is_excluded=True))),
        Observed(active=loaded("2"), standbys=(labelled("1", quarantined=True),)),
        Retire(labelled("1", quarantined=True)),
    ),
    "a model that is unloaded keeps no version for its label": (
        Desired((want("2"),), is_unloaded=True, labelled=(want("1"),)),
        Observed(standbys=(labelled("1"),)),
        Retire(labelled("1")),
    ),
    "and loads none": (
        Desired((want("2"),), is_unloaded=True, labelled=(want("1"),)),
        Observed(),
        None,
    ),
    "a released version comes back": (
        Desired((want("2"), want("1"))),
        Observed(active=loaded("1")),
        Stage(want("2")),
    ),
}

ONE_TWO = (want("2"), want("1"))
ARRIVING = Arrival("2", "d2", "1")
SHARED = Observed(active=loaded("1"), standbys=(loaded("2"),), arrival=ARRIVING)
BAKING = Observed(
    active=loaded("2"), standbys=(loaded("1"),), arrival=replace(ARRIVING, has_passed=True, is_baking=True)
)


def gradual(*versions: WantedVersion, **kwargs: object) -> Desired:
    return Desired(versions or ONE_TWO, is_gradual=True, **kwargs)  # type: ignore[arg-type]


ARRIVALS = {
    "a newer version that is ready is introduced": (
        gradual(),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        Introduce(loaded("2")),
    ),
    "other bytes of the active version are introduced": (
        gradual(want("1", digest="other")),
        Observed(active=loaded("1"), standbys=(loaded("1", "other"),)),
        Introduce(loaded("1", "other")),
    ),
    "the first version is activated": (gradual(), Observed(standbys=(loaded("2"),)), Activate(loaded("2"))),
    "a pinned version is activated": (
        gradual(pin="2"),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "an older version is activated when the active one is removed": (
        gradual(want("1")),
        Observed(active=loaded("2"), standbys=(loaded("1"),)),
        Activate(loaded("1")),
    ),
    "a newer version is activated in place of one in quarantine": (
        gradual(want("2"), want("1", is_excluded=True)),
        Observed(active=loaded("1", quarantined=True), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "a newer version is activated in place of one that cannot answer": (
        gradual(),
        Observed(active=loaded("1", lost=True), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "a version on its way is left alone": (gradual(), SHARED, None),
    "a version on its way is no surplus": (gradual(), replace(SHARED, keep_warm=0), None),
    "a standby beside it is": (
        gradual(),
        replace(SHARED, standbys=(loaded("0"), loaded("2")), keep_warm=0),
        Retire(loaded("0")),
    ),
    "a version that has passed is activated": (
        gradual(),
        replace(SHARED, arrival=replace(ARRIVING, has_passed=True)),
        Activate(loaded("2")),
    ),
    "a version on its way takes over when the active one cannot answer any more": (
        gradual(),
        replace(SHARED, active=loaded("1", lost=True)),
        Activate(loaded("2")),
    ),
    "a version on its way that is pinned takes over": (gradual(pin="2"), SHARED, Activate(loaded("2"))),
    "a pin on the active version ends it": (gradual(pin="1"), SHARED, EndArrival("version '1' is pinned")),
    "unloading ends it first": (gradual(is_unloaded=True), SHARED, EndArrival("the model is unloaded")),
    "its quarantine ends it": (
        gradual(want("2", is_excluded=True), want("1")),
        replace(SHARED, standbys=(loaded("2", quarantined=True),)),
        EndArrival("it may not be activated any more"),
    ),
    "the removal of its files ends it": (gradual(want("1")), SHARED, EndArrival("it may not be activated any more")),
    "the loss of its copy ends it": (
        gradual(),
        replace(SHARED, standbys=(loaded("2", lost=True),)),
        EndArrival("it may not be activated any more"),
    ),
    "a newer version that is ready ends it": (
        gradual(want("3"), *ONE_TWO),
        replace(SHARED, standbys=(loaded("3"), loaded("2"))),
        EndArrival("version '3' is wanted instead"),
    ),
    "a newer version that is not ready yet does not": (gradual(want("3"), *ONE_TWO), SHARED, Stage(want("3"))),
    "a newer version that settles does not": (gradual(fresh("3", not_before=101.0), *ONE_TWO), SHARED, None),
    "nor one that is tried again later": (
        gradual(want("3", not_before=101.0, has_failed=True), *ONE_TWO),
        SHARED,
        None,
    ),
    "a version that has passed is activated although a newer one settles": (
        gradual(fresh("3", not_before=101.0), *ONE_TWO),
        replace(SHARED, arrival=replace(ARRIVING, has_passed=True)),
        Activate(loaded("2")),
    ),
    "the version before keeps its part while the new one is active": (gradual(), replace(BAKING, keep_warm=0), None),
    "a pin ends its part": (gradual(pin="2"), BAKING, EndArrival("version '2' is pinned")),
    "a pin on the version before ends its part, too": (
        gradual(pin="1"),
        BAKING,
        EndArrival("version '1' is pinned"),
    ),
    "the quarantine of the version before ends its part": (
        gradual(want("2"), want("1", is_excluded=True)),
        replace(BAKING, standbys=(loaded("1", quarantined=True),)),
        EndArrival("the version before cannot answer any more"),
    ),
    "a newer version ends its part": (
        gradual(want("3"), *ONE_TWO),
        replace(BAKING, standbys=(loaded("3"), loaded("1"))),
        EndArrival("version '3' is wanted instead"),
    ),
    "the quarantine of the new version ends its part": (
        gradual(want("2", is_excluded=True), want("1")),
        replace(BAKING, active=loaded("2", quarantined=True)),
        EndArrival("version '1' is wanted instead"),
    ),
    "when it is stopped no newer version is even evaluated": (
        gradual(want("2", is_staged=True), want("1"), is_stopped=True),
        Observed(active=loaded("1")),
        None,
    ),
    "when it is stopped a newer version that is ready stays a standby": (
        gradual(is_stopped=True),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        None,
    ),
    "when it is stopped a pinned version is activated": (
        gradual(is_stopped=True, pin="2"),
        Observed(active=loaded("1"), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "when it is stopped the active version may still be replaced by one that can answer": (
        gradual(is_stopped=True),
        Observed(active=loaded("1", lost=True), standbys=(loaded("2"),)),
        Activate(loaded("2")),
    ),
    "when it is stopped the first version is loaded": (gradual(is_stopped=True), Observed(), Stage(want("2"))),
}
CASES |= ARRIVALS


@pytest.mark.parametrize("name", CASES)
def test_policy(name: str) -> None:
    """Each case is a sentence and its three values."""
    desired, observed, expected = CASES[name]
    assert choose_action(desired, observed, NOW) == expected


def test_waiting_ends_when_a_version_with_a_label_may_be_tried_again() -> None:
    assert find_wake_time(Desired((), labelled=(fresh("1", not_before=103.0),)), NOW) == 103.0


def test_waiting_ends_at_the_first_moment_that_changes_anything() -> None:
    desired = Desired((fresh("3", not_before=105.0), fresh("2", not_before=103.0), fresh("1", not_before=99.0)))
    assert find_wake_time(desired, NOW) == 103.0
    assert find_wake_time(Desired((fresh("1", not_before=105.0, is_excluded=True),)), NOW) is None


@pytest.mark.parametrize("order", [*permutations("123")], ids="".join)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_order_of_removals_activates_an_older_version_before_they_settle(order: tuple[str, ...], count: int) -> None:
    """Version 3 is active; `count` versions are removed, in any order, each just before the last one has settled."""
    observed = Observed(active=loaded("3"), standbys=(loaded("2"), loaded("1")), keep_warm=2)
    left = ["3", "2", "1"]
    now = NOW
    for version in order[:count]:
        left.remove(version)
        removed_at = now + 1.0 if "3" not in left else 0.0
        desired = Desired(tuple(want(version) for version in left), removed_at=removed_at)
        assert choose_action(desired, observed, now) is None
        now += 0.9
        assert choose_action(desired, observed, now) is None
    assert find_wake_time(desired, now) == (removed_at or None)
    expected = Activate(loaded(left[0])) if left and left[0] != "3" else None
    assert choose_action(desired, observed, now + 1.0) == expected


versions = st.lists(st.integers(1, 9).map(str), unique=True, max_size=5)


@given(
    listed=versions,
    excluded=st.sets(st.integers(1, 9).map(str)),
    pin=st.none() | st.integers(1, 9).map(str),
    keep_warm=st.integers(0, 2),
)
def test_applying_the_policy_ends_in_the_newest_version_that_may_be_served(
    listed: list[str], excluded: set[str], pin: str | None, keep_warm: int
) -> None:
    """Whatever the store holds, following the actions comes to rest, and at the right version."""
    listed.sort(key=order_key, reverse=True)
    known = {version: fresh(version, is_excluded=version in excluded) for version in listed}
    active: LoadedVersion | None = None
    standbys: list[LoadedVersion] = []
    for _ in range(100):
        desired = Desired(tuple(known[version] for version in listed), pin)
        action = choose_action(desired, Observed(active, tuple(standbys), keep_warm=keep_warm), NOW)
        match action:
            case None:
                break
            case Stage(wanted):
                known[wanted.version] = replace(wanted, digest=f"d{wanted.version}", is_staged=True)
            case Evaluate(wanted):
                standbys.append(loaded(wanted.version))
            case Activate(one):
                standbys.remove(one)
                if active:
                    standbys.insert(0, active)
                active = one
            case Retire(one):
                standbys.remove(one)
            case Cancel():
                pytest.fail("nothing is under way")
    else:
        pytest.fail("the policy does not come to rest")
    may = [version for version in listed if version not in excluded]
    may = [version for version in may if version == pin] or may  # a pin that cannot be served falls back
    assert active == (loaded(may[0]) if may else None)
    assert len(standbys) <= keep_warm

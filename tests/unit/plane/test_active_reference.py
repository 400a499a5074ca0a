"""The active reference: read once, replaced whole."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.errors import NothingActive, Unavailable, UnknownModel, UnknownVersion
from serving.domain.version import VersionId
from serving.plane import active_reference
from serving.plane.active_reference import ActiveReference, Label, Role, activate, find, lease, read
from serving.plane.servable import Servable
from tests.fakes import make_model_reference
from tests.unit.plane.test_servable import SIGNATURE


def servable(version: str) -> Servable:
    return Servable(VersionId("m", version, f"sha256:{version}"), SIGNATURE, engine=None)  # type: ignore[arg-type]


def reference(active: Servable | None, *others: Servable) -> ActiveReference:
    return ActiveReference({"m": make_model_reference(active, *others)})


def test_a_lease_is_on_the_active_version_or_on_the_one_that_is_named() -> None:
    one, two = servable("1"), servable("2")
    state = SimpleNamespace(active=reference(two, one))
    with lease(state, "m") as held:
        assert held is two
        assert two.leases == 1
    with lease(state, "m", "1") as held:
        assert held is one
    assert (one.leases, two.leases) == (0, 0)


def test_what_cannot_be_leased_is_said_clearly() -> None:
    state = SimpleNamespace(active=reference(servable("2")))
    with pytest.raises(UnknownModel, match="no model named 'x'"):
        lease(state, "x")
    with pytest.raises(UnknownVersion, match=r"'9' of 'm' is not loaded \(loaded: 2\)"):
        lease(state, "m", "9")
    with pytest.raises(NothingActive):
        lease(SimpleNamespace(active=reference(None)), "m")


def test_a_label_is_the_version_that_an_operator_has_named() -> None:
    one, two = servable("1"), servable("2")
    known = make_model_reference(two, one, old=one, stable=one, coming=None)
    state = SimpleNamespace(active=ActiveReference({"m": known}))
    assert find(state, "m", Label("old")) is one
    assert find(state, "m", Label("stable", Role.ACTIVE)) is one, "an operator's label comes first"
    with pytest.raises(UnknownVersion, match=r"'m' has no label 'new' \(it has: old, stable, coming\)"):
        find(state, "m", Label("new"))
    for otherwise in (None, "2", Role.ACTIVE):
        with pytest.raises(
            Unavailable, match=r"label 'coming' of 'm' names a version that is not loaded; GET /models/m"
        ):
            find(state, "m", Label("coming", otherwise))


def test_a_label_that_no_operator_has_set_is_what_the_caller_says() -> None:
    one, two = servable("1"), servable("2")
    state = SimpleNamespace(active=reference(two, one))
    assert find(state, "m", Label("stable", Role.ACTIVE)) is two
    assert find(state, "m", Label("previous", Role.PREVIOUS)) is one
    assert find(state, "m", Label("1", "1")) is one
    with pytest.raises(UnknownVersion, match=r"'m' has no label '9' \(it has: none\)"):
        find(state, "m", Label("9", "9"))
    with pytest.raises(NothingActive):
        find(SimpleNamespace(active=reference(None)), "m", Label("stable", Role.ACTIVE))


def test_a_lease_outlives_a_swap() -> None:
    """Invariant 1: what a request has read does not change under it."""
    state = SimpleNamespace(active=reference(servable("1")))
    held = lease(state, "m")
    activate(state, reference(servable("2")))
    assert held.servable.id.version == "1"
    with lease(state, "m") as other:
        assert other.id.version == "2"


class Word(Sequence[int]):
    """The committed generation; before it is read for the n-th time, something may happen, as on another thread."""

    def __init__(self, generation: int, **events: Callable[[], None]) -> None:
        self.generation, self.events, self.reads = generation, events, 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: Any) -> Any:
        assert item == 0
        self.reads += 1
        self.events.get(f"read_{self.reads}", lambda: None)()
        return self.generation


def at(generation: int, word: Word) -> ActiveReference:
    return ActiveReference(reference(servable(str(generation))).models, generation, word)


def test_a_commit_holds_before_this_process_is_told() -> None:
    word = Word(1)
    state = SimpleNamespace(active=at(1, word), prepared=at(2, word))
    assert read(state) is state.active
    word.generation = 2
    assert read(state) is state.prepared
    assert state.active.generation == 1, "only the plane replaces it: a reader may be late"


def test_what_is_prepared_next_does_not_answer_though_a_commit_and_the_next_plan_come_in_between() -> None:
    """A reader finds the word changed; before it goes on, its plane is told so, and prepares one plan more."""

    def told() -> None:
        state.active, state.prepared = at(2, word), at(3, word)

    word = Word(2, read_2=told)
    state = SimpleNamespace(active=at(1, word), prepared=at(2, word))
    assert read(state).generation == 2
    word = Word(2, read_1=told)
    state = SimpleNamespace(active=at(1, word), prepared=at(2, word))
    assert read(state).generation == 2


def test_a_worker_that_has_not_prepared_what_is_committed_gives_no_older_answer() -> None:
    def prepared_after_all() -> None:
        state.prepared = at(3, word)

    word = Word(3, read_8=prepared_after_all)
    state = SimpleNamespace(active=at(1, word), prepared=at(2, word))
    assert read(state).generation == 3
    state.prepared = at(2, word)
    with pytest.raises(Unavailable):
        read(state)


def test_activation_is_one_assignment() -> None:
    """Invariant 3: it waits for nothing and holds no lock."""
    function = ast.parse(inspect.getsource(active_reference.activate)).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = [node for node in function.body if not isinstance(node, ast.Expr)]
    assert len(body) == 1
    assert isinstance(body[0], ast.Assign)


def test_a_request_reads_the_reference_once() -> None:
    """Invariant 1: reading it twice could name one version and ask another."""

    class State:
        reads = 0

        @property
        def active(self) -> ActiveReference:
            self.reads += 1
            return reference(servable("1"))

    state = State()
    lease(state, "m")  # type: ignore[arg-type]
    assert state.reads == 1


def test_a_process_that_control_goes_on_without_answers_nothing() -> None:
    """What it has is older than what is committed, and so is what it has prepared."""
    word = [1]
    old = ActiveReference({"m": make_model_reference(servable("1"))}, 1, word)
    prepared = ActiveReference({"m": make_model_reference(servable("2"))}, 2, word)
    state = SimpleNamespace(active=old, prepared=prepared)
    assert active_reference.read(state) is old
    word[0] = 3
    with pytest.raises(Unavailable, match="does not know yet which versions answer now"):
        lease(state, "m")
    assert state.active is old
    word[0] = 2
    assert active_reference.read(state) is prepared

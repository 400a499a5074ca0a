"""The active reference: read once, replaced whole."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace

import pytest

from serving.domain.errors import NothingActive, Unavailable, UnknownModel, UnknownVersion
from serving.domain.version import VersionId
from serving.plane import active_reference
from serving.plane.active_reference import ActiveReference, activate, lease
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


def test_a_lease_outlives_a_swap() -> None:
    """Invariant 1: what a request has read does not change under it."""
    state = SimpleNamespace(active=reference(servable("1")))
    held = lease(state, "m")
    activate(state, reference(servable("2")))
    assert held.servable.id.version == "1"
    with lease(state, "m") as other:
        assert other.id.version == "2"


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

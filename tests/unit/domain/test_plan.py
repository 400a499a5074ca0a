"""Values between control and planes: placements only of what has passed, plans that only grow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from serving.domain import plan as plans
from serving.domain.compiled_form import Compilation, Graph, Guard, RunBounds
from serving.domain.plan import (
    Commit,
    Compiled,
    Drained,
    Draining,
    Hosted,
    HostGone,
    Load,
    Loaded,
    LoadFailed,
    NoRoom,
    NotReady,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Route,
    Split,
    Unload,
    place,
)
from serving.domain.report import CandidateReport, Evaluation, GateName, GateResult, Verdict
from serving.domain.signature import Signature
from serving.domain.version import VersionId

ONE, TWO = VersionId("m", "1", "sha256:00"), VersionId("m", "2", "sha256:11")
SIGNATURE = Signature(features=(), methods=("predict",))
BOUNDS = RunBounds(
    rows=10, row_bytes=1, fixed_bytes=1, row_texts=0, fixed_texts=0,
    answer_bytes={"predict": 8}, seconds={"predict": (1e-6, 1e-7)}, session_bytes=1 << 20,
)  # fmt: skip
COMPILED = Compilation(engine="onnx", reason="proved", bounds=BOUNDS)


def report(
    *, refused: str | None = None, upto: GateName = GateName.WARM_UP, signature: Any = SIGNATURE, **more: Any
) -> CandidateReport:
    """Return the report of a candidate that has passed the gates up to `upto`, or that `refused` has refused."""
    names = list(GateName)[: list(GateName).index(upto) + 1]
    gates = tuple(
        GateResult(gate=name, verdict=Verdict.REFUSED if name == refused else Verdict.PASSED, evidence="seen")
        for name in names
    )
    return CandidateReport(gates=gates, signature=signature, **more)


@pytest.mark.parametrize(
    "bad",
    [report(refused="golden"), report(upto=GateName.BUDGET), report(signature=None), CandidateReport(gates=())],
    ids=["refused", "not warm", "never loaded", "nothing asked"],
)
def test_only_a_validated_warm_version_has_a_placement(bad: CandidateReport) -> None:
    """Invariant 2: there is no other way to what a plane loads."""
    with pytest.raises(NotReady):
        place(Evaluation(bad), 100)
    assert isinstance(place(Evaluation(report()), 100), Hosted)


def test_a_compiled_form_is_placed_with_its_bounds_and_not_without() -> None:
    graphs = (Graph(b"graph", {"predict": ("y",)}),)
    placed = place(Evaluation(report(engine="onnx", compilation=COMPILED), graphs), 100)
    assert placed == Compiled(SIGNATURE, graphs, Guard(), BOUNDS)
    boundless = report(engine="onnx", compilation=COMPILED.model_copy(update={"bounds": None}))
    with pytest.raises(NotReady, match="without a proof or bounds"):
        place(Evaluation(boundless, graphs), 100)


def test_requests_have_rows_together_only_where_the_report_lets_them_be_merged() -> None:
    gates = report().gates
    merged = place(Evaluation(report(engine="sklearn")), 100)
    assert merged == Hosted(SIGNATURE, "sklearn", 100)
    warned = tuple(
        gate.model_copy(update={"verdict": Verdict.WARNED}) if gate.gate == "batching" else gate for gate in gates
    )
    alone = CandidateReport(gates=warned, signature=SIGNATURE, engine="sklearn")
    assert not alone.may_batch
    assert place(Evaluation(alone), 100) == Hosted(SIGNATURE, "sklearn", 1)


def test_a_plan_grows_and_the_one_before_stays_as_it_is() -> None:
    first = Plan().with_route("m", Route(ONE, (ONE,)))
    second = first.with_route("n", Route())
    third = second.with_route("m", None)
    assert [each.generation for each in (first, second, third)] == [1, 2, 3]
    assert dict(first.routes) == {"m": Route(ONE, (ONE,))}
    assert set(second.routes) == {"m", "n"}
    assert set(third.routes) == {"n"}
    assert second.routes["m"] is first.routes["m"]


MESSAGES = (
    Load(ONE, Hosted(SIGNATURE, "sklearn", 5), 3),
    ReplaceHost(ONE, 4),
    Prepare(Plan().with_route("m", Route(TWO, (TWO, ONE)))),
    Commit(7),
    Unload(ONE),
    ReportOutage(ONE, "no memory", 3),
    Loaded(ONE),
    LoadFailed(ONE, "no"),
    NoRoom(ONE, "it takes 5 MB"),
    Draining(ONE, 2),
    Drained(ONE, "OSError()"),
    HostGone(ONE, 3, "broke the protocol", has_answered=True),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_command_and_fact_can_be_written_down(message: Any) -> None:
    """Invariant 14: values only, so that a plane may be another process."""
    written = json.dumps(_plain(message))
    assert _read(type(message), json.loads(written)) == message


def test_no_command_and_no_fact_is_left_out() -> None:
    values = {each for each in vars(plans).values() if dataclasses.is_dataclass(each)}
    own = {each for each in values if each.__module__ == plans.__name__}
    assert own - {Compiled, Hosted, Split, Route, Plan} == {type(message) for message in MESSAGES}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _read(kind: Any, written: Any) -> Any:
    """Make a value of what was written, by its type."""
    if kind == Compiled | Hosted:
        kind = Hosted
    if kind == VersionId | None and written is not None:
        kind = VersionId
    found = written
    if dataclasses.is_dataclass(kind):
        types = get_type_hints(kind)
        made: Any = kind
        found = made(**{name: _read(types[name], each) for name, each in written.items()})
    elif kind is Signature:
        found = Signature.model_validate(written)
    elif get_origin(kind) is tuple:
        found = tuple(_read(get_args(kind)[0], each) for each in written)
    elif get_origin(kind) is Mapping:
        found = {name: _read(get_args(kind)[1], each) for name, each in written.items()}
    return found

"""Servables exist only with a passing report; leases keep them until the last request is done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.domain.report import GATE_NAMES, CandidateReport, GateResult, Verdict
from serving.domain.signature import Signature
from serving.domain.version import VersionId
from serving.plane.servable import NotReady, Servable

ID = VersionId("m", "1", "sha256:00")
SIGNATURE = Signature(features=(), methods=("predict",))


def report(*, refused: str | None = None, upto: str = GATE_NAMES[-1], signature: Any = SIGNATURE) -> CandidateReport:
    names = GATE_NAMES[: GATE_NAMES.index(upto) + 1]
    gates = tuple(
        GateResult(gate=name, verdict=Verdict.REFUSED if name == refused else Verdict.PASSED, evidence="seen")
        for name in names
    )
    return CandidateReport(gates=gates, signature=signature)


@pytest.mark.parametrize(
    "bad",
    [report(refused="golden"), report(upto="budget"), report(signature=None), CandidateReport(gates=())],
    ids=["refused", "not warm", "never loaded", "nothing asked"],
)
def test_only_a_validated_warm_version_can_become_a_servable(bad: CandidateReport) -> None:
    """Invariant 2: there is no other way to make the one type that can be activated."""
    with pytest.raises(NotReady):
        Servable(ID, bad, engine=None)  # type: ignore[arg-type]
    Servable(ID, report(), engine=None)  # type: ignore[arg-type]


def test_draining_waits_for_the_last_lease() -> None:
    """Invariant 4: teardown comes after the last request, however many there are."""

    async def scenario() -> list[str]:
        servable = Servable(ID, report(), engine=None)  # type: ignore[arg-type]
        story = []
        first, second = servable.lease(), servable.lease()
        assert servable.leases == 2

        async def drain() -> None:
            await servable.drain()
            story.append("drained")

        draining = asyncio.ensure_future(drain())
        await asyncio.sleep(0)
        first.release()
        first.release()  # twice is harmless
        await asyncio.sleep(0)
        assert servable.leases == 1
        story.append("one left")
        with second:
            pass
        await draining
        await servable.drain()  # nothing left to wait for
        return story

    assert asyncio.run(scenario()) == ["one left", "drained"]

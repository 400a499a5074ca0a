"""Leases keep a servable until the last request is done."""

from __future__ import annotations

import asyncio

from serving.domain.signature import Signature
from serving.domain.version import VersionId
from serving.plane.servable import Servable

ID = VersionId("m", "1", "sha256:00")
SIGNATURE = Signature(features=(), methods=("predict",))


def test_draining_waits_for_the_last_lease() -> None:
    """Invariant 4: teardown comes after the last request, however many there are."""

    async def scenario() -> list[str]:
        servable = Servable(ID, SIGNATURE, engine=None)  # type: ignore[arg-type]
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

"""What the new version of a shadow gets is what the active one got, by whatever way and in whatever form it came."""

from __future__ import annotations

import asyncio
import io
from types import MappingProxyType
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from serving.domain.errors import DeadlineExceeded, ModelFailed, Overloaded
from serving.domain.plan import Split
from serving.domain.rollout import BadExample
from serving.plane import shadow
from serving.plane.active_reference import ActiveReference, ModelReference
from serving.plane.served_split import ServedSplit
from serving.telemetry.split_counts import SplitRow
from tests.fakes import FakeEngine, make_app, make_client, make_servable, run
from tests.unit.api.test_shortcut import JSON, PATH, ROW, Immediate
from tests.unit.plane.host_stub import until

IRIS = [5.1, 3.5, 1.4, 0.2]
LARGE = orjson.dumps({"instances": [IRIS] * 10_000})


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop no copy because the machine is slow."""
    monkeypatch.setattr(shadow, "MOST_WAIT_SECONDS", 60.0)


class Scene:
    """The application, in which version 4 of `iris` is the shadow of version 3."""

    def __init__(self, old: FakeEngine | None = None, sticky: str | None = None) -> None:
        self.old, self.new = old or FakeEngine(), FakeEngine()
        active, arriving = make_servable("iris", "3", self.old), make_servable("iris", "4", self.new)
        split = Split(5, arriving.id, active.id, 0.0, is_shadow=True, sticky=sticky)
        served = ServedSplit(split, arriving, active)
        model = ModelReference(active, MappingProxyType({"3": active, "4": arriving}), served)
        self.app = make_app(ActiveReference(MappingProxyType({"iris": model})))
        self.services = self.app.state.services
        self.metrics = self.services.metrics

    async def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        async with make_client(self.app) as client:
            return await client.post(path, content=content, headers=headers)

    async def wait_for_pair(self) -> tuple[int, ...]:
        """Wait until a pair is counted; return what is counted."""
        await until(lambda: self.metrics.read_splits().get(("iris", 5), SplitRow()).answers.new)
        return tuple(self.metrics.read_splits().get(("iris", 5), SplitRow()).answers[:4])


def npy(rows: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array(rows))
    return content.getvalue()


TENSOR = {"name": "x", "shape": [2, 4], "datatype": "FP64", "data": IRIS * 2}


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        (PATH, "application/json", ROW),
        (PATH, "application/json", LARGE),
        (PATH, "text/csv", b"5.1,3.5,1.4,0.2\n"),
        (PATH, "application/x-npy", npy([IRIS] * 3)),
        ("/v2/models/iris/infer", "application/json", orjson.dumps({"inputs": [TENSOR]})),
        ("/v1/models/iris:predict", "application/json", orjson.dumps({"instances": [IRIS]})),
        ("/models/iris/invocations", "application/json", orjson.dumps({"inputs": [IRIS]})),
        ("/models/iris/invocations", "application/json", orjson.dumps({"dataframe_split": {"data": [IRIS]}})),
    ],
)
def test_both_versions_get_the_same_rows(path: str, kind: str, body: bytes) -> None:
    async def scenario() -> None:
        scene = Scene()
        response = await scene.post(path, body, **{"content-type": kind})
        assert response.status_code == 200
        assert await scene.wait_for_pair() == (1, 0, 1, 0)
        (asked,), (copied,) = scene.old.batches, scene.new.batches
        assert asked.rows == copied.rows
        np.testing.assert_array_equal(asked.matrix, copied.matrix)  # type: ignore[arg-type]
        (only,) = scene.metrics.read_splits().get(("iris", 5), SplitRow()).shadow.to_report().differences
        assert (only.rows, only.differing) == (asked.rows, 0)

    run(scenario())


def test_what_is_answered_without_waiting_is_copied_too() -> None:
    async def scenario() -> None:
        scene = Scene(Immediate())
        found = scene.services.shortcut.respond(PATH, JSON, ROW)
        assert found is not None
        assert b"x-model-version: 3" in found[0]
        assert not scene.new.batches
        assert await scene.wait_for_pair() == (1, 0, 1, 0)

    run(scenario())


def test_an_answer_that_fails_on_the_way_out_was_an_answer() -> None:
    async def scenario() -> None:
        scene = Scene()
        for engine in (scene.old, scene.new):
            engine.rule = lambda _method, batch: [{1, 2}] * batch.rows
        assert (await scene.post(PATH, ROW, **{"content-type": "application/json"})).status_code == 500
        assert await scene.wait_for_pair() == (1, 0, 1, 0)

    run(scenario())


def test_an_active_version_that_fails_where_the_new_one_answers_is_the_worse_one() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.old.error = ModelFailed("no")
        assert (await scene.post(PATH, ROW, **{"content-type": "application/json"})).status_code == 500
        assert await scene.wait_for_pair() == (1, 0, 1, 1)
        assert scene.metrics.read_splits().get(("iris", 5), SplitRow()).shadow.failed_old == 1

    run(scenario())


def test_a_failure_of_the_new_version_is_shown_without_values_of_rows() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.new.error = ModelFailed("'x1' is 'secret', not 3.25")
        assert (await scene.post(PATH, ROW, **{"content-type": "application/json"})).status_code == 200
        assert await scene.wait_for_pair() == (1, 1, 1, 0)
        shown = BadExample(status=500, detail="'x1' is ..., not ...")
        assert scene.metrics.read_examples("iris", 5) == (shown,)

    run(scenario())


@pytest.mark.parametrize("error", [Overloaded("busy"), DeadlineExceeded("late"), None])
def test_what_says_nothing_about_a_version_is_not_copied(error: Exception | None) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.old.error = error
        body = b"no JSON" if error is None else ROW
        assert (await scene.post(PATH, body, **{"content-type": "application/json"})).status_code >= 400
        await scene.post("/models/iris/versions/3/predict", ROW)
        scene.old.error = None
        assert (await scene.post(PATH, ROW, **{"content-type": "application/json"})).status_code == 200
        await scene.wait_for_pair()
        assert len(scene.new.batches) == 1

    run(scenario())


def test_a_client_counts_by_its_header_once_a_second() -> None:
    async def scenario() -> None:
        scene = Scene(sticky="header:X-User")
        scene.metrics._splits._now = lambda: 7.0
        scene.new.error = ModelFailed("no")
        for user in ("ada", "ada", "bob"):
            await scene.post(PATH, ROW, **{"content-type": "application/json", "x-user": user})
        await until(lambda: scene.metrics.read_splits().get(("iris", 5), SplitRow()).shadow.pairs == 3)
        assert scene.metrics.read_splits().get(("iris", 5), SplitRow()).answers.new_bad == 2

    run(scenario())


def test_nothing_is_computed_while_requests_are_answered() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.old.gate = asyncio.Event()
        waiting = [asyncio.create_task(scene.post(PATH, ROW, **{"content-type": "application/json"})) for _ in range(2)]
        await until(lambda: len(scene.old.batches) == 2)
        assert scene.services.predictor._shadow.under_way == 2
        waiting.pop().cancel()
        scene.old.gate.set()
        await asyncio.gather(*waiting)
        await scene.wait_for_pair()
        assert scene.services.predictor._shadow.under_way == 0

    run(scenario())

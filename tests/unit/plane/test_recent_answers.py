"""The plane samples what the active version answers, and has it answer that again for a candidate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from serving.domain.errors import HostLost, InvalidInput, ModelFailed
from serving.domain.plan import Hosted, Load
from serving.domain.recent_rows import RecentRows
from serving.domain.signature import Signature
from serving.plane import plane as planes
from serving.plane import recent_answers
from serving.plane.prediction import PredictRequest, RequestLimits, execute
from serving.plane.recent_answers import MOST_VALUES, MOST_WIDTH, PIECE_ROWS
from serving.plane.servable import Servable
from serving.rows.batch import Batch
from serving.settings import ReplaySettings
from tests.fakes import MIXED, NUMBERS
from tests.unit.plane.test_plane import ONE, TWO, Engine, Scene

Scenario = Callable[[Scene], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    monkeypatch.setattr(planes, "HostedEngine", Engine)
    monkeypatch.setattr(recent_answers, "MOST_SECONDS", 60.0)  # else time may leave rows out
    monkeypatch.setattr(planes, "SPREAD_SECONDS", 60.0)

    def play_scenario(scenario: Scenario) -> None:
        async def run() -> None:
            await scenario(Scene())

        asyncio.run(run())

    return play_scenario


async def load(scene: Scene, key: Any = ONE, signature: Signature = NUMBERS) -> None:
    await asyncio.to_thread(scene.plane.load, Load(key, Hosted(signature, "sklearn", 8), 1), "a host")


async def answer(scene: Scene, rows: list[Any], version: Any = ONE, method: str | None = None) -> None:
    servable = servable_of(scene, version)
    found = await execute(servable, PredictRequest(rows, method), RequestLimits())
    servable.wait -= found.rows
    if servable.wait < 0:
        servable.sample(found.method, found.batch, found.prediction)


def servable_of(scene: Scene, version: Any = ONE) -> Servable:
    return scene.plane._servables[version]


async def read(scene: Scene, version: Any = ONE) -> RecentRows | None:
    return await asyncio.to_thread(scene.plane.sample, version)


def join(recent: RecentRows | None, method: str = "predict") -> list[tuple[Any, Any]]:
    assert recent is not None
    return [pair for piece in recent.pieces for pair in zip(piece.rows, piece.answers[method], strict=True)]


PETALS = [[0.0, 0.0, 0.0, number / 10] for number in range(40)]


async def answer_petals(scene: Scene) -> Any:
    """Let version 1 be active and answer all petals; return its engine."""
    await load(scene)
    scene.commit(ONE, ONE)
    await answer(scene, PETALS)
    return servable_of(scene).engine


def test_recent_rows_come_with_what_the_active_version_says_to_them(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        scene.commit(ONE, ONE)
        assert await read(scene) is None, "no row yet"
        for row in PETALS:
            await answer(scene, [row], method="predict_proba")
        recent = await read(scene)
        labels = sorted((row[3], label) for row, label in join(recent))
        assert labels == [(row[3], int(np.digitize(row[3], [0.8, 1.75]))) for row in PETALS]
        assert all(sum(values) == pytest.approx(1.0) for _, values in join(recent, "predict_proba"))
        assert recent is not None
        assert (recent.version, recent.count) == ("1", 40)
        assert repr(recent.pieces[0]) == "AnsweredRows()", "no row in a text"

    play(scenario)


def test_the_sample_goes_on_over_a_swap_and_only_the_active_version_feeds_it(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        await load(scene, TWO)
        scene.commit(ONE, ONE, TWO)
        await answer(scene, PETALS[:3])
        await answer(scene, PETALS[3:5], TWO)
        scene.commit(TWO, TWO, ONE)
        await answer(scene, PETALS[5:6], TWO)
        await answer(scene, PETALS[6:7], ONE)
        assert sorted(row[3] for row, _ in join(await read(scene, TWO))) == [0.0, 0.1, 0.2, 0.5]
        assert await read(scene, ONE) is None

    play(scenario)


def test_other_columns_begin_another_sample(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        await load(scene, TWO, MIXED)
        scene.commit(ONE, ONE, TWO)
        await answer(scene, PETALS)
        scene.commit(TWO, TWO, ONE)
        sample = servable_of(scene, TWO).row_sample
        assert sample is not None
        assert sample.items == []
        servable_of(scene, TWO).engine.rule = lambda _, batch: [f"{town}!" for town in batch.columns[1]]  # type: ignore[attr-defined]
        await answer(scene, [[1.0, "Lima", True], [None, "Oslo", None]], TWO)
        assert sorted(join(await read(scene, TWO)), key=str) == [
            ([1.0, "Lima", True], "Lima!"),
            ([None, "Oslo", None], "Oslo!"),
        ]

    play(scenario)


def test_rows_are_gone_with_their_model(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        scene.commit(ONE, ONE)
        await answer(scene, PETALS)
        scene.commit(None)
        assert scene.plane._row_samples == {}

    play(scenario)


def test_no_row_is_kept_where_the_setting_says_so(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        scene.plane._replay = ReplaySettings(rows=0)
        await load(scene)
        scene.commit(ONE, ONE)
        await answer(scene, PETALS)
        assert servable_of(scene).row_sample is None
        assert await read(scene) is None

    play(scenario)


@pytest.mark.parametrize("error", [InvalidInput("no"), ModelFailed("no")])
def test_rows_that_are_refused_now_are_left_out(error: Exception, play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        engine = await answer_petals(scene)
        usual = engine.rule

        def refuse(method: str, batch: Batch) -> Any:
            assert batch.matrix is not None
            if (batch.matrix[:, 3] > 3).any():
                raise error
            return usual(method, batch)

        engine.rule = refuse
        assert sorted(row[3] for row, _ in join(await read(scene))) == [row[3] for row in PETALS[:31]]

    play(scenario)


def test_nothing_comes_of_a_version_that_cannot_answer(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        engine = await answer_petals(scene)
        engine.error = HostLost("gone")
        assert await read(scene) is None

    play(scenario)


def test_a_method_that_fails_is_left_out(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        engine = await answer_petals(scene)
        usual = engine.rule

        def refuse(method: str, batch: Batch) -> Any:
            if method == "predict_proba":
                raise ModelFailed("no")
            return usual(method, batch)

        engine.rule = refuse
        recent = await read(scene)
        assert recent is not None
        assert recent.count == 40
        assert {method for piece in recent.pieces for method in piece.answers} == {"predict"}

    play(scenario)


def test_answers_are_bounded(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        scene.commit(ONE, ONE)
        for row in PETALS * 10:
            await answer(scene, [row])
        engine: Any = servable_of(scene).engine
        engine.rule = lambda _, batch: np.zeros((batch.rows, MOST_WIDTH))
        recent = await read(scene)
        assert recent is not None
        room = MOST_VALUES // MOST_WIDTH // 2
        assert room - PIECE_ROWS < recent.count <= room, "a piece for which there is no room is left out"
        engine.rule = lambda _, batch: np.zeros((batch.rows, MOST_WIDTH + 1))
        assert {label for _, label in join(await read(scene))} == {None}, "of wide answers, only that there are some"

    play(scenario)


def test_how_the_answers_of_each_version_are_spread(play: Callable[[Scenario], None]) -> None:
    async def scenario(scene: Scene) -> None:
        await load(scene)
        await load(scene, TWO)
        scene.commit(ONE, ONE, TWO)
        await answer(scene, PETALS)
        await answer(scene, PETALS[:5], TWO)
        await answer(scene, PETALS, TWO, "predict_proba")
        spreads = await asyncio.to_thread(scene.plane.spreads, "m")
        assert {version: spread.answers for version, spread in spreads.items()} == {"1": 40, "2": 5}
        assert spreads["1"].outputs[0].labels == {"0": 8, "1": 10, "2": 22}
        assert await asyncio.to_thread(scene.plane.spreads, "other") == {}

    play(scenario)

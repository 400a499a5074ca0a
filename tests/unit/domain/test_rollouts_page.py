"""docs/rollouts.md: its tables are what the judge needs, and its settings exist."""

from __future__ import annotations

import re

from benchmarks.judge_power import BEGIN, BOUNDS, END, PAGE, write_tables
from serving.domain.judge import BETTER, WORSE, JudgeBounds
from serving.settings import RolloutSettings


def test_the_tables_are_what_the_script_says() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == write_tables()


def test_they_are_of_the_defaults() -> None:
    defaults = RolloutSettings()
    assert JudgeBounds(defaults.alpha, defaults.tolerance, defaults.margin, defaults.acceptable) == BOUNDS
    said = " ".join(PAGE.read_text().split())
    assert all(
        f"`{name} = {getattr(BOUNDS, name):g}`" in said for name in ("alpha", "tolerance", "margin", "acceptable")
    )


def test_the_alternatives_shown_are_those_of_the_judge() -> None:
    text = PAGE.read_text()
    for values in (WORSE, BETTER):
        assert f"{{{', '.join(f'{value:g}' for value in values)}}}" in text


def test_every_setting_of_a_rollout_is_there() -> None:
    named = set(re.findall(r"`(\w+)", PAGE.read_text()))
    assert set(RolloutSettings.model_fields) <= named

"""Which compiled forms the workers have memory for: decided by sizes alone, not by who came when."""

from __future__ import annotations

import pytest

from serving.domain.graph_budget import HOST_BYTES, MB, GraphBudget
from serving.domain.version import VersionId

BUDGET = GraphBudget(total_bytes=1000 * MB, workers=4, standbys=1)


def version(model: str, name: str) -> VersionId:
    return VersionId(model, name, f"sha256:{name}")


def test_a_form_is_counted_for_each_worker_and_each_standby() -> None:
    """4 workers with an active version and a standby each: 8 copies of 125 MB are 1000 MB."""
    assert BUDGET.why_no_room(version("m", "1"), 125 * MB, {}) is None
    reason = BUDGET.why_no_room(version("m", "1"), 125 * MB + 1, {})
    assert reason is not None
    assert "it takes 125 MB in each of 4 workers" in reason
    assert "as much for each standby (store.keep_warm = 1): 1000 MB" in reason
    assert "other models take 0 MB of the 1000 MB there are" in reason
    assert "raise engine.workers_mb" in reason


def test_without_standbys_a_model_has_one_copy_in_each_worker() -> None:
    budget = GraphBudget(1000 * MB, workers=4, standbys=0)
    assert budget.why_no_room(version("m", "1"), 250 * MB, {}) is None
    reason = budget.why_no_room(version("m", "1"), 251 * MB, {})
    assert reason is not None
    assert "standby (" not in reason


def test_other_models_take_their_part() -> None:
    loaded = {version("other", "1"): 25 * MB}
    assert BUDGET.why_no_room(version("m", "1"), 100 * MB, loaded) is None
    reason = BUDGET.why_no_room(version("m", "1"), 101 * MB, loaded)
    assert reason is not None
    assert "other models take 200 MB of the 1000 MB" in reason


@pytest.mark.parametrize("before", [["1"], ["1", "2"], ["1", "2", "3"]])
def test_the_next_version_is_decided_like_the_first_whatever_is_loaded_of_its_model(before: list[str]) -> None:
    loaded = {version("m", name): 125 * MB for name in before}
    assert BUDGET.why_no_room(version("m", "4"), 125 * MB, loaded) is None
    assert BUDGET.why_no_room(version("m", "4"), 126 * MB, loaded) is not None


def test_of_another_model_the_largest_version_counts_once() -> None:
    loaded = {version("other", "1"): 10 * MB, version("other", "2"): 25 * MB}
    assert BUDGET.why_no_room(version("m", "1"), 100 * MB, loaded) is None


def test_a_form_that_takes_less_than_a_host_is_always_compiled() -> None:
    none = GraphBudget(0, workers=4, standbys=1)
    assert none.why_no_room(version("m", "1"), HOST_BYTES // 4, {}) is None
    assert none.why_no_room(version("m", "1"), HOST_BYTES // 4 + 1, {}) is not None

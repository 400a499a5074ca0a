"""Who answers while requests are shared between two versions."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from serving.domain.plan import Split
from serving.domain.version import VersionId
from serving.plane.served_split import ServedSplit
from tests.fakes import make_servable

OLD, NEW = make_servable("m", "1"), make_servable("m", "2")
KEYS = [f"client-{number}".encode() for number in range(4000)]


def split(share: float, **fields: object) -> ServedSplit:
    return ServedSplit(Split(1, NEW.id, OLD.id, share, **fields), NEW, OLD)  # type: ignore[arg-type]


def new_ones(served: ServedSplit) -> set[bytes]:
    return {key for key in KEYS if served.choose(key) is NEW}


def assert_binomial(hits: int, tries: int, share: float) -> None:
    """Check that so many hits are what chance gives, within five standard deviations."""
    assert abs(hits - tries * share) <= 5 * math.sqrt(tries * share * (1 - share))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.95])
def test_chance_and_keys_give_the_new_version_its_share(share: float) -> None:
    random.seed(17)
    served = split(share)
    assert_binomial(sum(served.choose(None) is NEW for _ in range(20_000)), 20_000, share)
    assert_binomial(len(new_ones(served)), len(KEYS), share)


def test_a_client_that_has_come_to_the_new_version_stays_while_the_share_grows() -> None:
    shares = [new_ones(split(share)) for share in (0.05, 0.25, 0.5, 0.95)]
    for fewer, more in itertools.pairwise(shares):
        assert fewer < more


def test_the_same_key_gets_the_same_version_each_time_and_in_each_process() -> None:
    served, other = split(0.5), split(0.5)
    assert all(served.choose(key) is other.choose(key) for key in KEYS)
    assert [served.choose(key) is NEW for key in (b"", b"a", b"b", b"c")] == [True, False, False, False]


def test_another_rollout_begins_with_other_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_ones(split(0.2))
    other = make_servable("m", "2")
    other.id = VersionId("m", "2", "sha256:" + "7" * 64)
    served = ServedSplit(Split(2, other.id, OLD.id, 0.2), other, OLD)
    second = {key for key in KEYS if served.choose(key) is other}
    assert_binomial(len(first & second), len(first), 0.2)


def test_in_the_shadow_the_old_version_answers_everything() -> None:
    served = split(0.0, is_shadow=True)
    assert not new_ones(served)
    assert served.choose(None) is OLD


@pytest.mark.parametrize(
    ("sticky", "header", "column"),
    [(None, None, None), ("header:X-User", b"x-user", None), ("field:header:user", None, "header:user")],
)
def test_what_says_who_the_client_is(sticky: str | None, header: bytes | None, column: str | None) -> None:
    served = split(0.5, sticky=sticky)
    assert (served.header, served.column) == (header, column)

"""Names, their natural order, and digests."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.version import RESERVED, VersionId, digest_of, order_key, why_not_a_name

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("10", "9"),
        ("v10", "v9"),
        ("v2", "1"),
        ("1.10", "1.9"),
        ("1.9.1", "1.9"),
        ("2026-11-20", "2026-9-1"),
        ("2026-11-20T08", "2026-11-20"),
        ("20261120T080001Z", "20261120T080000Z"),
        ("rc2", "rc1"),
        ("1-beta", "1-alpha"),
        ("1", "latest"),
        ("9" * 100, "9" * 99),
    ],
)
def test_versions_order_as_people_read_them(newer: str, older: str) -> None:
    assert order_key(newer) > order_key(older)


@pytest.mark.parametrize(
    "equal", [("1", "01", "v1", "V1", "v01"), ("1.10", "1-10", "1_10", "v1.10"), ("rc1", "RC1", "rc-1", "rc01")]
)
def test_some_spellings_are_equal(equal: tuple[str, ...]) -> None:
    assert len({order_key(name) for name in equal}) == 1


def test_a_v_without_a_digit_is_a_letter() -> None:
    assert order_key("va") != order_key("a")
    assert order_key("v") != order_key("")


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_order_by_value(first: int, second: int) -> None:
    assert (order_key(str(first)) < order_key(str(second))) == (first < second)


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=5), st.lists(st.integers(0, 9999), min_size=1, max_size=5))
def test_dotted_numbers_order_part_by_part(first: list[int], second: list[int]) -> None:
    dotted = [".".join(map(str, parts)) for parts in (first, second)]
    assert (order_key(dotted[0]) < order_key(dotted[1])) == (first < second)


@given(names, names)
def test_any_two_names_can_be_compared(first: str, second: str) -> None:
    assert (order_key(first) < order_key(second)) + (order_key(first) > order_key(second)) + (
        order_key(first) == order_key(second)
    ) == 1


@given(names)
def test_case_never_decides(name: str) -> None:
    assert order_key(name.upper()) == order_key(name.lower())


@pytest.mark.parametrize("name", ["iris", "1", "v1.2-rc_3", "A" * 100, "2026-11-20", "a..b"])
def test_a_good_name_is_a_name(name: str) -> None:
    assert why_not_a_name(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-x", "_x", "a/b", "a b", "a\n", "a\0", "é", "٣", "A" * 101, "x" * 300, "%2e%2e", "\udce8", "C:"],
)
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    why = why_not_a_name(name)
    assert why is not None
    assert "at most 100 characters" in why
    assert len(why) < 300
    assert why.isprintable()


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Active"])
def test_a_reserved_word_is_refused_by_name(name: str) -> None:
    assert why_not_a_name(name) == f"'{name}' is a reserved word"


def test_a_digest_is_of_names_and_contents() -> None:
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    assert digest_of([("a", one), ("b", two)]) == digest_of([("b", two), ("a", one)])
    assert digest_of([("a", one)]) != digest_of([("b", one)])
    assert digest_of([("a", one), ("b", two)]) != digest_of([("a", two), ("b", one)])
    assert digest_of([("a", one)]) != digest_of([("a", two)])


def test_a_digest_is_what_sha256sum_would_say_of_its_list() -> None:
    one = hashlib.sha256(b"1").hexdigest()
    assert digest_of([("a", one)]) == "sha256:" + hashlib.sha256(f"{one}  a\n".encode()).hexdigest()


def test_a_version_shows_its_digest_in_short() -> None:
    assert str(VersionId("iris", "3", "sha256:" + "ab" * 32)) == "iris/3 (sha256:abababababab)"

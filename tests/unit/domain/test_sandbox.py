"""What holds a host, as plain data."""

from __future__ import annotations

from serving.domain.sandbox import LAYERS, OPTIONAL, Sandbox

WHOLE = Sandbox(active=LAYERS)


def test_it_is_whole_with_every_layer_that_can_be_had_everywhere() -> None:
    assert WHOLE.is_whole
    for layer in LAYERS:
        others = tuple(name for name in LAYERS if name != layer)
        assert Sandbox(active=others, missing={layer: "why"}).is_whole is (layer in OPTIONAL)


def test_nothing_known_is_not_whole() -> None:
    assert not Sandbox().is_whole


def test_of_two_the_weaker_is_what_both_have() -> None:
    one = Sandbox(active=("limits", "seccomp"), missing={"landlock": "no such call"})
    other = Sandbox(active=("limits", "landlock"), missing={"seccomp": "not on arm"})
    assert one.intersect(other).active == ("limits",)
    assert one.intersect(other).missing == {"landlock": "no such call", "seccomp": "not on arm"}
    assert WHOLE.intersect(WHOLE) == WHOLE


def test_it_is_told_in_one_line() -> None:
    lacking = Sandbox(active=("limits",), missing={"landlock": "no such call"})
    assert str(lacking) == "limits; no landlock (no such call)"
    assert str(Sandbox()) == "none"

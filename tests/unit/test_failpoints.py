"""Failpoints do nothing unless a test arms them, and only a test can."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import failpoints
from serving.failpoints import POINTS, arm, reach

PACKAGE = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    for point in POINTS:
        arm(point, None)


def _called_with(name: str) -> list[tuple[Path, str]]:
    """Return where the package calls `name`, and with which first argument."""
    calls = (
        (path.relative_to(PACKAGE), node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and node.args
    )
    return [
        (path, ast.unparse(node.args[0]).strip("'"))
        for path, node in calls
        if ast.unparse(node.func).rpartition(".")[2] == name
    ]


def test_nothing_happens_at_a_point_that_is_not_armed() -> None:
    for point in POINTS:
        reach(point)


def test_what_is_armed_happens_there_and_nowhere_else() -> None:
    reached: list[str] = []
    arm("staged", lambda: reached.append("staged"))
    for point in POINTS:
        reach(point)
    reach("staged")
    arm("staged", None)
    reach("staged")
    assert reached == ["staged", "staged"]


def test_what_an_action_raises_comes_out_of_the_point() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    arm("cache-write", full)
    with pytest.raises(OSError, match="No space"):
        reach("cache-write")


def test_every_point_is_on_the_road_once_and_is_described() -> None:
    described = [
        line.split()[0] for line in (failpoints.__doc__ or "").splitlines() if line[:1].isalpha() and "  " in line
    ]
    assert sorted(point for _, point in _called_with("reach")) == sorted(POINTS) == sorted(described)


def test_nothing_in_the_package_arms_one() -> None:
    assert not _called_with("arm")
    users = {path for path in PACKAGE.rglob("*.py") if "failpoints" in path.read_text()} - {PACKAGE / "failpoints.py"}
    for path in users:
        imports = [line for line in path.read_text().splitlines() if "failpoints" in line]
        assert imports == ["from serving.failpoints import reach"], path

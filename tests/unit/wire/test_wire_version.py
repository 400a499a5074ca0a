"""The number that keeps two releases of the package from talking to each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving.wire import wire_version
from serving.wire.wire_version import WIRE_VERSION, compute_wire_version

PACKAGE = Path(wire_version.__file__).parent.parent


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the modules that count, which the next computation reads; what others compile meanwhile is left out."""
    for part in ("domain", "wire"):
        shutil.copytree(PACKAGE / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(wire_version, "_PACKAGE", tmp_path)
    return tmp_path


def test_it_fits_the_message_and_is_the_same_for_the_same_code(copied: Path) -> None:
    assert 0 < WIRE_VERSION < 1 << 63
    assert compute_wire_version() == compute_wire_version()


@pytest.mark.parametrize("name", ["wire/frames.py", "domain/report.py"])
def test_it_changes_with_a_byte_of_either_package(copied: Path, name: str) -> None:
    before = compute_wire_version()
    with (copied / name).open("a") as file:
        file.write("#")
    assert compute_wire_version() != before


def test_it_changes_when_a_module_is_renamed(copied: Path) -> None:
    before = compute_wire_version()
    (copied / "wire/frames.py").rename(copied / "wire/frames2.py")
    assert compute_wire_version() != before

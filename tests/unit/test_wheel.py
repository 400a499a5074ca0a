"""The wheel holds the whole package and nothing else, and says what it is."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from serving import __version__

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INFO = f"serving-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, as the image and `pip install .` build it."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = directory.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """What the wheel says of itself."""
    return email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))


def files_of_the_package() -> set[str]:
    """Return what git has of the package, files that are new among them; without git all but what Python compiled."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "serving"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if (ROOT / ".git").exists() and listed.returncode == 0:
        return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()}
    found = (path for path in (ROOT / "serving").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(ROOT)) for path in found}


def test_it_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if not name.startswith(f"{INFO}/")}
    expected = files_of_the_package()
    assert {Path(name).suffix for name in expected} >= {".py", ".json", ".proto", ".js", ".css"}
    assert held == expected


def test_it_says_what_it_is_and_needs(metadata: Message) -> None:
    assert metadata["Name"] == "serving"
    assert metadata["Version"] == __version__
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "## The first minute" in str(metadata.get_payload())
    assert set(metadata.get_all("Provides-Extra", [])) == {"arrow", "grpc", "lightgbm", "otel", "xgboost"}
    names = {re.split(r"[^\w-]", each)[0] for each in metadata.get_all("Requires-Dist", [])}
    wanted = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    assert names == {re.split(r"[^\w-]", each)[0] for each in wanted}


def test_it_has_its_license_and_its_command(wheel: zipfile.ZipFile) -> None:
    assert wheel.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "serving = serving.cli:main" in wheel.read(f"{INFO}/entry_points.txt").decode()

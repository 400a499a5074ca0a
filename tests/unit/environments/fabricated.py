"""Environments for tests, made in a moment: real virtual environments in which packages only seem to be installed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from serving.environments.environment_directory import EnvironmentDirectory, EnvironmentRecord

GOOD = {"scikit-learn": "1.5.2", "numpy": "1.26.4"}


def fabricate(directory: Path, libraries: dict[str, str] = GOOD, python: str = sys.executable) -> Path:
    """Make a virtual environment that says it has these distributions; returns its interpreter."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(directory)], check=True)
    for name, version in libraries.items():
        install(directory, name, version)
    return directory / "bin" / "python"


def install(directory: Path, name: str, version: str) -> None:
    """Let a distribution with a module of its name seem to be installed."""
    (site,) = (directory / "lib").glob("python*/site-packages")
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text("raise SystemExit('this must not be imported')\n")
    metadata = site / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def fabricate_made(directory: EnvironmentDirectory, name: str, libraries: dict[str, str] = GOOD) -> None:
    """Make one below the directory, as ``serving environment create`` would."""
    directory.path.mkdir(parents=True, exist_ok=True)
    fabricate(directory.path / name, libraries)
    complete(directory, name, libraries)


def complete(directory: EnvironmentDirectory, name: str, libraries: dict[str, str] = GOOD) -> None:
    """Write the record of one that is half-made."""
    now = datetime.now(UTC)
    version = "3.11.7"
    record = EnvironmentRecord(
        name=name, created_at=now, python_version=version, installer="pip 25", requirements=(), libraries=libraries
    )
    directory.write_record(record)

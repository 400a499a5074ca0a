"""The files for running in containers, parsed."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout: what the relative paths in docker-compose.yml are relative to."""
    return Path(__file__).parents[2]


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    """docker-compose.yml."""
    return yaml.safe_load((root / "docker-compose.yml").read_text())


@pytest.fixture
def mounts(compose: dict[str, Any]) -> dict[str, dict[str, tuple[str, str]]]:
    """service -> target -> (source, mode). All our mounts are written in the short form, SOURCE:TARGET[:MODE]."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, service in compose["services"].items():
        parts = [mount.split(":") for mount in service["volumes"]]
        found[name] = {part[1]: (part[0], part[2] if len(part) > 2 else "rw") for part in parts}
    return found


@pytest.fixture
def prometheus_file(root: Path, mounts: dict[str, dict[str, tuple[str, str]]]) -> Path:
    """The configuration that docker-compose.yml gives to Prometheus."""
    source, _ = mounts["prometheus"]["/etc/prometheus/prometheus.yml"]
    return root / source


@pytest.fixture
def dockerfile(root: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, continued lines joined."""
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(instruction, argument.strip()) for instruction, _, argument in (line.partition(" ") for line in lines)]


@pytest.fixture
def settings_of_the_image(dockerfile: list[tuple[str, str]]) -> dict[str, str]:
    """The SERVING_ variables that the image sets."""
    pairs = [
        pair.split("=", 1)
        for instruction, argument in dockerfile
        if instruction == "ENV"
        for pair in shlex.split(argument)
    ]
    return {name: value for name, value in pairs if name.startswith("SERVING_")}

"""The example of an image with a second environment follows the image of this project, and its command exists."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft201909Validator

from serving.cli.program import app
from serving.domain.pinned_versions import read_pins
from serving.settings.groups import KEYS

pytestmark = pytest.mark.container


@pytest.fixture
def example(root: Path) -> Path:
    return root / "docs" / "examples" / "environment"


@pytest.fixture
def instructions(example: Path) -> list[tuple[str, str]]:
    text = (example / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(instruction, argument.strip()) for instruction, _, argument in (line.partition(" ") for line in lines)]


def arguments_of(instructions: list[tuple[str, str]], name: str) -> list[str]:
    return [argument for instruction, argument in instructions if instruction == name]


def test_it_is_built_on_the_image_of_the_project(
    instructions: list[tuple[str, str]], compose: dict[str, Any], dockerfile: list[tuple[str, str]]
) -> None:
    assert arguments_of(instructions, "FROM") == [compose["services"]["serving"]["image"]]
    assert arguments_of(instructions, "USER")[-1] == arguments_of(dockerfile, "USER")[-1]


def test_its_environment_is_outside_of_the_state(
    instructions: list[tuple[str, str]], settings_of_the_image: dict[str, str]
) -> None:
    (variable,) = arguments_of(instructions, "ENV")
    name, _, path = variable.partition("=")
    assert name.removeprefix("SERVING_").lower().replace("__", ".") in KEYS
    assert not path.startswith(settings_of_the_image["SERVING_STATE__PATH"])


def test_its_command_and_the_options_of_it_exist(instructions: list[tuple[str, str]]) -> None:
    (run,) = arguments_of(instructions, "RUN")
    words = shlex.split(run.partition("serving environment create")[2].partition("&&")[0])
    create = typer.main.get_command(app).commands["environment"].commands["create"]  # type: ignore[attr-defined]
    options = {option for parameter in create.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_its_requirements_are_exact(example: Path) -> None:
    text = (example / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(read_pins("requirements.txt", text.encode())) == len(lines)


def test_its_compose_file_is_as_strict_as_that_of_the_project(example: Path, compose: dict[str, Any]) -> None:
    found = yaml.safe_load((example / "compose.yaml").read_text())
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    Draft201909Validator(schema).validate(found)
    theirs, ours = found["services"]["serving"], compose["services"]["serving"]
    for key in ("user", "read_only", "cap_drop", "security_opt", "pids_limit", "tmpfs", "stop_grace_period"):
        assert theirs[key] == ours[key], key
    sources = [re.split(r":", mount)[0] for mount in theirs["volumes"]]
    assert (example / sources[0]).resolve() == Path(__file__).parents[2] / "model_store"

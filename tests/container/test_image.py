"""The image and the settings file it ships say only what the settings know."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from serving.settings import Settings
from serving.settings.groups import KEYS

pytestmark = pytest.mark.container

TOKENS = ("admin_token", "admin_token_file", "read_token", "read_token_file", "predict_token", "predict_token_file")
OPTIONAL = ("default_model", "admin_port", "grpc_port", "grpc_max_mb")
EXAMPLES = {
    *(("server", name) for name in OPTIONAL),
    *(("security", name) for name in TOKENS),
    ("environments", "path"),
    ("gates", "max_disagreement"),
    ("rollout", "slo_seconds"),
    ("rollout", "sticky"),
    ("record", "path"),
    ("traces", "endpoint"),
}


def default_of(group: str, field: str) -> Any:
    """Return a setting's default as TOML would hold it; KeyError when there is no such setting."""
    return json.loads(Settings().model_dump_json())[group][field]


def test_every_variable_of_the_containers_is_a_setting(
    compose: dict[str, Any], settings_of_the_image: dict[str, str]
) -> None:
    names = [*settings_of_the_image, *compose["services"]["serving"]["environment"]]
    for name in names:
        if name != "SERVING_SETTINGS":
            default_of(*name.removeprefix("SERVING_").lower().split("__"))


def test_the_settings_file_shows_every_setting_with_its_default(root: Path) -> None:
    """Its promise: what is commented out shows the default."""
    text = (root / "settings.toml").read_text()
    shown = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    declared = {tuple(key.split(".")) for key in KEYS}
    assert {(group, field) for group, fields in shown.items() for field in fields} == declared
    for group, field in declared - EXAMPLES:
        assert shown[group][field] == default_of(group, field), f"{group}.{field}"


def test_the_packages_are_locked_for_the_python_of_the_image(root: Path, dockerfile: list[tuple[str, str]]) -> None:
    stages = {argument.split()[0] for instruction, argument in dockerfile if instruction == "FROM"}
    assert len(stages) == 1, "built on one image and run on another"
    version = re.search(r"python:(\d+\.\d+)", stages.pop())
    assert version is not None
    assert f"--python-version {version[1]} " in (root / "Makefile").read_text()


@pytest.mark.parametrize("extra", ["arrow", "grpc"])
def test_the_image_speaks_every_protocol(root: Path, extra: str) -> None:
    """Nothing can be installed into it later."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w-]", requirement)[0] for requirement in project["optional-dependencies"][extra]}
    locked = set(re.findall(r"^([\w.-]+)==", (root / "requirements.lock").read_text(), flags=re.MULTILINE))
    assert wanted <= locked

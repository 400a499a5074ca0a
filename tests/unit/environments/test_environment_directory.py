"""The directory of environments deletes what it has made, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import EnvironmentRefused
from serving.environments.create_environment import create_environment
from serving.environments.environment_directory import EnvironmentDirectory
from serving.environments.installer import Installation
from serving.offline.list_environments import remove_environment
from serving.settings import EnvironmentSettings, Settings
from tests.unit.environments.fabricated import fabricate, fabricate_made

NEVER: Any = None  # what is not used, because the creation is refused before


@pytest.fixture
def directory(tmp_path: Path) -> EnvironmentDirectory:
    return EnvironmentDirectory(tmp_path / "environments")


def create(directory: EnvironmentDirectory) -> None:
    create_environment(directory, "mine", NEVER, Installation(()), NEVER, NEVER)


def remove(directory: EnvironmentDirectory) -> None:
    remove_environment("mine", Settings(environments=EnvironmentSettings(path=directory.path)), force=False)


@pytest.mark.parametrize("act", [create, remove])
def test_a_directory_that_it_has_not_made_is_kept(
    act: Callable[[EnvironmentDirectory], None], directory: EnvironmentDirectory
) -> None:
    """Somebody may let environments.path be the directory of all his virtual environments, or of his projects."""
    python = fabricate(directory.path / "mine")
    with pytest.raises(EnvironmentRefused, match="has not made, and keeps them: move them away"):
        act(directory)
    assert python.exists()


@pytest.mark.parametrize("act", [create, remove])
@pytest.mark.parametrize("is_complete", [False, True])
def test_what_a_link_leads_to_is_kept(
    act: Callable[[EnvironmentDirectory], None], is_complete: bool, directory: EnvironmentDirectory, tmp_path: Path
) -> None:
    elsewhere = EnvironmentDirectory(tmp_path / "elsewhere")
    fabricate_made(elsewhere, "mine")
    if not is_complete:
        (elsewhere.path / "mine" / "environment.json").unlink()
    directory.path.mkdir()
    (directory.path / "mine").symlink_to(elsewhere.path / "mine")
    with pytest.raises(EnvironmentRefused, match=r"is a link|exists already"):
        act(directory)
    assert elsewhere.find_python("mine").exists()
    assert elsewhere.is_complete("mine") is is_complete


def test_a_removal_that_was_killed_can_be_done_again(
    directory: EnvironmentDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate_made(directory, "mine")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            remove(directory)
    assert not directory.is_complete("mine")
    assert directory.find_python("mine").exists()
    remove(directory)
    assert list(directory.path.iterdir()) == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt

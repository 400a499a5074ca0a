"""While files go away, one by one or all at once, no older version answers for a moment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.traffic import Traffic
from tests.unit.store.files import write_manifest

MODELS = count(1)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for which no removal settles while a test lasts; what has a manifest need not settle."""
    with serving(tmp_path_factory.mktemp("patient"), SERVING_STORE__SETTLE_SECONDS="3600") as server:
        yield server


def publish(directory: Path, version: int) -> Path:
    """Put a version with a manifest into a model's directory: it is complete as soon as it is there."""
    made = write_version(directory.parent / f".{directory.name}" / directory.name, version, constant(version))
    write_manifest(made)
    directory.mkdir(exist_ok=True, parents=True)
    return made.rename(directory / str(version))


@pytest.fixture
def model(patient: Server) -> Path:
    """The directory of a model whose version 3 is active; 2 is loaded as well and could take over in an instant."""
    directory = patient.store / f"m{next(MODELS)}"
    aside = patient.directory / "aside" / directory.name  # both at once: 1 alone would become active
    publish(aside, 1)
    publish(aside, 2)
    aside.rename(directory)
    patient.wait_active(directory.name, 2)
    publish(directory, 3)
    patient.wait_active(directory.name, 3)
    return directory


@pytest.fixture
def traffic(patient: Server, model: Path) -> Iterator[Traffic]:
    """Clients that ask during the whole test; at the end no answer was of an older version than one before it."""
    with Traffic(patient.url, model.name) as traffic:
        yield traffic
    traffic.record.verify()
    assert activations(patient, model) in (["2", "3"], ["2", "3", "4"])


def activations(server: Server, model: Path) -> list[str]:
    """Return the versions that became active, the first one first."""
    entries = server.get(f"/models/{model.name}/history?limit=1000")["history"]
    return [entry["version"] for entry in reversed(entries) if entry["after"] == "ACTIVE"]


def look(server: Server) -> None:
    """Have the server look at its store and act upon what it has seen."""
    assert server.operate("POST", "/refresh").status_code == 200


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("order", ["321", "123", "312"])
def test_a_directory_is_removed_file_by_file(patient: Server, model: Path, order: str) -> None:
    """Slower than any `rm -rf`: the server looks at the store after every single step."""
    for version in order:
        for path in sorted((model / version).iterdir()):
            path.unlink()
            look(patient)
        (model / version).rmdir()
        look(patient)
        active = patient.get(f"/models/{model.name}/active")["active"]
        assert active["version"] == "3"
        left = {path.name for path in model.iterdir()}
        told = "another version takes over" if left else "it goes on being served"
        assert active["note"] is None if "3" in left else told in active["note"]
    model.rmdir()
    look(patient)
    assert patient.active(model.name) == "3"


def by_rm(model: Path) -> None:
    subprocess.run(["rm", "-rf", model], check=True)


def by_moving_versions_away(model: Path) -> None:
    aside = model.parent.parent / f"{model.name}-aside"
    aside.mkdir()
    for version in ("3", "2", "1"):
        (model / version).rename(aside / version)


def by_moving_the_model_away(model: Path) -> None:
    model.rename(model.parent.parent / f"{model.name}-away")


def by_emptying_its_versions(model: Path) -> None:
    for version in ("3", "2", "1"):
        (model / version / "model.joblib").unlink()


WAYS = (by_rm, by_moving_versions_away, by_moving_the_model_away, by_emptying_its_versions)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_model_is_removed(patient: Server, model: Path, way: Callable[[Path], None]) -> None:
    way(model)
    look(patient)
    assert patient.active(model.name) == "3"


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("option", ["--delete-before", "--delete-during", "--delete-after"])
def test_rsync_replaces_the_active_version_by_a_newer_one(
    patient: Server, model: Path, tmp_path: Path, option: str
) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed (Debian package rsync)")
    shutil.copytree(model, tmp_path / model.name)
    shutil.rmtree(tmp_path / model.name / "3")
    publish(tmp_path / model.name, 4)
    subprocess.run(["rsync", "-a", "--delete", option, f"{tmp_path / model.name}/", model], check=True)
    patient.wait_active(model.name, 4)
    assert activations(patient, model) == ["2", "3", "4"]


@pytest.mark.usefixtures("traffic")
def test_git_checks_another_branch_out(patient: Server, model: Path) -> None:
    """The other branch, made in a work tree of its own, has neither of the loaded versions, but a newer one."""
    git = ["git", "-C", str(model), "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "gc.auto=0"]
    for command in (["init", "-q", "-b", "old"], ["add", "."], ["commit", "-qm", "three versions"]):
        subprocess.run([*git, *command], check=True)
    aside = model.parent.parent / f"{model.name}-branch"
    subprocess.run([*git, "worktree", "add", "-q", "-b", "new", str(aside)], check=True)
    shutil.rmtree(aside / "3")
    shutil.rmtree(aside / "2")
    write_version(aside, 4, constant(4))
    write_manifest(aside / "4", model=model.name)
    new = ["git", "-C", str(aside), *git[3:]]
    for command in (["add", "-A"], ["commit", "-qm", "one newer"], ["checkout", "-q", "--detach"]):
        subprocess.run([*new, *command], check=True)
    assert patient.active(model.name) == "3"
    subprocess.run([*git, "checkout", "-q", "new"], check=True)
    patient.wait_active(model.name, 4)
    assert activations(patient, model) == ["2", "3", "4"]


def test_the_whole_store_is_removed(patient: Server, model: Path, traffic: Traffic) -> None:
    """`rm -rf` of everything, the directory itself included, changes no answer."""
    subprocess.run(["rm", "-rf", patient.store], check=True)
    until(lambda: not patient.get("/models/active")["store"]["is_available"], "the store being missed")
    assert patient.active(model.name) == "3"
    patient.store.mkdir()
    until(lambda: patient.get("/models/active")["store"]["is_available"], "the store being found")
    assert patient.active(model.name) == "3"
    assert traffic.record.counts

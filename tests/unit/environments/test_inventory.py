"""The inventory finds environments of the settings and of the directory, and notices when one changes."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog.testing

from serving.environments import inventory as module
from serving.environments.environment_directory import RECORD_NAME
from serving.environments.inventory import Inventory
from serving.settings import EnvironmentSettings, NamedEnvironment
from tests.e2e.harness import until
from tests.unit.environments.fabricated import GOOD, complete, fabricate, fabricate_made, install


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(EnvironmentSettings(), tmp_path / "state")


def named(tmp_path: Path, **pythons: Path) -> Inventory:
    settings = EnvironmentSettings(named={name: NamedEnvironment(python=path) for name, path in pythons.items()})
    return Inventory(settings, tmp_path / "state")


def problems(inventory: Inventory) -> dict[str, str | None]:
    return {each.name: each.problem for each in inventory.list_environments()}


def count_descriptions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    described: list[str] = []
    describe = module.describe_environment

    def count(name: str, *how: Any) -> object:
        described.append(name)
        return describe(name, *how)

    monkeypatch.setattr(module, "describe_environment", count)
    return described


def test_there_are_none_without_settings_and_directory(inventory: Inventory) -> None:
    assert inventory.list_environments() == []
    assert inventory.find("sk13") is None
    assert inventory.fingerprint() == inventory.fingerprint()


def test_one_that_was_made_is_found_by_a_running_server(inventory: Inventory) -> None:
    before = inventory.fingerprint()
    fabricate_made(inventory.directory, "sk15")
    (found,) = inventory.list_environments()
    assert found == inventory.find("sk15")
    assert (found.name, found.problem, found.libraries) == ("sk15", None, GOOD)
    assert found.python == str(inventory.directory.path / "sk15" / "bin" / "python")
    assert found.python_version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {"scikit_learn", "json", "sys"} <= found.modules
    assert "describe_environment" not in found.modules
    assert inventory.fingerprint() != before


def test_a_half_made_one_is_never_used(inventory: Inventory) -> None:
    before = inventory.fingerprint()
    fabricate(inventory.directory.path / "sk15")
    (inventory.directory.path / "sk15" / f".{RECORD_NAME}.new").write_text("{}")
    assert inventory.list_environments() == []
    assert inventory.find("sk15") is None
    assert inventory.fingerprint() == before
    complete(inventory.directory, "sk15")
    assert problems(inventory) == {"sk15": None}


def test_one_of_the_settings_is_described(tmp_path: Path) -> None:
    inventory = named(tmp_path, b=fabricate(tmp_path / "there"), a=fabricate(tmp_path / "other", {**GOOD, "x-y": "1"}))
    first, second = inventory.list_environments()
    assert (first.name, second.name) == ("a", "b")
    assert first.libraries == {**GOOD, "x-y": "1"}
    assert "x_y" in first.modules - second.modules


def test_nothing_is_described_again_unless_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = count_descriptions(monkeypatch)
    inventory = named(tmp_path, there=fabricate(tmp_path / "there"))
    fabricate_made(inventory.directory, "sk15")
    inventory.list_environments()
    before = inventory.fingerprint()
    assert inventory.find("there") in inventory.list_environments()
    assert (sorted(described), inventory.fingerprint()) == (["sk15", "there"], before)
    install(tmp_path / "there", "catboost", "1.2")
    assert inventory.fingerprint() != before
    assert [each.libraries.get("catboost") for each in inventory.list_environments()] == [None, "1.2"]
    assert sorted(described) == ["sk15", "there", "there"]  # several at once, in any order


def test_threads_that_ask_at_once_describe_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = count_descriptions(monkeypatch)
    inventory = named(tmp_path, there=fabricate(tmp_path / "there"))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(inventory.list_environments())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert described == ["there"]
    assert found == [inventory.list_environments()] * 8


def test_one_that_is_removed_is_gone_and_one_made_anew_has_another_stamp(inventory: Inventory) -> None:
    fabricate_made(inventory.directory, "sk15")
    (first,) = inventory.list_environments()
    full = inventory.fingerprint()
    shutil.rmtree(inventory.directory.path / "sk15")
    assert inventory.list_environments() == []
    assert inventory.fingerprint() != full
    fabricate_made(inventory.directory, "sk15")
    (second,) = inventory.list_environments()
    assert second.stamp != first.stamp
    assert inventory.fingerprint() != full


def test_settings_hide_one_of_the_same_name_with_one_warning(tmp_path: Path) -> None:
    inventory = named(tmp_path, sk15=fabricate(tmp_path / "there", {**GOOD, "numpy": "1.25.0"}))
    fabricate_made(inventory.directory, "sk15")
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            (found,) = inventory.list_environments()
    assert found.libraries["numpy"] == "1.25.0"
    assert [line["event"] for line in logs] == ["environment_hidden"]


def test_one_without_a_usable_python_is_listed_with_its_problem(tmp_path: Path) -> None:
    for name, text in (("says", "#!/bin/sh\necho oops >&2\nexit 3\n"), ("other", "#!/bin/sh\necho hello\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "plain").write_text("")
    pythons = {name: tmp_path / name for name in ("says", "other", "plain", "gone")}
    found = problems(named(tmp_path, **pythons))
    assert found == {
        "gone": f"{tmp_path}/gone does not exist",
        "other": f"{tmp_path}/other is no Python: it printed something else than its description",
        "plain": f"{tmp_path}/plain cannot be run: Permission denied",
        "says": f"{tmp_path}/says cannot be run (status 3): oops",
    }


@pytest.mark.parametrize(
    ("libraries", "problem"),
    [
        ({"numpy": "1.26.4"}, "scikit-learn is not installed there"),
        ({"scikit-learn": "1.5.2"}, "numpy is not installed there"),
        ({**GOOD, "scikit-learn": "0.24.2"}, "it has scikit-learn 0.24.2; 1.0 is the oldest that hosts can run with"),
        ({**GOOD, "numpy": "1.21.6"}, "it has numpy 1.21.6; 1.22 is the oldest that hosts can run with"),
    ],
)
def test_one_that_lacks_what_hosts_need_says_what(libraries: dict[str, str], problem: str, tmp_path: Path) -> None:
    python = fabricate(tmp_path / "there", libraries)
    assert problems(named(tmp_path, there=python)) == {"there": f"{python}: {problem}"}


@pytest.mark.parametrize("how", ["exec sleep 60", "exec sleep 60 >&- 2>&-", "sleep 60"])
def test_a_python_that_hangs_is_given_up(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.environments.describing.DESCRIBE_SECONDS", 0.1)
    write_program(tmp_path / "hangs", f"{how}\n")
    found = problems(named(tmp_path, there=tmp_path / "hangs"))
    assert found == {"there": f"{tmp_path}/hangs did not describe itself within 0 s"}


def test_one_that_hangs_does_not_keep_others_from_being_described(tmp_path: Path) -> None:
    """Each of these ends only when the other has begun."""
    for name, other in (("a", "b"), ("b", "a")):
        begun = f"touch {tmp_path}/{name}.begun; while ! [ -e {tmp_path}/{other}.begun ]; do sleep 0.05; done"
        write_program(tmp_path / name, f"{begun}\nexit 3\n")
    found = problems(named(tmp_path, a=tmp_path / "a", b=tmp_path / "b"))
    assert found == {name: f"{tmp_path}/{name} cannot be run (status 3): it said nothing" for name in "ab"}


def test_a_python_that_prints_without_end_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.environments.describing.DESCRIBE_SECONDS", 600.0)  # it is not the time that ends it
    write_program(tmp_path / "prints", f"echo $$ > {tmp_path}/pid\nexec yes {'x' * 1000}\n")
    tracemalloc.start()
    try:
        found = problems(named(tmp_path, there=tmp_path / "prints"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == {"there": f"{tmp_path}/prints is no Python: it printed something else than its description"}
    assert most < 32 << 20
    until(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())), "the end of the program")


def test_nothing_waits_for_a_python_that_hangs_after_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.environments.describing.DESCRIBE_SECONDS", 600.0)
    note = f"echo $$ > {tmp_path}/$$.new && mv {tmp_path}/$$.new {tmp_path}/pid"  # two of them run at once
    write_program(tmp_path / "hangs", f"{note}\nsleep 600\n")
    inventory = named(tmp_path, here=tmp_path / "hangs", there=tmp_path / "hangs")
    thread = threading.Thread(target=inventory.list_environments)
    thread.start()
    until((tmp_path / "pid").exists, "the start of the program")
    family = [process := psutil.Process(int((tmp_path / "pid").read_text())), *process.children()]
    inventory.stop()
    thread.join()
    until(lambda: not any(each.is_running() for each in family), "the end of the program")


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


@pytest.mark.parametrize("where", [".", "sk15"])
def test_nothing_runs_that_everybody_may_have_written(
    inventory: Inventory, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = count_descriptions(monkeypatch)
    fabricate_made(inventory.directory, "sk15")
    (inventory.directory.path / where).chmod(0o1777)
    before = inventory.fingerprint()
    path = inventory.directory.path / where if where != "." else inventory.directory.path
    reason = f"everybody may write to '{path}', and so run code as this user: chmod o-w '{path}'"
    assert problems(inventory) == {"sk15": reason}
    assert described == []
    path.chmod(0o755)
    assert inventory.fingerprint() != before
    assert problems(inventory) == {"sk15": None}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("where", [".", "sk15"])
def test_nothing_runs_that_belongs_to_somebody_else(inventory: Inventory, where: str) -> None:
    fabricate_made(inventory.directory, "sk15")
    os.chown(inventory.directory.path / where, 12345, -1)
    assert "belongs to user 12345, who could run code as this user" in (problems(inventory)["sk15"] or "")


def test_a_broken_mark_stays_until_the_environment_changes(tmp_path: Path) -> None:
    inventory = named(tmp_path, there=fabricate(tmp_path / "there"))
    sound = inventory.fingerprint()
    inventory.mark_broken("there", "its zygote ended")
    inventory.mark_broken("no such", "x")
    assert problems(inventory) == {"there": "its zygote ended"}
    marked = inventory.fingerprint()
    assert marked != sound
    install(tmp_path / "there", "catboost", "1.2")
    assert problems(inventory) == {"there": None}
    assert inventory.fingerprint() not in (sound, marked)


def test_xgboost_for_the_processor_counts_as_xgboost(tmp_path: Path) -> None:
    inventory = named(tmp_path, there=fabricate(tmp_path / "there", {**GOOD, "xgboost-cpu": "2.1.4"}))
    (found,) = inventory.list_environments()
    assert found.libraries["xgboost"] == "2.1.4"


def test_the_environment_of_the_settings_is_scrubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_SECURITY__ADMIN_TOKEN", "hush")
    (tmp_path / "tells").write_text('#!/bin/sh\necho "[$SERVING_SECURITY__ADMIN_TOKEN]" >&2\nexit 1\n')
    (tmp_path / "tells").chmod(0o755)
    assert problems(named(tmp_path, there=tmp_path / "tells")) == {
        "there": f"{tmp_path}/tells cannot be run (status 1): []"
    }

"""What is listed again is read again only where something changed, and nothing that changed is missed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.settings import StoreSettings
from serving.store import model_directory
from serving.store.entries import read_directory
from serving.store.list_store import Store
from tests.unit.store.files import list_model, store_at, write, write_in_place, write_version


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The version directories that were read, as they are read."""
    paths: list[str] = []

    def record(rules: Any, subject: Any, *rest: Any) -> Any:
        paths.append(subject.path)
        return read_directory(rules, subject, *rest)

    monkeypatch.setattr(model_directory, "read_directory", record)
    monkeypatch.setattr(model_directory.ModelDirectory, "doubt_one", lambda self: None)
    return paths


def remove_file_of_older(root: Path) -> None:
    (root / "iris" / "1" / "golden.json").unlink()


def empty_a_version(root: Path) -> None:
    (root / "iris" / "0" / "left.txt").unlink()


def remove_an_empty_version(root: Path) -> None:
    (root / "iris" / "00").rmdir()


def remove_what_is_beside(root: Path) -> None:
    (root / "iris" / "README.md").unlink()


def let_a_hidden_copy_grow(root: Path) -> None:
    with (root / "iris" / ".3.joblib.x8Gh2").open("ab") as file:
        file.write(b"more")


def let_a_hidden_copy_in_a_version_grow(root: Path) -> None:
    with (root / "iris" / "0" / ".model.joblib.x8Gh2").open("ab") as file:
        file.write(b"more")


STEPS = (
    remove_file_of_older,
    empty_a_version,
    remove_an_empty_version,
    remove_what_is_beside,
    let_a_hidden_copy_grow,
    let_a_hidden_copy_in_a_version_grow,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_step_of_a_removal_shows_while_the_active_version_is_missing(
    populated: Path, step: Callable[[Path], None]
) -> None:
    """The same entries in another tuple: the removal of the active version has not settled yet."""
    (populated / "iris" / "00").mkdir()
    for name in ("0/left.txt", "0/.model.joblib.x8Gh2", ".3.joblib.x8Gh2", "README.md"):
        write(populated / "iris" / name)
    (populated / "iris" / "3.joblib").unlink()
    store = store_at(populated)
    active = {"iris": "3", "wine": "3"}
    before = store.list(active)
    for _ in range(
        2 * model_directory.THOROUGH_EVERY
    ):  # what lies beside the artefact of an older version is not always read
        assert store.list(active).models["iris"] is before.models["iris"]
    step(populated)
    is_same = [
        store.list(active).models["iris"] is before.models["iris"] for _ in range(model_directory.THOROUGH_EVERY)
    ]
    assert not all(is_same)
    assert store.list(active).models["wine"] is before.models["wine"]


def test_what_lies_beside_versions_is_not_looked_at_while_the_active_one_is_there(
    populated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(populated / "iris" / ".3.joblib.x8Gh2")
    store = store_at(populated)
    monkeypatch.setattr(model_directory, "read_remains", lambda *_: pytest.fail("system calls for nothing"))
    before = store.list({"iris": "3"})
    let_a_hidden_copy_grow(populated)
    assert store.list({"iris": "3"}).models["iris"] is before.models["iris"]


@pytest.fixture
def populated(root: Path) -> Path:
    """Two models with two version directories and a single file each, and a lone file."""
    for model in ("iris", "wine"):
        write_version(root, model, "1", model_joblib=b"1", golden_json=b"{}")
        write_version(root, model, "2", model_joblib=b"2", manifest_json=b"{}")
        write(root / model / "3.joblib", b"3")
    write(root / "churn.joblib")
    return root


def test_an_unchanged_store_is_the_identical_entries_and_nothing_is_read(populated: Path, reads: list[str]) -> None:
    store = store_at(populated)
    before = store.list()
    reads.clear()
    after = store.list()
    assert reads == []
    assert list(after.models) == ["churn", "iris", "wine"]
    assert all(after.models[model] is before.models[model] for model in before.models)


def test_only_what_changed_is_read_and_replaced(populated: Path, reads: list[str]) -> None:
    store = store_at(populated)
    before = store.list()
    reads.clear()
    write(populated / "iris" / "1" / "model.joblib", b"other bytes")
    after = store.list()
    assert reads == ["iris/1"]
    assert after.models["wine"] is before.models["wine"]
    assert after.models["churn"] is before.models["churn"]
    assert [one is other for one, other in zip(after.models["iris"], before.models["iris"], strict=True)] == [
        True,
        True,
        False,
    ]


def test_what_lies_beside_an_artefact_is_watched_closely_only_for_the_newest_version(
    root: Path, reads: list[str]
) -> None:
    """An edit in place beside an older artefact may take a few listings to be seen, one beside the newest does not."""
    for version in ("1", "2"):
        write_version(root, "iris", version, model_joblib=b"m", golden_json=b"{}")
    store = store_at(root)
    store.list()
    reads.clear()
    write_in_place(root / "iris" / "2" / "golden.json", b"[]")
    store.list()
    assert reads == ["iris/2"]
    write_in_place(root / "iris" / "1" / "golden.json", b"[]")
    for _ in range(model_directory.THOROUGH_EVERY):
        store.list()
    assert "iris/1" in reads
    reads.clear()
    write_in_place(root / "iris" / "1" / "model.joblib", b"n")
    store.list()
    assert "iris/1" in reads, "the artefact itself is always looked at"


def test_a_new_version_has_only_itself_read(populated: Path, reads: list[str]) -> None:
    store = store_at(populated)
    store.list()
    reads.clear()
    write_version(populated, "iris", "4")
    store.list()
    assert reads == ["iris/4"]


def test_a_version_that_lost_its_name_to_an_equal_one_stays_the_same_entry(root: Path) -> None:
    for version in ("1", "01", "2"):
        write_version(root, "iris", version)
    store = store_at(root)
    before = {entry.version: entry for entry in store.list().models["iris"]}
    write(root / "iris" / "2" / "golden.json")
    after = {entry.version: entry for entry in store.list().models["iris"]}
    assert before["01"].problem is not None
    assert [after[version] is before[version] for version in ("1", "01", "2")] == [True, True, False]


def test_a_version_that_vanishes_while_it_is_read_is_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")
    write_version(root, "iris", "2")

    def remove_then_read(rules: Any, subject: Any, *rest: Any) -> Any:
        if subject.version == "2":
            raise FileNotFoundError(2, "No such file or directory")
        return read_directory(rules, subject, *rest)

    monkeypatch.setattr(model_directory, "read_directory", remove_then_read)
    assert [entry.version for entry in list_model(root)] == ["1"]


def rewrite_artefact(root: Path) -> None:
    write_in_place(root / "iris" / "1" / "model.joblib", b"9")


def rewrite_golden(root: Path) -> None:
    write_in_place(root / "iris" / "1" / "golden.json", b"[]")


def rewrite_single(root: Path) -> None:
    write_in_place(root / "iris" / "3.joblib", b"9")


def rewrite_lone(root: Path) -> None:
    write_in_place(root / "churn.joblib", (root / "churn.joblib").read_bytes())


def add_file(root: Path) -> None:
    write(root / "iris" / "1" / "README.md")


def remove_file(root: Path) -> None:
    (root / "iris" / "1" / "golden.json").unlink()


def rename_file(root: Path) -> None:
    (root / "iris" / "1" / "golden.json").rename(root / "iris" / "1" / "gold.json")


def replace_by_rename(root: Path) -> None:
    write(root / "iris" / "1" / ".new", b"9").rename(root / "iris" / "1" / "model.joblib")


def add_second_artefact(root: Path) -> None:
    write(root / "iris" / "1" / "model.pkl")


def add_version(root: Path) -> None:
    write_version(root, "iris", "4")


def add_single(root: Path) -> None:
    write(root / "iris" / "4.pkl")


def remove_version(root: Path) -> None:
    shutil.rmtree(root / "iris" / "2")


def rename_version(root: Path) -> None:
    (root / "iris" / "2").rename(root / "iris" / "20")


def exchange_versions(root: Path) -> None:
    (root / "iris" / "1").rename(root / "iris" / ".x")
    (root / "iris" / "2").rename(root / "iris" / "1")
    (root / "iris" / ".x").rename(root / "iris" / "2")


def file_becomes_directory(root: Path) -> None:
    (root / "iris" / "3.joblib").unlink()
    write_version(root, "iris", "3")


def directory_becomes_link(root: Path) -> None:
    (root / "iris" / "1").rename(root / "iris" / ".1")
    (root / "iris" / "1").symlink_to("2")


def model_is_replaced(root: Path) -> None:
    (root / "iris").rename(root / ".iris")
    write_version(root, "iris", "1")


def model_vanishes(root: Path) -> None:
    shutil.rmtree(root / "iris")


def lone_file_vanishes(root: Path) -> None:
    (root / "churn.joblib").unlink()


CHANGES = (
    rewrite_artefact,
    rewrite_golden,
    rewrite_single,
    rewrite_lone,
    add_file,
    remove_file,
    rename_file,
    replace_by_rename,
    add_second_artefact,
    add_version,
    add_single,
    remove_version,
    rename_version,
    exchange_versions,
    file_becomes_directory,
    directory_becomes_link,
    model_is_replaced,
    model_vanishes,
    lone_file_vanishes,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_noticed_and_listed_as_by_a_fresh_store(
    populated: Path, reads: list[str], change: Callable[[Path], None]
) -> None:
    store = store_at(populated)
    before = store.list()
    change(populated)
    after = store.list()
    assert after != before
    assert after == store_at(populated).list()
    assert store.list() == after


def test_a_name_that_turns_from_a_file_into_a_version_is_noticed(populated: Path) -> None:
    (populated / "iris" / "4").touch()
    store = store_at(populated)
    store.list()
    (populated / "iris" / "4").unlink()
    write_version(populated, "iris", "4")
    assert store.list() == store_at(populated).list()
    assert store.list().models["iris"][0].version == "4"


def test_a_name_that_turns_into_a_version_within_one_tick_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "iris" / "4")
    fstat, model = os.fstat, (root / "iris").stat()
    monkeypatch.setattr(
        model_directory.os, "fstat", lambda fd: model if fstat(fd).st_ino == model.st_ino else fstat(fd)
    )
    store = Store(StoreSettings(path=root), now_ns=lambda: model.st_ctime_ns)
    assert "iris" not in store.list().models
    (root / "iris" / "4").unlink()
    write_version(root, "iris", "4")
    assert [entry.version for entry in store.list().models["iris"]] == ["4"]


def test_an_empty_version_is_noticed_when_it_is_filled(root: Path) -> None:
    (root / "iris" / "1").mkdir(parents=True)
    store = store_at(root)
    assert "iris" not in store.list().models
    write_version(root, "iris", "1")
    assert [entry.version for entry in store.list().models["iris"]] == ["1"]


def test_the_better_of_equal_versions_takes_over_and_back(root: Path) -> None:
    write_version(root, "iris", "01")
    store = store_at(root)
    before = store.list().models["iris"]
    write_version(root, "iris", "1")
    assert [(entry.version, entry.problem is None) for entry in store.list().models["iris"]] == [
        ("1", True),
        ("01", False),
    ]
    shutil.rmtree(root / "iris" / "1")
    assert store.list().models["iris"] == before


def test_a_directory_that_changed_just_now_is_read_again(populated: Path, reads: list[str]) -> None:
    newest = max(path.stat().st_ctime_ns for path in populated.rglob("*"))
    store = Store(StoreSettings(path=populated), now_ns=lambda: newest)
    store.list()
    reads.clear()
    store.list()
    assert sorted(reads) == ["iris/1", "iris/2", "wine/1", "wine/2"]


def test_a_file_that_changed_just_now_is_read_again(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_version(root, "iris", "1")
    write_in_place(directory / "model.joblib", b"again")
    assert directory.stat().st_ctime_ns < (directory / "model.joblib").stat().st_ctime_ns
    clock = [(directory / "model.joblib").stat().st_ctime_ns]
    monkeypatch.setattr(model_directory, "RACY_NS", 0)
    store = Store(StoreSettings(path=root), now_ns=lambda: clock[0])
    for _ in range(2):
        store.list()
    assert reads == ["iris/1", "iris/1"]
    clock[0] += 1
    for _ in range(2):
        store.list()
    assert reads == ["iris/1", "iris/1", "iris/1"]


def test_a_clock_set_back_makes_directories_be_read_again(populated: Path, reads: list[str]) -> None:
    store = Store(StoreSettings(path=populated), now_ns=lambda: 0)
    store.list()
    reads.clear()
    store.list()
    assert len(reads) == 4


def test_a_file_system_that_keeps_directory_times_is_seen_through_in_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        write_version(root, "iris", str(number))
    store = store_at(root)
    store.list()
    lstat = os.lstat
    frozen = {f"{number}".encode(): lstat(root / "iris" / f"{number}") for number in range(1, 4)}
    monkeypatch.setattr(model_directory.os, "lstat", lambda path, **given: frozen.get(path) or lstat(path, **given))
    for number in range(1, 4):
        write(root / "iris" / f"{number}" / "golden.json")
    for _ in range(3):
        entries = store.list().models["iris"]
    assert entries == list_model(root)
    assert all(len(entry.fingerprint) == 2 for entry in entries)


def test_every_version_of_every_model_is_doubted_in_its_turn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        write_version(root, f"model-{number}", "1")
        write_version(root, f"model-{number}", "2")
    store = store_at(root)
    store.list()
    read: set[str] = set()

    def record(rules: Any, subject: Any, *rest: Any) -> Any:
        read.add(subject.path)
        return read_directory(rules, subject, *rest)

    monkeypatch.setattr(model_directory, "read_directory", record)
    store.list()
    assert len(read) == 8
    for _ in range(3):
        store.list()
    assert len(read) == 24


def test_links_are_never_taken_from_memory(root: Path, reads: list[str]) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("1")
    (root / "iris" / "3").mkdir()
    (root / "iris" / "3" / "model.joblib").symlink_to("../1/model.joblib")
    store = store_at(root)
    before = store.list()
    reads.clear()
    after = store.list()
    assert reads == ["iris/3", "iris/2"]
    assert after.models["iris"] is before.models["iris"]

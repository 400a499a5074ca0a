"""Symbolic links: followed inside of the store only."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.domain.errors import StoreUnavailable
from serving.store.links import BadLink, resolve
from tests.unit.store.files import (
    list_model,
    problem_of,
    store_at,
    versions,
    without_privileges,
    write,
    write_version,
)


def swap(directory: Path, target: str) -> None:
    """Point `..data` at another directory in one step, as the kubelet does."""
    (directory / "..data_tmp").symlink_to(target)
    (directory / "..data_tmp").rename(directory / "..data")


def test_links_inside_of_the_store_are_followed(root: Path) -> None:
    real = write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("1")
    (root / "iris" / "3.joblib").symlink_to("1/model.joblib")
    (root / "iris" / "4").mkdir()
    (root / "iris" / "4" / "model.joblib").symlink_to(real / "model.joblib")
    (root / "wine").symlink_to("iris")
    (root / "churn.joblib").symlink_to("iris/1/model.joblib")
    inode = (real / "model.joblib").stat().st_ino
    listing = store_at(root).list()
    assert listing.problems == ()
    for model in ("iris", "wine"):
        assert [(entry.version, entry.problem) for entry in listing.models[model]] == [
            (version, None) for version in ("4", "3", "2", "1")
        ]
        assert {entry.fingerprint[0].inode for entry in listing.models[model]} == {inode}
    assert listing.models["churn"][0].fingerprint[0].inode == inode


def test_the_root_may_be_a_link(root: Path) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to(root / "iris" / "1")
    link = root.with_name("link")
    link.symlink_to(root)
    assert [(entry.version, entry.problem) for entry in list_model(link)] == [("2", None), ("1", None)]


def test_links_out_of_the_store_are_a_problem_and_never_read(root: Path) -> None:
    outside = write_version(root.with_name("outside"), "secret", "1")
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to(outside)
    (root / "iris" / "3.joblib").symlink_to(outside / "model.joblib")
    (root / "iris" / "1" / "golden.json").symlink_to("/etc/passwd")
    (root / "wine").symlink_to(outside.parent)
    (root / "churn.joblib").symlink_to(outside / "model.joblib")
    leads_outside = "is a link that leads outside the store"
    entries = list_model(root)
    assert [(entry.version, entry.problem) for entry in entries] == [
        ("3", f"'3.joblib' {leads_outside}"),
        ("2", f"'2' {leads_outside}"),
        ("1", f"'golden.json' {leads_outside}"),
    ]
    assert [stamp.name for entry in entries for stamp in entry.fingerprint] == ["model.joblib"]
    assert store_at(root).list().problems == (
        f"'churn.joblib': 'churn.joblib' {leads_outside}",
        f"'wine' {leads_outside}",
    )


def test_a_sibling_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    write(root.with_name("store-2") / "model.joblib")
    (root / "iris").mkdir()
    (root / "iris" / "1.joblib").symlink_to("../../store-2/model.joblib")
    assert "outside the store" in problem_of(root, "iris/1.joblib")


def test_a_link_out_and_back_in_counts_as_where_it_ends(root: Path) -> None:
    write_version(root, "iris", "1")
    root.with_name("detour").symlink_to(root / "iris")
    (root / "iris" / "2").symlink_to("../../detour/1")
    assert problem_of(root, "iris/2") == ""


def test_loops_are_a_problem(root: Path) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("3")
    (root / "iris" / "3").symlink_to("2")
    (root / "iris" / "4").symlink_to("..")
    (root / "iris" / "5").symlink_to(".")
    (root / "iris" / "6.joblib").symlink_to("6.joblib")
    (root / "self").symlink_to(".")
    (root / "loop").symlink_to("loop")
    assert {entry.version: entry.problem for entry in list_model(root)} == {
        "6": "'6.joblib' is a loop of links",
        "5": "'5' is a link to a directory that holds it",
        "4": "'4' is a link to a directory that holds it",
        "3": "'3' is a loop of links",
        "2": "'2' is a loop of links",
        "1": None,
    }
    assert store_at(root).list().problems == (
        "'loop' is a loop of links",
        "'self' is a link to a directory that holds it",
    )


def test_a_link_that_leads_nowhere_is_a_problem(root: Path) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("gone")
    (root / "iris" / "1" / "golden.json").symlink_to("gone")
    (root / "wine").symlink_to("gone")
    assert problem_of(root, "iris/2") == "'2' is a link that leads nowhere"
    assert problem_of(root, "iris/1") == "'golden.json' is a link that leads nowhere"
    assert store_at(root).list().problems == ("'wine' is a link that leads nowhere",)


def test_a_model_behind_a_link_that_cannot_be_followed_is_not_an_empty_model(shared_root: Path) -> None:
    write_version(shared_root, ".hidden", "iris", model_joblib=b"")
    (shared_root / "iris").symlink_to(".hidden/iris")
    (shared_root / ".hidden").chmod(0)
    with without_privileges(), pytest.raises(StoreUnavailable, match="Permission denied"):
        store_at(shared_root).list()


def test_a_version_behind_a_link_that_cannot_be_followed_is_a_problem_of_that_version(shared_root: Path) -> None:
    write_version(shared_root, ".hidden", "1")
    (shared_root / "iris").mkdir()
    (shared_root / "iris" / "1").symlink_to("../.hidden/1")
    (shared_root / ".hidden").chmod(0)
    with without_privileges():
        assert problem_of(shared_root, "iris/1") == "cannot be read: Permission denied"


def test_a_version_whose_link_moves_while_it_is_read_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("1")

    def fail(*_: str) -> str:
        raise BadLink("is a link that leads outside the store")

    monkeypatch.setattr("serving.store.model_directory.resolve", fail)
    assert problem_of(root, "iris/2") == "'2' is a link that leads outside the store"


def test_a_link_to_a_file_of_another_kind_is_left_alone(root: Path) -> None:
    write(root / "README.md")
    (root / "about").symlink_to("README.md")
    write_version(root, "iris", "1")
    (root / "iris" / "about").symlink_to("../README.md")
    assert versions(root) == ["1"]
    assert store_at(root).list().problems == ()


@pytest.mark.parametrize("level", ["iris/1", "iris", "."])
def test_a_config_map_swap_is_noticed_at_every_level(root: Path, level: str) -> None:
    directory = root / level
    name = {"iris/1": "model.joblib", "iris": "1.joblib", ".": "iris.joblib"}[level]
    for generation in ("..2026_1", "..2026_2"):
        write(directory / generation / name, generation.encode())
    swap(directory, "..2026_1")
    (directory / name).symlink_to(f"..data/{name}")
    store = store_at(root)
    before = store.list()
    assert before.models["iris"][0].problem is None
    assert store.list().models["iris"] is before.models["iris"]
    swap(directory, "..2026_2")
    after = store.list()
    assert after.models["iris"][0].fingerprint[0].inode == (directory / "..2026_2" / name).stat().st_ino
    assert after.models["iris"] != before.models["iris"]
    assert after.problems == ()


def test_a_directory_behind_a_link_is_read_again_when_it_changes(root: Path) -> None:
    hidden = write_version(root, ".hidden", "a")
    (root / "iris").mkdir()
    (root / "iris" / "1").symlink_to(hidden)
    store = store_at(root)
    store.list()
    write(hidden / "golden.json")
    assert [stamp.name for stamp in store.list().models["iris"][0].fingerprint] == ["golden.json", "model.joblib"]


def test_a_model_behind_a_link_is_read_again_when_the_link_moves(root: Path) -> None:
    write_version(root, ".one", "1", model_joblib=b"1")
    write_version(root, ".two", "1", model_joblib=b"2")
    (root / "iris").symlink_to(".one")
    store = store_at(root)
    before = store.list().models["iris"]
    (root / "iris").unlink()
    (root / "iris").symlink_to(".two")
    after = store.list().models["iris"]
    assert before[0].fingerprint != after[0].fingerprint


def test_what_is_resolved_is_the_real_path(root: Path) -> None:
    write_version(root, "iris", "1")
    (root / "iris" / "2").symlink_to("1")
    assert resolve(str(root), str(root / "iris" / "2")) == str(root / "iris" / "1")
    (root / "up").symlink_to("..")
    with pytest.raises(BadLink, match="directory that holds it"):
        resolve(str(root), str(root / "up"))

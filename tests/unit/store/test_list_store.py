"""What is in the store, and when it cannot be told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.domain.errors import StoreUnavailable
from serving.domain.first_bytes import HEAD_BYTES
from serving.domain.version import Format, order_key
from serving.settings import StoreSettings
from serving.store.list_store import Store
from tests.unit.store.files import (
    list_model,
    problem_of,
    store_at,
    versions,
    without_privileges,
    write,
    write_in_place,
    write_manifest,
    write_version,
)


def test_an_empty_store_is_empty(root: Path) -> None:
    listing = store_at(root).list()
    assert dict(listing.models) == {}
    assert listing.problems == ()


def test_a_version_directory_is_a_version(root: Path) -> None:
    directory = write_version(root, "iris", "3", model_joblib=b"model", README_md=b"read me")
    write_manifest(directory)
    (entry,) = list_model(root)
    assert (entry.model, entry.version, entry.path, entry.main) == ("iris", "3", "iris/3", "model.joblib")
    assert entry.format is Format.JOBLIB
    assert entry.has_manifest
    assert not entry.is_lone
    assert entry.problem is None
    assert [stamp.name for stamp in entry.fingerprint] == ["README.md", "manifest.json", "model.joblib"]
    found = (directory / "model.joblib").stat()
    stamp = entry.fingerprint[-1]
    assert (stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns) == (
        found.st_ino,
        5,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def test_what_mlflow_saves_is_a_version_with_companions(root: Path) -> None:
    companions = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "serving_input_example.json")
    for name in (*companions, "input_example.json", "model.pkl"):
        write(root / "iris" / "1" / name)
    (entry,) = list_model(root)
    assert (entry.main, entry.format, entry.problem) == ("model.pkl", Format.PICKLE, None)
    assert {*companions, "model.pkl"} <= {stamp.name for stamp in entry.fingerprint}


def test_a_single_file_is_a_version_named_without_its_suffix(root: Path) -> None:
    write(root / "iris" / "1.2.skops")
    (entry,) = list_model(root)
    assert (entry.version, entry.path, entry.main) == ("1.2", "iris/1.2.skops", "1.2.skops")
    assert entry.format is Format.SKOPS
    assert not entry.has_manifest
    assert [stamp.name for stamp in entry.fingerprint] == ["1.2.skops"]


def test_a_lone_file_is_a_model_whose_version_others_name(root: Path) -> None:
    write(root / "churn.onnx")
    (entry,) = list_model(root, "churn")
    assert (entry.version, entry.path, entry.main, entry.is_lone) == ("", "churn.onnx", "churn.onnx", True)
    assert entry.format is Format.ONNX


UNCOUNTED = "not count because of the name, as unfinished or by store.ignore"


def test_everything_else_is_left_alone(root: Path) -> None:
    write(root / "README.md")
    write(root / ".git" / "HEAD")
    write(root / "lost+found" / "x.joblib")
    write(root / "iris" / "README.md")
    write(root / "iris" / ".publishing-1" / "model.joblib")
    write(root / "iris" / "4.joblib.part")
    write(root / "iris" / "5.joblib~")
    write(root / "churn.joblib.tmp")
    (root / "hidden" / "1").mkdir(parents=True)
    write(root / "hidden" / "1" / ".model.joblib.x8Gh2")
    listing = store_at(root).list()
    assert dict(listing.models) == {}
    assert listing.problems == (f"'iris' holds no version yet; '4.joblib.part' and 1 more do {UNCOUNTED}",)


def test_empty_and_unfinished_directories_are_told(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "iris" / "1").mkdir(parents=True)
    write(root / "wine" / "2" / "model.joblib.tmp")
    write(root / "seen" / "1.joblib")
    (root / "seen" / "2").mkdir()
    assert store_at(root).list().problems == (
        "'empty' holds no version yet",
        "'iris/1' is an empty directory",
        "'seen/2' is an empty directory",
        f"'wine/2' holds no artefact yet; 'model.joblib.tmp' does {UNCOUNTED}",
    )


def test_a_problem_of_an_empty_directory_goes_when_it_is_filled(root: Path) -> None:
    (root / "iris").mkdir()
    store = store_at(root)
    assert store.list().problems == ("'iris' holds no version yet",)
    write_version(root, "iris", "1")
    assert store.list().problems == ()
    (root / "iris" / "1" / "model.joblib").unlink()
    assert store.list().problems == ("'iris/1' is an empty directory",)
    (root / "iris" / "1").rmdir()
    assert store.list().problems == ("'iris' holds no version yet",)


def test_ignored_patterns_do_not_exist_at_any_level(root: Path) -> None:
    write_version(root, "old-iris", "1")
    write_version(root, "iris", "old-1")
    write_version(root, "iris", "2", model_joblib=b"", old_pkl=b"")
    write(root / "old-churn.joblib")
    listing = store_at(root, ignore=("old*",)).list()
    assert list(listing.models) == ["iris"]
    assert [(entry.version, entry.problem) for entry in listing.models["iris"]] == [("2", None)]
    assert listing.problems == ()


def test_a_directory_without_an_artefact_is_not_a_version_yet(root: Path) -> None:
    write_version(root, "iris", "4", manifest_json=b"{}")
    write(root / "iris" / "5" / "inner" / "model.joblib")
    listing = store_at(root).list()
    assert dict(listing.models) == {}
    assert listing.problems == (
        "'iris/4' holds no artefact yet",
        "'iris/5' holds no artefact yet; 'inner' is a directory; files lie at MODEL/VERSION/FILE",
    )


def test_two_artefacts_in_a_version_are_a_problem_that_names_both(root: Path) -> None:
    write_version(root, "iris", "1", model_joblib=b"", model_pkl=b"")
    assert problem_of(root, "iris/1") == "holds 2 artefacts, 'model.joblib', 'model.pkl'; a version has exactly one"


def test_directories_inside_a_version_are_left_alone(root: Path) -> None:
    write_version(root, "iris", "1")
    write(root / "iris" / "1" / "plots" / "other.joblib")
    (entry,) = list_model(root)
    assert entry.problem is None
    assert [stamp.name for stamp in entry.fingerprint] == ["model.joblib"]


def test_versions_come_newest_first(root: Path) -> None:
    for version in ("1", "9", "10", "2.5"):
        write_version(root, "iris", version)
    write(root / "iris" / "v11.joblib")
    assert versions(root) == ["v11", "10", "9", "2.5", "1"]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(names=st.sets(st.from_regex(r"v?[0-9]{1,3}([.-][0-9a-c]{1,2}){0,2}", fullmatch=True), max_size=12))
def test_any_versions_come_in_descending_order_and_one_of_equals_is_good(root: Path, names: set[str]) -> None:
    shutil.rmtree(root / "iris", ignore_errors=True)
    for name in names:
        write_version(root, "iris", name)
    entries = list_model(root)
    keys = [order_key(entry.version) for entry in entries]
    assert {entry.version for entry in entries} == names
    assert keys == sorted(keys, reverse=True)
    good = [order_key(entry.version) for entry in entries if entry.problem is None]
    assert len(good) == len(set(good)) == len(set(keys))


def test_of_equal_versions_the_shortest_spelling_is_kept(root: Path) -> None:
    for version in ("v1", "01", "1"):
        write_version(root, "iris", version)
    assert versions(root) == ["1", "01", "v1"]
    assert problem_of(root, "iris/1") == ""
    assert problem_of(root, "iris/01") == ("'iris/1' is the same version: '01' and '1' are equal; rename one of them")
    assert "'iris/1' is the same version" in problem_of(root, "iris/v1")


def test_of_a_directory_and_a_single_file_of_the_same_version_the_directory_is_kept(root: Path) -> None:
    write(root / "iris" / "3.joblib")
    write(root / "iris" / "3.pkl")
    write_version(root, "iris", "3")
    assert problem_of(root, "iris/3") == ""
    assert problem_of(root, "iris/3.joblib") == "'iris/3' is the same version; remove one of them"
    assert problem_of(root, "iris/3.pkl") == "'iris/3' is the same version; remove one of them"


def test_a_directory_that_is_still_empty_takes_no_name(root: Path) -> None:
    (root / "iris" / "3").mkdir(parents=True)
    write(root / "iris" / "3.joblib")
    (root / "churn").mkdir()
    write(root / "churn.joblib")
    assert problem_of(root, "iris/3.joblib") == ""
    assert list_model(root, "churn")[0].is_lone


def test_of_a_directory_and_a_lone_file_of_the_same_model_the_directory_is_kept(root: Path) -> None:
    write(root / "iris.joblib")
    write_version(root, "iris", "1")
    listing = store_at(root).list()
    assert [entry.path for entry in listing.models["iris"]] == ["iris/1"]
    assert listing.problems == ("'iris.joblib' is left out: 'iris' is the same model; rename or remove one of them",)


def test_of_two_lone_files_of_the_same_model_the_first_is_kept(root: Path) -> None:
    write(root / "churn.joblib")
    write(root / "churn.pkl")
    listing = store_at(root).list()
    assert [entry.path for entry in listing.models["churn"]] == ["churn.joblib"]
    assert "'churn.joblib' is the same model" in listing.problems[0]


def test_models_that_differ_in_case_only_are_one_model(root: Path) -> None:
    for model in ("iris", "IRIS", "Iris"):
        write_version(root, model, "1")
    write(root / "iriS.joblib")
    listing = store_at(root).list()
    assert list(listing.models) == ["IRIS"]
    assert len(listing.problems) == 3
    assert all("'IRIS' is the same model" in problem for problem in listing.problems)


@pytest.mark.parametrize("name", ["active", "bad name", "-1", "ü", "x" * 101])
def test_a_bad_name_is_not_served_and_reported(root: Path, name: str) -> None:
    write_version(root, name, "1")
    write_version(root, "iris", name)
    write_version(root, "iris", "1")
    write(root / f"{name}.joblib")
    write(root / "iris" / f"{name}.pkl")
    listing = store_at(root).list()
    assert list(listing.models) == ["iris"]
    assert [entry.version for entry in listing.models["iris"]] == ["1"]
    assert len(listing.problems) == 4
    assert all(f"; rename {each!r}, for example to " in str(listing.problems) for each in (name, f"{name}.joblib"))
    assert sum(problem.startswith("in 'iris': ") for problem in listing.problems) == 2


def test_problems_are_sorted_and_bounded(root: Path) -> None:
    for number in range(60):
        write_version(root, f"-{number:02}", "1")
    problems = store_at(root).list().problems
    assert len(problems) == 51
    assert problems[:50] == tuple(sorted(problems[:50]))
    assert problems[50] == "and 10 more"


def test_names_that_are_not_unicode_are_reported_in_printable_form(root: Path) -> None:
    (root / "iris" / "1").mkdir(parents=True)
    for name in (b"mod\xe8le.joblib", b"line\nbreak.txt"):
        (root / "iris" / "1" / os.fsdecode(name)).touch()
    (root / os.fsdecode(b"mod\xe8le")).mkdir()
    problem = problem_of(root, "iris/1")
    assert "'mod\\udce8le.joblib' has characters that cannot be printed" in problem
    assert "'line\\nbreak.txt'" in problem
    assert all(line.isprintable() for line in (problem, *store_at(root).list().problems))


def test_an_artefact_suffix_on_a_directory_is_a_problem(root: Path) -> None:
    (root / "iris" / "3.joblib").mkdir(parents=True)
    (root / "churn.joblib").mkdir()
    assert problem_of(root, "iris/3.joblib") == "'3.joblib' is a directory; only regular files are read"
    assert store_at(root).list().problems == (
        "'churn.joblib': 'churn.joblib' is a directory; only regular files are read",
    )


def test_special_files_are_a_problem_and_never_opened(root: Path) -> None:
    write_version(root, "iris", "1")
    os.mkfifo(root / "iris" / "1" / "events")
    os.mkfifo(root / "iris" / "2.joblib")
    os.mkfifo(root / "churn.joblib")
    assert problem_of(root, "iris/1") == "'events' is a FIFO; only regular files are read"
    assert problem_of(root, "iris/2.joblib") == "'2.joblib' is a FIFO; only regular files are read"
    assert store_at(root).list().problems == ("'churn.joblib': 'churn.joblib' is a FIFO; only regular files are read",)


def test_hard_links_are_files_like_any_other(root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.joblib")
    (root / "iris").mkdir()
    os.link(outside, root / "iris" / "1.joblib")
    assert problem_of(root, "iris/1.joblib") == ""


def test_a_version_beyond_the_size_limit_is_a_problem(root: Path) -> None:
    write_version(root, "iris", "1", model_joblib=b"x" * 700_000, golden_json=b"x" * 700_000)
    write(root / "iris" / "2.joblib", b"x" * 1_048_576)
    assert problem_of(root, "iris/1", max_artifact_mb=1) == "is 1.3 MB; store.max_artifact_mb allows 1.0"
    assert problem_of(root, "iris/2.joblib", max_artifact_mb=1) == ""


def test_a_version_with_very_many_files_is_a_problem(root: Path) -> None:
    directory = write_version(root, "iris", "1")
    for number in range(1000):
        (directory / f"{number}.txt").touch()
    assert problem_of(root, "iris/1") == "holds 1001 files; a version has at most 1000"


def test_only_the_newest_versions_are_seen_beyond_the_limit(root: Path) -> None:
    for number in range(1, 13):
        write_version(root, "iris", str(number))
    assert versions(root, max_versions=3) == ["12", "11", "10"]
    assert store_at(root, max_versions=3).list().problems == ("'iris' has 12 versions; only the newest 3 are seen",)


def test_only_the_first_models_are_seen_beyond_the_limit(root: Path) -> None:
    for model in ("d", "c", "b", "a"):
        write_version(root, model, "1")
    write(root / "e.joblib")
    listing = store_at(root, max_models=2).list()
    assert list(listing.models) == ["a", "b"]
    assert listing.problems == ("3 models left out: store.max_models is 2; raise it, or remove models",)


def test_a_missing_root_is_not_an_empty_store(root: Path) -> None:
    root.rmdir()
    with pytest.raises(StoreUnavailable, match=r"there is no store at '.*store'; make an empty one: mkdir -p .*store"):
        store_at(root).list()


def test_a_file_in_place_of_the_root_is_not_an_empty_store(root: Path) -> None:
    root.rmdir()
    root.touch()
    with pytest.raises(StoreUnavailable, match=r"Not a directory \(.*\); a store is a directory"):
        store_at(root).list()


def test_a_root_link_that_leads_nowhere_is_not_an_empty_store(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root / "gone")
    with pytest.raises(StoreUnavailable, match="No such file"):
        store_at(link).list()


def test_an_unreadable_root_is_not_an_empty_store(shared_root: Path) -> None:
    shared_root.chmod(0)
    with without_privileges(), pytest.raises(StoreUnavailable, match="Permission denied"):
        store_at(shared_root).list()


def test_an_unreadable_model_is_not_an_empty_model(shared_root: Path) -> None:
    write_version(shared_root, "iris", "1")
    write_version(shared_root, "wine", "1")
    (shared_root / "iris").chmod(0)
    with (
        without_privileges(),
        pytest.raises(StoreUnavailable, match=r"Permission denied \(.*/iris\); let user \d+ read"),
    ):
        store_at(shared_root).list()


def test_an_unreadable_version_is_a_problem_of_that_version(shared_root: Path) -> None:
    for version in ("1", "2", "3"):
        write_version(shared_root, "iris", version)
    (shared_root / "iris" / "2").chmod(0)
    (shared_root / "iris" / "3").chmod(0o444)
    with without_privileges():
        entries = list_model(shared_root)
    assert [(entry.version, entry.problem) for entry in entries] == [
        ("3", "cannot be read: Permission denied"),
        ("2", "cannot be read: Permission denied"),
        ("1", None),
    ]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_error_in_the_middle_of_a_model_directory_is_not_an_empty_model(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_version(root, "iris", "1")

    def fail(*_: Any) -> list[str]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("serving.store.model_directory.os.listdir", fail)
    with pytest.raises(StoreUnavailable, match=os.strerror(code)):
        store_at(root).list()


def test_running_out_of_descriptors_says_nothing_of_a_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")

    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("serving.store.model_directory.read_directory", fail)
    with pytest.raises(StoreUnavailable, match="Too many open files"):
        store_at(root).list()


def test_a_store_comes_back_after_it_was_away(root: Path) -> None:
    write_version(root, "iris", "1")
    store = store_at(root)
    before = store.list()
    root.rename(root.with_name("away"))
    with pytest.raises(StoreUnavailable):
        store.list()
    root.with_name("away").rename(root)
    after = store.list()
    assert after == before
    assert after.models["iris"] is before.models["iris"]


def test_another_directory_in_place_of_the_root_is_noticed(root: Path) -> None:
    write_version(root, "iris", "1")
    store = store_at(root)
    before = store.list()
    root.rename(root.with_name("old"))
    write_version(root, "iris", "1")
    after = store.list()
    assert before.root == (root.with_name("old").stat().st_dev, root.with_name("old").stat().st_ino)
    assert after.root == (root.stat().st_dev, root.stat().st_ino)
    assert after.root != before.root
    assert after.models["iris"] != before.models["iris"]


def test_a_root_replaced_while_it_is_listed_is_listed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")
    replacement = root.with_name("new")
    write_version(replacement, "iris", "2")
    store = store_at(root)
    read_models = Store._read_models

    def replace_then_read(self: Store, now: Any) -> Any:
        if replacement.exists():
            root.rename(root.with_name("old"))
            replacement.rename(root)
        return read_models(self, now)

    monkeypatch.setattr(Store, "_read_models", replace_then_read)
    assert [entry.version for entry in store.list().models["iris"]] == ["2"]


def test_a_root_removed_while_it_is_listed_is_not_an_empty_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")
    store = store_at(root)
    read_models = Store._read_models

    def remove_then_read(self: Store, now: Any) -> Any:
        root.rename(root.with_name("away"))
        return read_models(self, now)

    monkeypatch.setattr(Store, "_read_models", remove_then_read)
    with pytest.raises(StoreUnavailable):
        store.list()


def test_a_model_that_vanishes_while_it_is_listed_is_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(root, "iris", "1")
    write_version(root, "wine", "1")
    read_model = Store._read_model

    def remove_then_read(self: Store, now: Any, model: str, *rest: Any) -> None:
        shutil.rmtree(root / "iris", ignore_errors=True)
        read_model(self, now, model, *rest)

    monkeypatch.setattr(Store, "_read_model", remove_then_read)
    assert list(store_at(root).list().models) == ["wine"]


# --- files of XGBoost and LightGBM ------------------------------------------------------------------------------------


def test_native_models_of_xgboost_and_lightgbm_are_artefacts_of_version_directories(root: Path) -> None:
    for version, name in enumerate(["model.json", "model.txt", "other.ubj"], 1):
        for beside in ("README.txt", "metrics.json", name):
            write(root / "iris" / str(version) / beside)
    found = [(entry.main, entry.format, entry.problem) for entry in list_model(root)]
    assert found == [
        ("other.ubj", Format.XGBOOST, None),
        ("model.txt", Format.LIGHTGBM, None),
        ("model.json", Format.XGBOOST, None),
    ]


def test_a_native_model_beside_another_artefact_is_one_too_many(root: Path) -> None:
    for name in ("model.json", "model.joblib", "golden.json"):
        write(root / "iris" / "1" / name)
    assert "holds 2 artefacts, 'model.joblib', 'model.json'; a version has exactly one" in problem_of(root, "iris/1")


def test_outside_version_directories_only_ubj_is_an_artefact(root: Path) -> None:
    for path in ("model.json", "model.txt", "iris/model.json", "iris/model.txt", "iris/3.ubj", "churn.ubj"):
        write(root / path)
    listing = store_at(root).list()
    assert sorted(listing.models) == ["churn", "iris"]
    assert [entry.path for entry in listing.models["iris"]] == ["iris/3.ubj"]
    assert listing.problems == tuple(
        f"'{path}' serves nothing: read in a version directory only: MODEL/VERSION/{path.rpartition('/')[2]}"
        for path in ("iris/model.json", "iris/model.txt", "model.json", "model.txt")
    )


def test_other_files_are_named_where_somebody_may_take_them_for_models(root: Path) -> None:
    for path in (
        "cat.cbm",
        "iris/net.pt",
        "iris/1/a.sav",
        "README.md",
        "iris/notes.md",
        "iris/2/model.pkl",
        "iris/2/x.csv",
    ):
        write(root / path)
    assert list(store_at(root).list().models) == ["iris"]
    cat, sav, net = store_at(root).list().problems
    assert cat.startswith("'cat.cbm' serves nothing: CatBoost's own format is not read here; save the model with")
    assert sav.startswith("'iris/1' holds no artefact yet; 'a.sav': no format is known by this ending; rename")
    assert net.startswith("'iris/net.pt' serves nothing: PyTorch's files are not read here; export")


# --- files whose names do not tell, by what is in them ----------------------------------------------------------------

XGBOOST_JSON = b'{"learner":{"attributes":{},"feature_names":[]},"version":[3,2,0]}'
XGBOOST_UBJSON = b"{L\0\0\0\0\0\0\0\x07learner{L\0\0\0\0\0\0\0\x0aattributes{}"
LIGHTGBM_TEXT = b"tree\nversion=v4\nnum_class=1\n"
GRAPH = b"\x08\x09\x12\x07pytorch"
PICKLED = b"\x80\x04\x95\0\0"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("xgb_model.json", XGBOOST_JSON, Format.XGBOOST),
        ("booster.bst", XGBOOST_UBJSON, Format.XGBOOST),
        ("model.xgb", XGBOOST_JSON, Format.XGBOOST),
        ("LGBM_model.TXT", LIGHTGBM_TEXT, Format.LIGHTGBM),
        ("model.lgb", LIGHTGBM_TEXT, Format.LIGHTGBM),
        ("any.model", LIGHTGBM_TEXT, Format.LIGHTGBM),
        ("any.model", GRAPH, Format.ONNX),
        ("model.json", LIGHTGBM_TEXT, Format.LIGHTGBM),
        ("final.sav", PICKLED, Format.PICKLE),
        ("model.bin", PICKLED, Format.PICKLE),
    ],
)
def test_in_a_version_directory_the_content_tells_what_the_name_does_not(
    root: Path, name: str, content: bytes, expected: Format
) -> None:
    write(root / "iris" / "1" / name, content)
    for beside in ("metrics.json", "config.json", "input_example.json", "manifest.json", "golden.json"):
        write(root / "iris" / "1" / beside, b'{"learner": {"eta": 0.3}}')
    write(root / "iris" / "1" / "notes.txt", b"tree of life")
    (entry,) = list_model(root)
    assert (entry.main, entry.format, entry.problem, entry.version) == (name, expected, None, "1")
    assert len(entry.fingerprint) == 7


@pytest.mark.parametrize("name", ["model.json", "metrics.json", "config.json", "booster.txt"])
def test_json_that_is_no_model_makes_no_directory_ambiguous(root: Path, name: str) -> None:
    write_version(root, "iris", "1", model_joblib=b"")
    write(root / "iris" / "1" / name, b'{"format": "pickle", "learner": "gbtree"}')
    (entry,) = list_model(root)
    assert (entry.main, entry.format, entry.problem) == ("model.joblib", Format.JOBLIB, None)


@pytest.mark.parametrize("other", ["model.joblib", "lgbm.txt", "model.json", "z.model"])
def test_two_models_are_told_by_name_whatever_tells_them(root: Path, other: str) -> None:
    write(root / "iris" / "1" / "xgb.json", XGBOOST_JSON)
    write(root / "iris" / "1" / other, LIGHTGBM_TEXT)
    both = ", ".join(repr(name) for name in sorted(("xgb.json", other)))
    assert problem_of(root, "iris/1") == f"holds 2 artefacts, {both}; a version has exactly one"


def test_a_pickle_whose_name_does_not_tell_is_a_part_of_the_model_beside_it(root: Path) -> None:
    for version, model in (("1", "model.joblib"), ("2", "xgb.json")):
        write(root / "iris" / version / model, XGBOOST_JSON)
        write(root / "iris" / version / "encoder.sav", PICKLED)
    assert [(entry.main, entry.problem) for entry in list_model(root)] == [("xgb.json", None), ("model.joblib", None)]
    write(root / "iris" / "3" / "model.sav", PICKLED)
    write(root / "iris" / "3" / "scaler.sav", PICKLED)
    assert "holds 2 artefacts, 'model.sav', 'scaler.sav'" in problem_of(root, "iris/3")


def test_single_and_lone_files_are_told_by_content(root: Path) -> None:
    write(root / "iris" / "1.json", XGBOOST_JSON)
    write(root / "iris" / "v2.txt", LIGHTGBM_TEXT)
    write(root / "iris" / "2026-11-20.sav", PICKLED)
    write(root / "churn.model", LIGHTGBM_TEXT)
    write(root / "churn.json", b'{"accuracy": 1}')
    write(root / "wine" / "1.json", b'{"accuracy": 1}')
    listing = store_at(root).list()
    assert [(entry.version, entry.path, entry.format) for entry in listing.models["iris"]] == [
        ("2026-11-20", "iris/2026-11-20.sav", Format.PICKLE),
        ("v2", "iris/v2.txt", Format.LIGHTGBM),
        ("1", "iris/1.json", Format.XGBOOST),
    ]
    (lone,) = listing.models["churn"]
    assert (lone.main, lone.format, lone.is_lone) == ("churn.model", Format.LIGHTGBM, True)
    no_model = "serves nothing: it does not begin as a model of XGBoost does, the only ones read under this ending"
    assert listing.problems == (f"'churn.json' {no_model}", f"'wine/1.json' {no_model}")


def test_under_a_word_a_file_beside_versions_is_told_and_is_none(root: Path) -> None:
    """It may be the preprocessor of the model beside it: what answered goes on answering."""
    write(root / "iris" / "model.joblib")
    write(root / "iris" / "xgb_model.json", XGBOOST_JSON)
    listing = store_at(root).list()
    assert [entry.path for entry in listing.models["iris"]] == ["iris/model.joblib"]
    (problem,) = listing.problems
    assert problem.startswith("'iris/xgb_model.json' serves nothing: name it by its version number, '1.json'")


@pytest.mark.parametrize("path", ["iris/1.json", "iris/1/xgb.json", "churn.json"])
def test_what_is_still_being_written_is_told_when_it_is_there(root: Path, path: str) -> None:
    """The directory itself does not change when a file in it grows."""
    write(root / "iris" / "0.joblib")
    write(root / path, b"")
    store = Store(StoreSettings(path=root))
    before = {entry.path for entries in store.list().models.values() for entry in entries}
    with (root / path).open("ab") as file:
        file.write(XGBOOST_JSON)
    (found,) = [entry for entries in store.list().models.values() for entry in entries if entry.path not in before]
    assert (found.format, found.problem) == (Format.XGBOOST, None)


@pytest.mark.parametrize("path", ["iris/1.json", "iris/1/xgb.json", "churn.json"])
def test_what_becomes_a_model_long_after_is_noticed(root: Path, path: str) -> None:
    write(root / "iris" / "0.joblib")
    write(root / path, b'{"accuracy": 1}')
    store = store_at(root)
    assert [entry.path for entry in store.list().models["iris"]] == ["iris/0.joblib"]
    store.list()
    write_in_place(root / path, XGBOOST_JSON)
    listing = store.list()
    assert [entry.format for entries in listing.models.values() for entry in entries].count(Format.XGBOOST) == 1


def test_files_that_were_looked_into_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("iris/1/xgb.json", "iris/1/metrics.json", "iris/2.json", "iris/notes.txt", "churn.json", "notes.txt"):
        write(root / path, XGBOOST_JSON if "notes" not in path and "metrics" not in path else b"{}")
    store = store_at(root)
    first = store.list()
    monkeypatch.setattr("serving.store.file_heads.os.pread", lambda *_: pytest.fail("a file was read again"))
    monkeypatch.setattr(Store, "_doubt_some_models", lambda _: None)  # reads versions again, each in its turn
    for _ in range(5):
        again = store.list()
        assert all(again.models[name] is first.models[name] for name in first.models)


def test_never_more_than_the_first_bytes_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "iris" / "1" / "huge.json", b" " * (1 << 20) + XGBOOST_JSON)
    asked: list[int] = []
    read = os.pread

    def note_and_read(file: int, size: int, at: int) -> bytes:
        asked.append(size)
        return read(file, size, at)

    monkeypatch.setattr("serving.store.file_heads.os.pread", note_and_read)
    assert dict(store_at(root).list().models) == {}
    assert asked
    assert max(asked) == HEAD_BYTES


def test_a_link_that_leads_outside_is_not_looked_into(root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.json", XGBOOST_JSON)
    (root / "iris" / "1").mkdir(parents=True)
    (root / "iris" / "1" / "xgb.json").symlink_to(outside)
    (root / "iris" / "2.json").symlink_to(outside)
    (root / "churn.json").symlink_to(outside)
    assert not [
        entry for entries in store_at(root).list().models.values() for entry in entries if entry.problem is None
    ]


def test_links_inside_are_looked_into(root: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    write(root / "iris" / "1" / "..data" / "xgb.json", XGBOOST_JSON)
    (root / "iris" / "1" / "xgb.json").symlink_to("..data/xgb.json")
    (root / "iris" / "2.json").symlink_to("1/..data/xgb.json")
    found = [(entry.path, entry.main, entry.format, entry.problem) for entry in list_model(root)]
    assert found == [
        ("iris/2.json", "2.json", Format.XGBOOST, None),
        ("iris/1", "xgb.json", Format.XGBOOST, None),
    ]


def test_special_files_under_these_names_are_never_opened(root: Path) -> None:
    (root / "iris" / "1").mkdir(parents=True)
    for path in ("iris/1/a.json", "iris/2.json", "churn.json"):
        os.mkfifo(root / path)
    assert dict(store_at(root).list().models) == {}


def test_an_unreadable_file_says_nothing_of_the_others(shared_root: Path) -> None:
    for path in ("iris/1.joblib", "iris/notes.txt", "notes.txt", "wine/1/model.joblib", "wine/1/metrics.json"):
        write(shared_root / path, b"{}")
    for path in ("iris/notes.txt", "notes.txt", "wine/1/metrics.json"):
        (shared_root / path).chmod(0)
    with without_privileges():
        listing = store_at(shared_root).list()
    assert [entry.problem for entry in listing.models["iris"]] == [None]
    (problem,) = [entry.problem for entry in listing.models["wine"]]
    assert problem is not None
    assert problem.startswith("cannot be read: ")


def test_a_name_that_steers_a_terminal_is_escaped(root: Path) -> None:
    write(root / "\x1b[31mred.cbm")
    write(root / "iris" / "\x1b[31mred.cbm")
    assert len(store_at(root).list().problems) == 2
    assert all("\x1b" not in problem for problem in store_at(root).list().problems)

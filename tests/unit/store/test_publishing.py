"""Publishing: a version is there completely or not at all, and never twice."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from serving.domain.errors import PublishRefused
from serving.domain.manifest import Golden, parse_golden, parse_manifest
from serving.domain.signature import Feature, Signature
from serving.settings import StateSettings
from serving.store.publishing import Publication, Published, publish
from serving.store.staging import Cache
from tests.unit.store.files import list_model, store_at, versions, without_privileges, write, write_version

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def write_model(file: BinaryIO) -> None:
    file.write(b"bytes of a model")


def publication(version: str | None = None, model: str = "iris", **changes: Any) -> Publication:
    given = {"artefact_name": "model.joblib", "artefact": write_model} | changes
    return Publication(model=model, version=version, **given)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_published_version_is_complete_and_stages_under_its_digest(root: Path) -> None:
    signature = Signature(features=(Feature(name="x0"),), methods=("predict",))
    golden = Golden(instances=[[1.5]], expected={"predict": ["größer"]})
    published = publish(
        root,
        publication(
            "2",
            libraries={"scikit-learn": "1.9.1", "numpy": "2.0"},
            metrics={"accuracy": 0.97},
            signature=signature,
            golden=golden,
            breaking=True,
        ),
        NOW,
    )
    assert published == Published(root / "iris" / "2", "2", published.digest)
    assert names(root / "iris") == ["2"]
    assert names(published.path) == ["golden.json", "manifest.json", "model.joblib"]
    manifest = parse_manifest((published.path / "manifest.json").read_bytes())
    assert (manifest.model, manifest.version, manifest.created_at) == ("iris", "2", NOW)
    assert (manifest.signature, manifest.breaking, manifest.metrics) == (signature, True, {"accuracy": 0.97})
    assert list(manifest.libraries) == ["numpy", "scikit-learn"]
    assert [file.name for file in manifest.files] == ["golden.json", "model.joblib"]
    assert parse_golden((published.path / "golden.json").read_bytes()) == golden
    cache = Cache(StateSettings(path=root.with_name("state")), root, 1 << 20)
    artifact = cache.stage(*list_model(root), "2", None, threading.Event())
    assert artifact.id.digest == published.digest


def test_a_signature_is_over_the_manifest_that_is_published_and_not_in_it(root: Path) -> None:
    signed: list[bytes] = []

    def sign(manifest: bytes) -> bytes:
        signed.append(manifest)
        return b"signature\n"

    published = publish(root, publication("1", sign=sign), NOW)
    assert names(published.path) == ["manifest.json", "manifest.sig", "model.joblib"]
    assert (published.path / "manifest.sig").read_bytes() == b"signature\n"
    assert signed == [(published.path / "manifest.json").read_bytes()]
    assert [file.name for file in parse_manifest(signed[0]).files] == ["model.joblib"]
    cache = Cache(StateSettings(path=root.with_name("state")), root, 1 << 20)
    assert cache.stage(*list_model(root), "1", None, threading.Event()).id.digest == published.digest


def test_a_number_taken_meanwhile_is_signed_anew_under_the_next(root: Path) -> None:
    signed: list[bytes] = []

    def sign(manifest: bytes) -> bytes:
        signed.append(manifest)
        if len(signed) == 1:
            write_version(root, "iris", "1")
        return str(len(signed)).encode()

    published = publish(root, publication(sign=sign), NOW)
    assert (published.version, (published.path / "manifest.sig").read_bytes()) == ("2", b"2")
    assert signed[-1] == (published.path / "manifest.json").read_bytes()
    assert [file.name for file in parse_manifest(signed[-1]).files] == ["model.joblib"]


def test_what_cannot_be_signed_is_not_published(root: Path) -> None:
    def sign(manifest: bytes) -> bytes:
        raise PublishRefused("no key")

    with pytest.raises(PublishRefused, match="no key"):
        publish(root, publication("1", sign=sign), NOW)
    assert names(root) == []


def test_a_manifest_reads_well_and_is_the_same_each_time(root: Path) -> None:
    first = publish(root, publication("1", metrics={"b": 1, "a": 2}), NOW)
    again = publish(root.with_name("other"), publication("1", metrics={"a": 2, "b": 1}), NOW)
    text = (first.path / "manifest.json").read_text()
    assert text == (again.path / "manifest.json").read_text()
    assert first.digest == again.digest
    assert text.startswith('{\n  "format_version": 1,\n  "model": "iris",\n')
    assert text.endswith("}\n")
    assert json.loads(text)["created_at"] == "2026-11-20T08:00:00Z"


def test_a_time_in_another_zone_is_written_in_utc(root: Path) -> None:
    path = publish(root, publication("1"), NOW.astimezone(timezone(timedelta(hours=9)))).path
    assert '"created_at": "2026-11-20T08:00:00Z"' in (path / "manifest.json").read_text()


def test_a_file_is_published_as_a_copy(root: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "trained.pkl", b"trained")
    published = publish(root, publication("1", artefact=source, artefact_name="trained.pkl"), NOW)
    assert (published.path / "trained.pkl").read_bytes() == b"trained"
    assert source.exists()


def test_what_writes_an_artefact_may_seek(root: Path) -> None:
    def write_backwards(file: BinaryIO) -> None:
        file.write(b"....model")
        file.seek(0)
        file.write(b"good")

    published = publish(root, publication("1", artefact=write_backwards), NOW)
    assert (published.path / "model.joblib").read_bytes() == b"goodmodel"
    cache = Cache(StateSettings(path=root.with_name("state")), root, 1 << 20)
    assert cache.stage(*list_model(root), "1", None, threading.Event()).id.digest == published.digest


def test_modes_follow_the_umask(root: Path) -> None:
    before = os.umask(0o027)
    try:
        published = publish(root, publication("1"), NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(published.path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in published.path.iterdir()} == {0o640}


@pytest.mark.parametrize(
    ("existing", "number"),
    [((), "1"), (("1", "2", "10"), "11"), (("v3",), "4"), (("007",), "8"), (("2", "1.5"), "3"), (("draft",), "1")],
)
def test_a_version_without_a_name_gets_the_next_number(root: Path, existing: tuple[str, ...], number: str) -> None:
    for version in existing:
        write_version(root, "iris", version)
    assert publish(root, publication(), NOW).version == number
    assert versions(root)[0] == number


def test_single_files_and_empty_directories_count_as_versions(root: Path) -> None:
    write(root / "iris" / "4.joblib")
    (root / "iris" / "5").mkdir()
    write(root / "iris" / "README")
    assert publish(root, publication(), NOW).version == "6"


def test_a_number_that_would_not_be_the_newest_is_refused(root: Path) -> None:
    write_version(root, "iris", "2026-11-20")
    with pytest.raises(
        PublishRefused, match=r"the newest version of 'iris' is '2026-11-20', which '1' would not replace"
    ):
        publish(root, publication(), NOW)


@pytest.mark.parametrize(("existing", "asked"), [("3", "3"), ("3", "v3"), ("v3", "03"), ("1.0", "1-0"), ("RC1", "rc1")])
def test_an_existing_version_is_never_changed(root: Path, existing: str, asked: str) -> None:
    write_version(root, "iris", existing)
    with pytest.raises(
        PublishRefused, match=f"version '{asked}' of 'iris' exists already .'iris/{existing}'."
    ) as raised:
        publish(root, publication(asked), NOW)
    assert "give it a new name, or none to get the next number" in str(raised.value)
    assert names(root / "iris") == [existing]


def test_a_version_that_exists_as_a_single_file_is_never_changed(root: Path) -> None:
    write(root / "iris" / "3.onnx")
    with pytest.raises(PublishRefused, match=r"exists already \('iris/3.onnx'\)"):
        publish(root, publication("3"), NOW)


@pytest.mark.parametrize("name", ["active", "../iris", "a b", "", ".hidden", "x" * 101])
def test_a_bad_name_is_refused(root: Path, name: str) -> None:
    with pytest.raises(PublishRefused, match="cannot be the name of a model"):
        publish(root, publication("1", model=name), NOW)
    with pytest.raises(PublishRefused, match="cannot be the name of a version"):
        publish(root, publication(name), NOW)
    assert all(names(directory) == [] for directory in root.iterdir())


def test_a_model_in_another_case_is_refused(root: Path) -> None:
    write_version(root, "Iris", "1")
    with pytest.raises(PublishRefused, match="differs from the model 'Iris' in upper and lower case only; use 'Iris'"):
        publish(root, publication("2"), NOW)
    assert names(root) == ["Iris"]


def test_a_model_that_is_a_lone_file_is_refused(root: Path) -> None:
    write(root / "iris.joblib")
    with pytest.raises(
        PublishRefused, match=r"'iris.joblib' is a lone file of 'iris': move it to 'iris/1.joblib' first"
    ):
        publish(root, publication("2"), NOW)


def test_models_whose_names_do_not_tell_take_names_too(root: Path) -> None:
    write(root / "iris" / "7.txt", b"tree\nversion=v4\n")
    write(root / "iris" / "9.json", b'{"accuracy": 1}')
    assert publish(root, publication(None), NOW).version == "8"
    write(root / "wine.txt", b"tree\nversion=v4\n")
    with pytest.raises(PublishRefused, match=r"'wine.txt' is a lone file of 'wine'"):
        publish(root, publication("2", "wine"), NOW)


@pytest.mark.parametrize(
    "name", ["model", "notes.txt", "a/model.joblib", "../m.joblib", ".m.joblib", "m é.pkl", "m.pkl~"]
)
def test_a_bad_artefact_name_is_refused(root: Path, name: str) -> None:
    with pytest.raises(PublishRefused, match=r"is not an artefact|cannot be the name of an artefact"):
        publish(root, publication("1", artefact_name=name), NOW)


@pytest.mark.parametrize("metrics", [{"loss": math.nan}, {"loss": [math.inf]}, {"loss": object()}, {"loss": {1}}])
def test_metrics_that_json_cannot_hold_are_refused(root: Path, metrics: dict[str, Any]) -> None:
    with pytest.raises(PublishRefused, match="cannot"):
        publish(root, publication("1", metrics=metrics), NOW)
    assert names(root) == []


@pytest.mark.parametrize("answer", [math.nan, b"bytes"])
def test_golden_examples_that_json_cannot_hold_are_refused(root: Path, answer: object) -> None:
    golden = Golden(instances=[[1.0]], expected={"predict": [answer]})
    with pytest.raises(PublishRefused, match=r"golden.json cannot be written as JSON"):
        publish(root, publication("1", golden=golden), NOW)
    assert names(root) == []


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_a_source_that_is_not_a_file_is_refused(root: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source.joblib"
    if kind == "directory":
        source.mkdir()
    elif kind == "fifo":
        os.mkfifo(source)
    with pytest.raises(PublishRefused, match=r"No such file|Is a directory|is not a regular file"):
        publish(root, publication("1", artefact=source), NOW)
    assert names(root) == []


def test_a_failing_writer_is_heard_and_leaves_nothing(root: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise TypeError("cannot pickle")

    with pytest.raises(TypeError, match="cannot pickle"):
        publish(root, publication("1", artefact=fail), NOW)
    assert names(root) == []


def test_a_failure_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = tmp_path / "store"
    for changes in ({"artefact": fail}, {"metrics": {"loss": math.nan}}, {"version": "active"}, {"model": "a/b"}):
        with pytest.raises(PublishRefused):
            publish(store, publication(**{"version": "1", **changes}), NOW)
        assert names(tmp_path) == []
    published = publish(store, publication("1"), NOW)
    with pytest.raises(PublishRefused, match="No space left on device"):
        publish(store, publication("2", artefact=fail), NOW)
    assert names(published.path.parent) == ["1"]


def test_a_publisher_that_fails_does_not_take_the_directory_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = os.mkdir, []

    def make_late(path: Any, *mode: Any) -> None:
        if Path(path).name.startswith(".publishing-") and len(removed) < 2:
            removed.append(Path(path).parent)
            removed[-1].rmdir()
            if len(removed) == 2:
                (tmp_path / "store").rmdir()
        make(path, *mode)

    monkeypatch.setattr(os, "mkdir", make_late)
    published = publish(tmp_path / "store", publication(), NOW)
    assert (names(published.path), len(removed)) == (["manifest.json", "model.joblib"], 2)


def test_the_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert publish(Path("store"), publication("1"), NOW).path == tmp_path / "store" / "iris" / "1"


def test_the_root_is_created_below_an_existing_directory_only(tmp_path: Path) -> None:
    publish(tmp_path / "store", publication("1"), NOW)
    with pytest.raises(PublishRefused, match="No such file or directory"):
        publish(tmp_path / "not" / "mounted", publication("1"), NOW)


def test_a_store_that_cannot_be_written_is_a_refusal_with_the_reason(shared_root: Path) -> None:
    shared_root.chmod(0o555)
    with (
        without_privileges(),
        pytest.raises(PublishRefused, match=r"'iris' cannot be published in .*: Permission denied"),
    ):
        publish(shared_root, publication("1"), NOW)


def test_nothing_is_visible_while_a_version_is_written(root: Path) -> None:
    store = store_at(root)
    seen = []

    def look_around(file: BinaryIO) -> None:
        file.write(b"half")
        seen.append(store.list())

    publish(root, publication("1", artefact=look_around), NOW)
    assert dict(seen[0].models) == {}
    assert seen[0].problems == ()
    assert versions(root) == ["1"]


def test_every_file_is_synced_before_the_version_gets_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    publish(root, publication("1", golden=Golden(instances=[[1]], expected={"predict": [1]})), NOW)
    aside = next(call for call in calls if call.startswith(".publishing-"))
    assert calls == ["store", "model.joblib", "golden.json", "manifest.json", aside, "rename", "iris"]


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script that publishes; `publication` and `NOW` are imported for it."""
    prelude = "import os, sys; from pathlib import Path; from tests.unit.store.test_publishing import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("point", ["os.fsync", "os.rename"])
def test_a_publisher_that_dies_leaves_nothing_visible(root: Path, point: str) -> None:
    script = f"""
        {point} = lambda *_: os._exit(9)
        Path(sys.argv[1], "iris").mkdir()
        publish(Path(sys.argv[1]), publication("1"), NOW)
    """
    with run(script, root) as publisher:
        publisher.communicate()
    assert publisher.returncode == 9
    (aside,) = names(root / "iris")
    assert aside.startswith(".publishing-")
    listing = store_at(root).list()
    assert dict(listing.models) == {}
    assert listing.problems == ()
    assert publish(root, publication(), NOW).version == "1"


def test_what_a_dead_publisher_left_is_removed_after_an_hour(root: Path) -> None:
    abandoned = write(root / "iris" / ".publishing-dead" / "model.joblib")
    alive = write(root / "iris" / ".publishing-alive" / "model.joblib")
    for path in (abandoned, abandoned.parent, alive.parent):
        os.utime(path, (NOW.timestamp() - 3601,) * 2)
    os.utime(alive, (NOW.timestamp() - 3599,) * 2)
    publish(root, publication("1"), NOW)
    assert names(root / "iris") == [".publishing-alive", "1"]


def test_publishers_at_the_same_time_each_get_a_number_of_their_own(root: Path) -> None:
    script = """
        sys.stdin.readline()
        for _ in range(5):
            print(publish(Path(sys.argv[1]), publication(), NOW).version)
    """
    publishers = [run(script, root) for _ in range(4)]
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    numbers = [number for publisher in publishers for number in publisher.communicate()[0].split()]
    assert sorted(map(int, numbers)) == list(range(1, 21))
    assert len(versions(root)) == 20
    assert all(
        json.loads((root / "iris" / number / "manifest.json").read_text())["version"] == number for number in numbers
    )
    assert all(not name.startswith(".") for name in names(root / "iris"))


def test_of_publishers_of_the_same_version_exactly_one_wins(root: Path) -> None:
    script = """
        sys.stdin.readline()
        try:
            print(publish(Path(sys.argv[1]), publication("7", metrics={"by": sys.argv[2]}), NOW).digest)
        except PublishRefused as error:
            print("refused" if "exists already" in str(error) else error)
    """
    publishers = [run(script, root, number) for number in range(4)]
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
    answers = [publisher.communicate()[0].strip() for publisher in publishers]
    (winner,) = [answer for answer in answers if answer.startswith("sha256:")]
    assert answers.count("refused") == 3
    cache = Cache(StateSettings(path=root.with_name("state")), root, 1 << 20)
    assert cache.stage(*list_model(root), "7", None, threading.Event()).id.digest == winner


def test_a_name_taken_at_the_last_moment_is_not_overwritten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def take_then_rename(source: Path, target: Path) -> None:
        if not target.exists():
            write(target / "model.joblib", b"of somebody else")
        rename(source, target)

    monkeypatch.setattr("serving.store.publishing.os.rename", take_then_rename)
    with pytest.raises(PublishRefused, match="exists already"):
        publish(root, publication("1"), NOW)
    assert (root / "iris" / "1" / "model.joblib").read_bytes() == b"of somebody else"
    assert names(root / "iris") == ["1"]


def test_a_number_taken_at_the_last_moment_is_followed_by_the_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def take_then_rename(source: Path, target: Path) -> None:
        if target.name in ("1", "2"):
            write(target / "model.joblib", b"of somebody else")
        rename(source, target)

    monkeypatch.setattr("serving.store.publishing.os.rename", take_then_rename)
    published = publish(root, publication(), NOW)
    assert published.version == "3"
    manifest = parse_manifest((published.path / "manifest.json").read_bytes())
    assert manifest.version == "3"
    assert [file.name for file in manifest.files] == ["model.joblib"]
    assert names(root / "iris") == ["1", "2", "3"]


def test_a_manifest_says_nothing_that_only_newer_releases_know_unless_it_must(root: Path) -> None:
    usual = Signature(features=(Feature(name="a"), Feature(name="b")), methods=("predict",))
    odd = Signature(features=(Feature(name="a", is_used=False), Feature(name="b")), methods=("predict",), is_typed=True)
    for version, signature in (("1", usual), ("2", odd)):
        found = publish(root, publication(version, signature=signature), NOW)
        raw = (Path(found.path) / "manifest.json").read_bytes()
        assert ((b"is_used" in raw), (b"is_typed" in raw)) == (version == "2", version == "2")
        assert b"environment" not in raw
        assert parse_manifest(raw).signature == signature

"""Copies of versions: private, verified, shared, and never half of anything."""

from __future__ import annotations

import json
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.domain.artifact import Artifact
from serving.domain.errors import Cancelled, NotPublished, StagingFailed
from serving.domain.listing import Entry
from serving.domain.version import Format, digest_of
from serving.settings import StateSettings
from serving.store import copying, durable, sources
from serving.store.staging import Cache
from tests.unit.store.files import (
    list_model,
    sha256,
    without_privileges,
    write,
    write_in_place,
    write_manifest,
    write_version,
)

QUIET = 0.5
MAX_BYTES = 64 << 20


def cache_for(root: Path, **changes: Any) -> Cache:
    return Cache(StateSettings(path=root.with_name("state"), **changes), root, MAX_BYTES)


@pytest.fixture
def cache(root: Path) -> Cache:
    return cache_for(root)


def stage(cache: Cache, entry: Entry, quiet_seconds: float | None = QUIET, version: str | None = None) -> Artifact:
    return cache.stage(entry, version or entry.version, quiet_seconds, threading.Event())


def names_below(root: Path, part: str = ".") -> list[str]:
    """The files in a part of the cache, relative to it."""
    directory = root.with_name("state") / "cache" / part
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def after_first_chunk(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], bytes_each: int = 4) -> None:
    """Have sources read a few bytes at a time, and call `act` once after the first of them."""
    pending = [act]

    def read_slowly(descriptor: int, _: memoryview) -> Iterator[memoryview]:
        while chunk := os.read(descriptor, bytes_each):
            yield memoryview(chunk)
            if pending:
                pending.pop()()

    monkeypatch.setattr(sources, "read_chunks", read_slowly)


def test_a_version_is_copied_under_its_hashes(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "3", model_joblib=b"model", golden_json=b"{}")
    write_manifest(directory)
    (entry,) = list_model(root)
    artifact = stage(cache, entry, quiet_seconds=None)
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert artifact.id.digest == digest_of((name, sha256(content)) for name, content in contents.items())
    assert (artifact.id.model, artifact.id.version, artifact.format) == ("iris", "3", Format.JOBLIB)
    assert artifact.quiet_seconds is None
    assert artifact.main.name == "model.joblib"
    assert artifact.main in artifact.files
    assert {file.name: Path(file.path).read_bytes() for file in artifact.files} == contents
    assert all(Path(file.path).name == file.sha256 == sha256(contents[file.name]) for file in artifact.files)
    assert all(file.size == len(contents[file.name]) for file in artifact.files)


def test_the_copy_is_private(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1").joinpath("model.joblib").chmod(0o666)
    artifact = stage(cache, *list_model(root))
    assert stat.S_IMODE(Path(artifact.main.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(root.with_name("state").joinpath("cache").stat().st_mode) == 0o700
    assert Path(artifact.main.path).is_absolute()


def test_later_edits_in_the_store_do_not_touch_the_copy(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"before")
    artifact = stage(cache, *list_model(root))
    write_in_place(directory / "model.joblib", b"after!")
    assert Path(artifact.main.path).read_bytes() == b"before"
    cache.verify(artifact)


def test_single_and_lone_files_keep_their_bare_names(root: Path, cache: Cache) -> None:
    write(root / "iris" / "3.pkl", b"single")
    write(root / "churn.joblib", b"lone")
    single = stage(cache, *list_model(root))
    lone = stage(cache, *list_model(root, "churn"), version="20261120T080000Z")
    assert (single.main.name, single.id.version, single.files) == ("3.pkl", "3", (single.main,))
    assert (lone.main.name, lone.id.version) == ("churn.joblib", "20261120T080000Z")
    assert lone.id.digest == digest_of([("churn.joblib", sha256(b"lone"))])


def test_an_empty_artefact_can_be_staged(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"")
    assert stage(cache, *list_model(root)).main.sha256 == sha256(b"")


def test_links_inside_of_the_store_are_staged_as_what_they_lead_to(root: Path, cache: Cache) -> None:
    write(root / "iris" / "1" / "..2026" / "model.joblib", b"behind a link")
    (root / "iris" / "1" / "..data").symlink_to("..2026")
    (root / "iris" / "1" / "model.joblib").symlink_to("..data/model.joblib")
    artifact = stage(cache, *list_model(root))
    assert Path(artifact.main.path).read_bytes() == b"behind a link"


def test_versions_share_the_bytes_they_share(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"one", golden_json=b"shared")
    write_version(root, "iris", "2", model_joblib=b"two", golden_json=b"shared")
    second, first = (stage(cache, entry) for entry in list_model(root))
    assert first.file("golden.json") == second.file("golden.json")
    assert names_below(root, "sha256") == sorted(sha256(content) for content in (b"one", b"two", b"shared"))


def test_the_same_bytes_under_two_versions_are_two_staged_versions(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    write_version(root, "iris", "2")
    for entry in list_model(root):
        stage(cache, entry)
    assert sorted(artifact.id.version for artifact in cache.artifacts("iris")) == ["1", "2"]


def test_what_is_in_the_cache_already_is_hashed_but_not_written_again(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1")
    first = stage(cache, *list_model(root))

    def refuse(*_: Any) -> str:
        raise AssertionError("nothing has to be copied")

    monkeypatch.setattr("serving.store.blobs.create_file", refuse)
    again = stage(cache_for(root), *list_model(root))
    assert again == first


def test_a_copy_is_held_against_its_hash_once_in_the_life_of_a_process(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1")
    stage(cache, *list_model(root))
    later = cache_for(root)
    hashed = []
    monkeypatch.setattr("serving.store.blobs.sha256_of", lambda chunks: hashed.append(1) or durable.sha256_of(chunks))
    for _ in range(3):
        stage(later, *list_model(root))
    assert hashed == [1]


def test_a_damaged_copy_is_replaced_when_it_is_staged_by_another_process(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"sound bytes")
    copy = Path(stage(cache, *list_model(root)).main.path)
    copy.write_bytes(b"rotten byte")
    reader = copy.open("rb")
    again = stage(cache_for(root), *list_model(root))
    assert Path(again.main.path).read_bytes() == b"sound bytes"
    with reader:
        assert reader.read() == b"rotten byte"


def test_a_truncated_copy_is_replaced_at_once(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"sound bytes")
    copy = Path(stage(cache, *list_model(root)).main.path)
    copy.write_bytes(b"sound")
    assert Path(stage(cache, *list_model(root)).main.path).read_bytes() == b"sound bytes"


def test_damage_is_found_by_verifying_and_mended_by_staging(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"sound bytes")
    artifact = stage(cache, *list_model(root))
    Path(artifact.main.path).write_bytes(b"rotten byte")
    with pytest.raises(StagingFailed, match=r"'model.joblib' of iris/1 .* is damaged or gone"):
        cache.verify(artifact)
    cache.verify(stage(cache, *list_model(root)))


def test_verifying_a_copy_that_is_gone_fails(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    artifact = stage(cache, *list_model(root))
    Path(artifact.main.path).unlink()
    with pytest.raises(StagingFailed, match="damaged or gone"):
        cache.verify(artifact)


def test_a_file_that_changed_since_it_was_listed_is_not_published(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"before")
    (entry,) = list_model(root)
    write_in_place(directory / "model.joblib", b"after!")
    with pytest.raises(NotPublished, match=r"'iris/1/model.joblib' has changed since it was listed"):
        stage(cache, entry)
    assert names_below(root) == []


def test_a_file_that_changes_while_it_is_copied_is_not_published(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"before" * 10)
    (entry,) = list_model(root)
    after_first_chunk(monkeypatch, lambda: write_in_place(directory / "model.joblib", b"after!"))
    with pytest.raises(NotPublished, match="has changed since it was listed"):
        stage(cache, entry)
    assert cache.artifacts("iris") == ()
    assert names_below(root, "tmp") == []


@pytest.mark.parametrize(("content", "verb"), [(b"longer than before", "grew"), (b"short", "shrank")])
def test_a_file_never_gives_more_or_less_than_was_listed(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, content: bytes, verb: str
) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"before now")
    (entry,) = list_model(root)
    after_first_chunk(monkeypatch, lambda: (directory / "model.joblib").write_bytes(content))
    with pytest.raises(NotPublished, match=f"'iris/1/model.joblib' {verb} while it was copied"):
        stage(cache, entry)
    assert names_below(root) == []


def test_a_file_that_grows_for_ever_is_not_copied_for_ever(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1", model_joblib=b"before now")
    endless = iter([memoryview(b"more")] * 1000)
    monkeypatch.setattr(sources, "read_chunks", lambda *_: endless)
    with pytest.raises(NotPublished, match="grew while it was copied"):
        stage(cache, *list_model(root))
    assert len(list(endless)) == 997


def test_a_file_that_is_replaced_while_it_is_copied_is_not_published(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"before" * 10)
    (entry,) = list_model(root)
    after_first_chunk(monkeypatch, lambda: write(directory / ".new").rename(directory / "model.joblib"))
    with pytest.raises(NotPublished, match="has changed since it was listed"):
        stage(cache, entry)


@pytest.mark.parametrize("victim", ["iris/1/model.joblib", "iris/1", "iris"])
def test_files_that_vanish_are_not_published(root: Path, cache: Cache, victim: str) -> None:
    write_version(root, "iris", "1")
    (entry,) = list_model(root)
    (root / victim).rename(root / "gone")
    with pytest.raises(NotPublished, match="is gone"):
        stage(cache, entry)


def test_a_store_that_is_away_is_a_failure_that_may_pass(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    (entry,) = list_model(root)
    root.rename(root.with_name("away"))
    with pytest.raises(StagingFailed, match="cannot be read"):
        stage(cache, entry)


def test_a_file_that_is_still_open_for_writing_is_not_published(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1")
    with (directory / "model.joblib").open("r+b"), pytest.raises(NotPublished, match="still open for writing"):
        stage(cache, *list_model(root))
    assert stage(cache, *list_model(root))


def test_a_writer_that_comes_while_the_file_is_copied_is_seen(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_version(root, "iris", "1")
    writers = []
    after_first_chunk(monkeypatch, lambda: writers.append((directory / "model.joblib").open("r+b")))
    with pytest.raises(NotPublished, match="still open for writing"):
        stage(cache, *list_model(root))
    writers[0].close()


@pytest.mark.parametrize("level", ["iris/1/model.joblib", "iris/1", "iris"])
def test_a_link_out_of_the_store_made_after_the_listing_is_never_followed(root: Path, cache: Cache, level: str) -> None:
    write_version(root, "iris", "1", model_joblib=b"inside")
    (entry,) = list_model(root)
    outside = root.with_name("outside")
    (root / level).rename(outside)
    (root / level).symlink_to(outside)
    with pytest.raises(NotPublished, match="leads outside the store"):
        stage(cache, entry)
    assert names_below(root) == []


@pytest.mark.parametrize("level", ["iris/1/model.joblib", "iris/1", "iris"])
def test_a_link_made_between_the_check_and_the_opening_is_never_followed(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    write_version(root, "iris", "1", model_joblib=b"inside")
    (entry,) = list_model(root)
    open_beneath = sources.VersionSource._open_beneath

    def swap_then_open(self: sources.VersionSource, real: str) -> int:
        outside = root.with_name("outside")
        (root / level).rename(outside)
        (root / level).symlink_to(outside)
        return open_beneath(self, real)

    monkeypatch.setattr(sources.VersionSource, "_open_beneath", swap_then_open)
    with pytest.raises(NotPublished, match="is gone"):
        stage(cache, entry)


def test_a_fifo_in_place_of_a_file_does_not_block(root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_version(root, "iris", "1")
    (entry,) = list_model(root)
    monkeypatch.setattr(sources.VersionSource, "require_unchanged", lambda self: None)
    (directory / "model.joblib").unlink()
    os.mkfifo(directory / "model.joblib")
    with pytest.raises(NotPublished, match="has changed"):
        stage(cache, entry)


def test_an_entry_with_a_problem_is_not_published(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=b"", model_pkl=b"")
    with pytest.raises(NotPublished, match="'iris/1': holds 2 artefacts"):
        stage(cache, *list_model(root))


def test_without_a_manifest_quiet_is_needed(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    with pytest.raises(NotPublished, match=r"has no manifest.json and has not been quiet yet"):
        stage(cache, *list_model(root), quiet_seconds=None)
    assert stage(cache, *list_model(root), quiet_seconds=0.0).quiet_seconds == 0.0


def other_size(directory: Path) -> None:
    write(directory / "model.joblib", b"other size")


def other_bytes(directory: Path) -> None:
    write(directory / "model.joblib", b"lodem")


def missing_golden(directory: Path) -> None:
    (directory / "golden.json").unlink()


def missing_artefact(directory: Path) -> None:
    (directory / "model.joblib").rename(directory / "other.joblib")


def half_a_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_text((directory / "manifest.json").read_text()[:40])


def unknown_field(directory: Path) -> None:
    write_manifest(directory, colour="green")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_size, "'iris/1': 'model.joblib' has 10 bytes, manifest.json says 5"),
        (other_bytes, "'iris/1': 'model.joblib' is not the file whose sha256 manifest.json gives"),
        (missing_golden, "'iris/1': 'golden.json' is in manifest.json and not there yet"),
        (missing_artefact, "'iris/1': 'model.joblib' is in manifest.json and not there yet"),
        (half_a_manifest, "'iris/1': manifest.json: document: "),
        (unknown_field, "'iris/1': manifest.json: colour: "),
    ],
)
def test_files_that_do_not_match_their_manifest_are_taken_only_once_they_are_quiet(
    root: Path, cache: Cache, damage: Callable[[Path], None], reason: str
) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"model", golden_json=b"{}")
    write_manifest(directory)
    assert stage(cache, *list_model(root), quiet_seconds=None)
    damage(directory)
    with pytest.raises(NotPublished) as raised:
        stage(cache, *list_model(root), quiet_seconds=None)
    assert str(raised.value).startswith(reason)
    artifact = stage(cache, *list_model(root), quiet_seconds=QUIET)
    assert artifact.quiet_seconds == QUIET
    assert artifact.file("manifest.json") is not None


def test_an_artefact_that_the_manifest_does_not_list_is_not_published(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1", model_joblib=b"model", notes_txt=b"x")
    write_manifest(directory, files=[{"name": "notes.txt", "sha256": sha256(b"x"), "size": 1}])
    with pytest.raises(NotPublished, match=r"'model.joblib' is there and not in manifest.json"):
        stage(cache, *list_model(root), quiet_seconds=None)


def test_a_file_that_the_manifest_does_not_list_is_part_of_the_version(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1")
    write_manifest(directory)
    before = stage(cache, *list_model(root), quiet_seconds=None)
    write(directory / "README.md")
    after = stage(cache, *list_model(root), quiet_seconds=None)
    assert after.id.digest != before.id.digest


def test_a_manifest_of_another_version_is_for_the_gates_to_refuse(root: Path, cache: Cache) -> None:
    directory = write_version(root, "iris", "1")
    write_manifest(directory, model="wine", version="7")
    assert stage(cache, *list_model(root), quiet_seconds=None).id.version == "1"


def test_a_manifest_that_cannot_match_stops_the_copy_before_the_artefact(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_version(root, "iris", "1", a_joblib=b"model")
    write_manifest(directory)
    write(directory / "a.joblib", b"other size")
    (entry,) = list_model(root)
    copied = []
    copy_file = copying._copy_file

    def record(source: Any, stamp: Any, *rest: Any, **given: Any) -> Any:
        copied.append(stamp.name)
        return copy_file(source, stamp, *rest, **given)

    monkeypatch.setattr(copying, "_copy_file", record)
    with pytest.raises(NotPublished):
        stage(cache, entry, quiet_seconds=None)
    assert copied == ["manifest.json"]


def test_a_manifest_too_large_to_read_is_not_published(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(write_version(root, "iris", "1"))
    monkeypatch.setattr(copying, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(NotPublished, match=r"manifest.json has \d+ bytes, at most 10"):
        stage(cache, *list_model(root), quiet_seconds=None)


def test_a_cancelled_copy_stops_at_the_next_block_and_leaves_nothing(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1", model_joblib=b"x" * 1000)
    cancel = threading.Event()
    read = []

    def read_slowly(descriptor: int, _: memoryview) -> Iterator[memoryview]:
        while chunk := os.read(descriptor, 10):
            read.append(chunk)
            yield memoryview(chunk)
            cancel.set()

    monkeypatch.setattr(sources, "read_chunks", read_slowly)
    (entry,) = list_model(root)
    with pytest.raises(Cancelled):
        cache.stage(entry, "1", QUIET, cancel)
    assert len(read) == 2
    assert names_below(root) == []


def test_a_copy_cancelled_before_it_began_reads_nothing(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    cancel = threading.Event()
    cancel.set()
    (entry,) = list_model(root)
    with pytest.raises(Cancelled):
        cache.stage(entry, "1", QUIET, cancel)
    assert not root.with_name("state").exists()


def test_a_version_beyond_the_size_limit_is_not_copied(root: Path) -> None:
    write_version(root, "iris", "1", model_joblib=b"x" * 60, golden_json=b"x" * 41)
    cache = Cache(StateSettings(path=root.with_name("state")), root, 100)
    with pytest.raises(StagingFailed, match="'iris/1' has 101 bytes, more than the 100 allowed"):
        stage(cache, *list_model(root))


def test_a_full_disk_fails_with_the_reason_and_leaves_nothing(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1", model_joblib=os.urandom(3 << 20))
    (entry,) = list_model(root)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(StagingFailed, match="'iris/1' cannot be copied into the cache: File too large"):
            stage(cache, entry)
        assert names_below(root) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stage(cache, entry)


def test_a_file_in_place_of_the_state_directory_fails_with_the_reason(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    root.with_name("state").touch()
    with pytest.raises(StagingFailed, match="cannot be copied into the cache"):
        stage(cache, *list_model(root))
    for read in (lambda: cache.artifacts("iris"), cache.models):
        with pytest.raises(StagingFailed, match="the cache cannot be read: Not a directory"):
            read()


def test_a_state_directory_that_cannot_be_written_fails_with_the_reason(shared_root: Path) -> None:
    root = shared_root / "store"
    write_version(root, "iris", "1")
    cache = cache_for(root)
    shared_root.chmod(0o555)
    with without_privileges(), pytest.raises(StagingFailed, match="Permission denied"):
        stage(cache, *list_model(root))


def test_a_store_file_that_cannot_be_read_fails_with_the_reason(shared_root: Path) -> None:
    root = shared_root / "store"
    shared_root.chmod(0o777)
    write_version(root, "iris", "1").joinpath("model.joblib").chmod(0)
    cache = cache_for(root)
    with (
        without_privileges(),
        pytest.raises(StagingFailed, match=r"'iris/1/model.joblib' cannot be read: Permission denied"),
    ):
        stage(cache, *list_model(root))


def test_a_cache_that_is_removed_under_a_copy_fails_with_the_reason(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1")
    aside = root.with_name("state") / "cache" / "sha256"
    after_first_chunk(monkeypatch, lambda: aside.rmdir() if aside.exists() else None)
    with pytest.raises(StagingFailed, match="No such file or directory"):
        stage(cache, *list_model(root))
    assert names_below(root) == []


def test_versions_are_remembered_across_processes_last_used_first(root: Path, cache: Cache) -> None:
    staged = []
    for version in ("1", "2", "3"):
        write_version(root, "iris", version, model_joblib=version.encode())
        staged.append(stage(cache, list_model(root)[0]))
    cache.touch(staged[0])
    later = cache_for(root)
    assert later.artifacts("iris") == (staged[0], staged[2], staged[1])
    assert later.models() == ("iris",)
    assert later.artifacts("wine") == ()


def test_a_clock_set_back_does_not_change_what_was_used_last(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1", model_joblib=b"1")
    write_version(root, "iris", "2", model_joblib=b"2")
    second, first = list_model(root)
    stage(cache, first)
    monkeypatch.setattr("serving.store.descriptors.time.time_ns", lambda: 10**9)
    stage(cache, second)
    assert [artifact.id.version for artifact in cache.artifacts("iris")] == ["2", "1"]
    cache.touch(cache.artifacts("iris")[1])
    assert [artifact.id.version for artifact in cache.artifacts("iris")] == ["1", "2"]


def test_touching_a_version_whose_descriptor_is_gone_writes_it_anew(root: Path, cache: Cache) -> None:
    write_version(root, "iris", "1")
    artifact = stage(cache, *list_model(root))
    (descriptor,) = root.with_name("state").joinpath("cache", "versions", "iris").iterdir()
    descriptor.unlink()
    cache.touch(artifact)
    assert cache.artifacts("iris") == (artifact,)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text(""),
        lambda path: edit(path, digest="sha256:" + "0" * 64),
        lambda path: edit(path, model="wine"),
        lambda path: edit(path, version="../../1"),
        lambda path: edit(path, main="other.joblib"),
        lambda path: edit(path, files=[]),
        lambda path: edit(path, files=[{"name": "model.joblib", "sha256": "../../passwd", "size": 1}]),
        lambda path: (path.parents[2] / "sha256" / sha256(b"bytes of a model")).unlink(),
        lambda path: (path.parents[2] / "sha256" / sha256(b"bytes of a model")).write_bytes(b"short"),
        lambda path: path.rename(path.with_name("other.json")),
    ],
)
def test_a_damaged_descriptor_is_dropped(root: Path, cache: Cache, damage: Callable[[Path], object]) -> None:
    write_version(root, "iris", "1")
    stage(cache, *list_model(root))
    (descriptor,) = root.with_name("state").joinpath("cache", "versions", "iris").iterdir()
    damage(descriptor)
    assert cache.artifacts("iris") == ()
    assert names_below(root, "versions") == []


def test_many_threads_stage_the_same_and_other_versions_at_once(root: Path, cache: Cache) -> None:
    for version in range(1, 5):
        write_version(root, "iris", str(version), model_joblib=str(version).encode(), golden_json=b"shared")
    entries = list_model(root) * 4
    with ThreadPoolExecutor(8) as pool:
        staged = list(pool.map(lambda entry: stage(cache, entry), entries))
    assert {artifact.id.version: artifact for artifact in staged} == {
        artifact.id.version: artifact for artifact in cache.artifacts("iris")
    }
    assert len(names_below(root, "sha256")) == 5
    assert names_below(root, "tmp") == []


def test_what_is_written_is_synced_before_it_gets_its_name(
    root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(root, "iris", "1")
    (entry,) = list_model(root)
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_rename(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    stage(cache, entry)
    assert calls == ["file", "rename", "directory", "file", "rename", "directory"]


def test_a_manifest_can_be_added_without_reading_the_files_again(cache: Cache, root: Path) -> None:
    version = write_version(root, "m", "1", model_joblib=b"model")
    staged = stage(cache, list_model(root, "m")[0])
    raw = b'{"format_version": 1}'
    named = cache.add_manifest(staged, "2", raw)
    assert (named.id.version, named.main, named.quiet_seconds) == ("2", staged.main, None)
    assert named.id.digest == digest_of([("model.joblib", sha256(b"model")), ("manifest.json", sha256(raw))])
    again = cache.add_manifest(named, "3", b"{}")
    assert [file.name for file in again.files] == ["manifest.json", "model.joblib"]
    cache.verify(again)
    assert {one.id for one in cache.artifacts("m")} == {staged.id, named.id, again.id}
    assert sorted(path.name for path in version.iterdir()) == ["model.joblib"], "the store is left as it is"

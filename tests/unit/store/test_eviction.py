"""What leaves the cache, and what never does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

import pytest

from serving.domain.artifact import Artifact, StagedFile
from serving.domain.errors import StagingFailed
from serving.domain.listing import Entry
from serving.domain.version import Format, VersionId
from serving.settings import StateSettings
from serving.store.descriptors import Cached, Descriptors
from serving.store.eviction import choose_surplus
from serving.store.staging import Cache
from tests.unit.store.files import list_model, without_privileges, write, write_version

MB = 1 << 20


def cached(name: str, used: int, **files: int) -> Cached:
    """A staged version `model/version` whose files have the given sizes; its digest is its name."""
    model, version = name.split("/")
    staged = tuple(StagedFile(key, key, size, PurePath(key)) for key, size in (files or {name: 1}).items())
    return Cached(Artifact(VersionId(model, version, name), Format.JOBLIB, staged[0], staged), name, used)


def given_up(versions: list[Cached], in_use: set[str], max_versions: int = 99, max_bytes: int = 10**9) -> list[str]:
    return [one.path for one in choose_surplus(versions, in_use, max_versions, max_bytes)]


def test_versions_used_last_stay() -> None:
    versions = [cached("m/1", 3), cached("m/2", 1), cached("m/3", 2), cached("n/1", 0)]
    assert given_up(versions, set(), max_versions=2) == ["m/2"]


def test_versions_in_use_stay_and_count() -> None:
    versions = [cached("m/1", 1), cached("m/2", 2), cached("m/3", 3), cached("m/4", 4)]
    assert given_up(versions, {"m/1"}, max_versions=2) == ["m/3", "m/2"]
    assert given_up(versions, {"m/1", "m/2", "m/3"}, max_versions=1) == ["m/4"]


def test_bytes_are_counted_over_all_models_and_the_oldest_goes_first() -> None:
    versions = [cached("m/1", 1, a=40), cached("n/1", 2, b=40), cached("m/2", 3, c=40)]
    assert given_up(versions, set(), max_bytes=80) == ["m/1"]
    assert given_up(versions, set(), max_bytes=79) == ["m/1", "n/1"]
    assert given_up(versions, {"m/1"}, max_bytes=80) == ["n/1"]


def test_versions_in_use_may_exceed_the_bytes() -> None:
    assert given_up([cached("m/1", 1, a=40), cached("m/2", 2, b=40)], {"m/1", "m/2"}, max_bytes=1) == []


def test_shared_files_count_once_and_free_nothing_while_they_are_shared() -> None:
    versions = [cached("m/1", 1, shared=50, a=10), cached("m/2", 2, shared=50, b=10), cached("m/3", 3, c=10)]
    assert given_up(versions, set(), max_bytes=80) == []
    assert given_up(versions, set(), max_bytes=70) == ["m/1"]
    assert given_up(versions, set(), max_bytes=69) == ["m/1", "m/2"]


def cache_for(root: Path, **changes: Any) -> Cache:
    return Cache(StateSettings(path=root.with_name("state"), **changes), root, 1 << 30)


def stage(cache: Cache, entry: Entry) -> Artifact:
    return cache.stage(entry, entry.version, 0.5, threading.Event())


def populate(root: Path, *versions: str, bytes_each: int = 10) -> list[Entry]:
    """Write versions with contents of their own and return their entries in the order given."""
    for version in versions:
        write_version(root, "iris", version, model_joblib=version.encode() * bytes_each)
    entries = {entry.version: entry for entry in list_model(root)}
    return [entries[version] for version in versions]


def left(cache: Cache) -> list[str]:
    return [artifact.id.version for artifact in cache.artifacts("iris")]


def blobs(root: Path) -> int:
    return len(list((root.with_name("state") / "cache" / "sha256").iterdir()))


def test_the_cache_keeps_the_versions_used_last(root: Path) -> None:
    cache = cache_for(root, cache_versions=2)
    for entry in populate(root, "1", "2", "3"):
        stage(cache, entry)
    cache.evict(())
    assert left(cache) == ["3", "2"]
    assert blobs(root) == 2


def test_the_cache_keeps_what_is_in_use(root: Path) -> None:
    cache = cache_for(root, cache_versions=1)
    digests = [stage(cache, entry).id.digest for entry in populate(root, "1", "2", "3")]
    cache.evict({digests[0]})
    assert left(cache) == ["1"]
    for artifact in cache.artifacts("iris"):
        cache.verify(artifact)


def test_the_cache_keeps_to_its_size(root: Path) -> None:
    cache = cache_for(root, cache_mb=2.5)
    for entry in populate(root, "1", "2", "3", bytes_each=MB):
        stage(cache, entry)
    cache.evict(())
    assert left(cache) == ["3", "2"]


def test_a_shared_file_stays_while_one_version_has_it(root: Path) -> None:
    for version in ("1", "2"):
        write_version(root, "iris", version, model_joblib=version.encode(), golden_json=b"shared")
    cache = cache_for(root, cache_versions=1)
    for entry in reversed(list_model(root)):
        stage(cache, entry)
    cache.evict(())
    assert left(cache) == ["2"]
    assert blobs(root) == 2
    cache.verify(cache.artifacts("iris")[0])


def test_an_artifact_somebody_holds_is_not_evicted(root: Path) -> None:
    cache = cache_for(root, cache_versions=1)
    entries = populate(root, "1", "2")
    held = stage(cache, entries[0])
    stage(cache, entries[1])
    cache.evict(())
    assert left(cache) == ["1"]
    cache.verify(held)
    stage(cache, entries[1])
    del held
    cache.evict(())
    assert left(cache) == ["2"]


def test_each_of_two_equal_artifacts_keeps_the_copy(root: Path) -> None:
    cache = cache_for(root, cache_versions=1)
    entries = populate(root, "1", "2")
    first = stage(cache, entries[0])
    (second,) = cache.artifacts("iris")
    assert first == second
    stage(cache, entries[1])
    del first
    cache.evict(())
    cache.verify(second)


def test_a_held_artifact_outlives_its_descriptor(root: Path) -> None:
    cache = cache_for(root)
    held = stage(cache, *populate(root, "1"))
    for descriptor in (root.with_name("state") / "cache" / "versions" / "iris").iterdir():
        descriptor.unlink()
    cache.evict(())
    cache.verify(held)


def test_what_a_dead_process_left_is_removed(root: Path) -> None:
    cache = cache_for(root)
    stage(cache, *populate(root, "1"))
    state = root.with_name("state") / "cache"
    write(state / "tmp" / "half a copy")
    write(state / "sha256" / ("0" * 64))
    cache.evict(())
    assert list((state / "tmp").iterdir()) == []
    assert blobs(root) == 1


def test_a_version_is_not_evicted_before_it_is_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_for(root)
    write_descriptor = Descriptors.write

    def evict_then_write(self: Descriptors, artifact: Artifact) -> None:
        cache.evict(())
        write_descriptor(self, artifact)

    monkeypatch.setattr(Descriptors, "write", evict_then_write)
    artifact = stage(cache, *populate(root, "1"))
    cache.verify(artifact)


def test_a_version_remembered_while_others_are_evicted_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_for(root)
    entries = populate(root, "1", "2")
    stage(cache, entries[0])
    read = Descriptors.read
    pending = [entries[1]]

    def read_then_stage(self: Descriptors, model: str) -> Any:
        found = read(self, model)
        if pending:
            stage(cache, pending.pop())
        return found

    monkeypatch.setattr(Descriptors, "read", read_then_stage)
    cache.evict(())
    assert sorted(left(cache)) == ["1", "2"]
    for artifact in cache.artifacts("iris"):
        cache.verify(artifact)


def test_a_version_staged_again_just_before_it_would_go_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_for(root, cache_versions=1)
    entries = populate(root, "1", "2")
    for entry in entries:
        stage(cache, entry)
    remove = Descriptors.remove

    def stage_then_remove(self: Descriptors, cached: Cached) -> None:
        stage(cache, entries[0])
        remove(self, cached)

    monkeypatch.setattr(Descriptors, "remove", stage_then_remove)
    cache.evict(())
    assert left(cache) == ["1", "2"]
    for artifact in cache.artifacts("iris"):
        cache.verify(artifact)


def test_a_copy_under_way_is_not_taken_for_a_leftover(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_for(root)
    (entry,) = populate(root, "1")
    rename = Path.rename

    def evict_then_rename(source: str, target: str) -> None:
        monkeypatch.undo()
        cache.evict(())
        rename(Path(source), target)

    monkeypatch.setattr("serving.store.blobs.os.rename", evict_then_rename)
    cache.verify(stage(cache, entry))


def test_staging_and_evicting_at_the_same_time_never_breaks_a_version(root: Path) -> None:
    cache = cache_for(root, cache_versions=1)
    entries = populate(root, "1", "2", "3", "4")
    stopped = threading.Event()

    def stage_again_and_again(entry: Entry) -> None:
        for _ in range(8):
            cache.verify(stage(cache, entry))

    def evict_again_and_again() -> None:
        while not stopped.is_set():
            cache.evict(())

    with ThreadPoolExecutor(5) as pool:
        evicting = pool.submit(evict_again_and_again)
        try:
            for done in [pool.submit(stage_again_and_again, entry) for entry in entries]:
                done.result()
        finally:
            stopped.set()
        evicting.result()
    cache.evict(())
    assert len(left(cache)) == 1
    assert blobs(root) == 1


def test_an_eviction_without_a_cache_does_nothing(root: Path) -> None:
    cache_for(root).evict(())
    assert not root.with_name("state").exists()


def test_a_cache_that_cannot_be_changed_fails_with_the_reason(shared_root: Path) -> None:
    root = shared_root / "store"
    cache = cache_for(root, cache_versions=1)
    for entry in populate(root, "1", "2"):
        stage(cache, entry)
    (shared_root / "state").chmod(0o755)
    for directory in ("cache/versions/iris", "cache/versions", "cache/sha256", "cache"):
        (shared_root / "state" / directory).chmod(0o555)
    with without_privileges(), pytest.raises(StagingFailed, match="the cache cannot be cleaned up: Permission denied"):
        cache.evict(())

"""Every way in which files reach a directory ends in the right version, and none is loaded half-done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version

BALLAST = 2 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model files of 2 MB outside of any store; `N.joblib` answers N."""
    directory = tmp_path_factory.mktemp("made")
    for version in range(1, 4):
        joblib.dump(constant(version, ballast_bytes=BALLAST), directory / f"{version}.joblib")
    return directory


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose tests bring a model each."""
    with serving(tmp_path_factory.mktemp("watched")) as server:
        yield server


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a settle window that is longer than any pause of whoever writes piece by piece."""
    with serving(tmp_path_factory.mktemp("unhurried"), SERVING_STORE__SETTLE_SECONDS="3") as server:
        yield server


def in_slow_chunks(source: Path, target: Path) -> None:
    """Copy with pauses longer than the settle window (200 ms), the way a slow link does."""
    with source.open("rb") as read, target.open("wb") as write:
        size = source.stat().st_size
        for _ in range(4):
            write.write(read.read(size // 4 + 1))
            write.flush()
            time.sleep(0.4)  # not luck: the point is to be slower than the settle window


def in_pieces(source: Path, target: Path) -> None:
    """Append piece by piece, closing the file in between: only the settle window can tell that more is to come."""
    raw = source.read_bytes()
    target.write_bytes(b"")
    for start in range(0, len(raw), len(raw) // 8 + 1):
        with target.open("ab") as file:
            file.write(raw[start : start + len(raw) // 8 + 1])
        time.sleep(0.05)  # shorter than the settle window, longer than a look at the store takes


def by_mv(source: Path, target: Path) -> None:
    aside = target.parent.parent.parent / "aside.joblib"
    shutil.copy(source, aside)
    aside.rename(target)


def by_rsync(*options: str) -> Callable[[Path, Path], None]:
    def run(source: Path, target: Path) -> None:
        if shutil.which("rsync") is None:
            pytest.skip("rsync is not installed (Debian package rsync)")
        subprocess.run(["rsync", *options, source, target], check=True)

    return run


def by_dd(source: Path, target: Path) -> None:
    subprocess.run(["dd", f"if={source}", f"of={target}", "bs=64k", "conv=notrunc", "status=none"], check=True)


def with_an_old_time(source: Path, target: Path) -> None:
    os.utime(source, (1, 1))
    subprocess.run(["cp", "-p", source, target], check=True)


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "cp": shutil.copy,
    "cp in slow chunks": in_slow_chunks,
    "in pieces": in_pieces,
    "cp -p with an old time": with_an_old_time,
    "mv": by_mv,
    "hard link": os.link,
    "rsync": by_rsync(),
    "rsync --inplace": by_rsync("--inplace"),
    "dd": by_dd,
}


# others write as one of them does: in place, or aside and then a rename
ARRIVING = ("cp in slow chunks", "in pieces", "cp -p with an old time", "mv", "hard link", "rsync")
OVERWRITING = ("cp", "cp in slow chunks", "dd", "mv")


def some(ways: Iterable[str], selected: tuple[str, ...]) -> list[Any]:
    """Return the ways as parameters: all of them in `make soak`."""
    return [pytest.param(way, marks=[] if way in selected else [pytest.mark.soak]) for way in ways]


@pytest.mark.parametrize("way", some(WAYS, ARRIVING))
def test_a_file_arrives(request: pytest.FixtureRequest, made: Path, way: str) -> None:
    """A first version and a second one beside it arrive, whole, whichever tool brings them."""
    server: Server = request.getfixturevalue("unhurried" if way == "in pieces" else "watched")
    model = "arrives-" + "".join(letter if letter.isalnum() else "-" for letter in way)
    (server.store / model).mkdir()
    for version in (1, 2):
        WAYS[way](made / f"{version}.joblib", server.store / model / f"{version}.joblib")
        server.wait_active(model, version)
        assert server.predict(model).json()["predictions"] == [float(version)]
    _nothing_was_taken_half_done(server, model)


@pytest.mark.parametrize("way", some([*OVERWRITING, "rsync", "rsync --inplace"], OVERWRITING))
def test_a_live_file_is_overwritten(watched: Server, made: Path, way: str) -> None:
    """New bytes under the name of the active version are a new candidate for it; the old ones serve meanwhile."""
    model = "overwritten-" + "".join(letter if letter.isalnum() else "-" for letter in way)
    (watched.store / model).mkdir()
    target = watched.store / model / "1.joblib"
    shutil.copy(made / "1.joblib", target)
    watched.wait_active(model, 1)
    before = watched.get(f"/models/{model}/active")["active"]["digest"]
    WAYS[way](made / "2.joblib", target)
    until(lambda: watched.predict(model).json()["predictions"] == [2.0], "the new bytes answering")
    # the status is published at the end of the reconciler's turn, a moment after the swap
    until(lambda: watched.get(f"/models/{model}/active")["active"]["digest"] != before, "the new digest in the status")
    assert watched.active(model) == "1"
    _nothing_was_taken_half_done(watched, model)


def _nothing_was_taken_half_done(server: Server, model: str) -> None:
    bad = [one for one in server.log() if one.get("model") == model and one.get("after") in ("REJECTED", "FAILED")]
    assert not bad, bad
    assert server.model(model)["last_failure"] is None


def test_versions_arrive_by_tar_and_by_git(watched: Server, made: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for model in ("tarred", "cloned"):
        (source / model / "1").mkdir(parents=True)
        shutil.copy(made / "1.joblib", source / model / "1" / "model.joblib")
    with tarfile.open(tmp_path / "models.tar", "w") as archive:
        archive.add(source / "tarred", "tarred")
    subprocess.run(["tar", "-xf", tmp_path / "models.tar", "-C", watched.store], check=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "models"]):
        subprocess.run([*git, *command], cwd=source / "cloned", check=True)
    subprocess.run([*git, "clone", "-q", source / "cloned", watched.store / "cloned"], check=True)
    for model in ("tarred", "cloned"):
        watched.wait_active(model, 1)
        _nothing_was_taken_half_done(watched, model)


def test_a_config_map_swaps_its_data_link(watched: Server, made: Path) -> None:
    """Kubernetes swaps a symlink named ..data; the files behind it are what counts."""
    model = watched.store / "mapped"
    model.mkdir()

    def swap(version: int) -> None:
        data = model / f"..2026_{version}"
        data.mkdir()
        shutil.copy(made / f"{version}.joblib", data / "1.joblib")
        (model / "..data_tmp").symlink_to(data.name)
        (model / "..data_tmp").rename(model / "..data")

    swap(1)
    (model / "1.joblib").symlink_to("..data/1.joblib")
    watched.wait_active("mapped", 1)
    swap(2)
    until(lambda: watched.predict("mapped").json()["predictions"] == [2.0], "the data behind the link")
    _nothing_was_taken_half_done(watched, "mapped")


@pytest.mark.parametrize("watch", ["auto", "poll"])
def test_the_store_may_come_late_go_away_and_come_back(tmp_path: Path, watch: str) -> None:
    """Invariants 6, 7 and 10: what cannot be listed is not empty, and what is served goes on being served.

    Where the store is polled there is no watcher at all: the periodic look is enough to find all of this.
    """
    store = tmp_path / "store"
    settings = {"SERVING_STORE__WATCH": watch, "SERVING_STORE__POLL_SECONDS": "0.1"}
    with serving(tmp_path, store=store, makes_store=False, **settings) as server:
        until(lambda: _store_is_missed(server) and not server.get("/health/ready")["reason"].startswith("starting"))
        told = f"there is no store at '{store}'; make an empty one: mkdir -p {store}"
        assert server.get("/health/ready")["reason"] == f"no model is active, and the store cannot be listed: {told}"
        assert server.get("/models/active")["store"]["reason"] == told
        assert _status(server) == f"store: {told}\n"
        _is_missed_again_and_again(server)
        assert _store_events(server) == ["store_unavailable"], "it is told once"
        write_version(store / "m", 1, constant(1))
        server.wait_active("m", 1)

        store.rename(tmp_path / "elsewhere")
        until(lambda: _store_is_missed(server), "the store being missed again")
        _is_missed_again_and_again(server)
        assert _store_events(server) == ["store_unavailable", "store_available", "store_unavailable"]
        assert server.get("/models/active")["store"]["reason"] == told
        assert server.predict("m").json()["predictions"] == [1.0]
        assert server.client.get(server.url + "/health/ready").status_code == 200

        (tmp_path / "elsewhere").rename(store)
        server.drop("m", 2, constant(2))
        server.wait_active("m", 2)

        replacement = tmp_path / "replacement"
        write_version(replacement / "m", 3, constant(3))
        store.rename(tmp_path / "old")
        replacement.rename(store)
        server.wait_active("m", 3)
        server.drop("m", 4, constant(4))
        server.wait_active("m", 4)
        if watch == "poll":
            assert not [one for one in server.log() if one.get("event") == "watching"], "there is a watcher"

        (store / "m").rename(tmp_path / "removed")  # in one step: what takes longer is in test_removals.py
        until(lambda: server.get("/models/m/active")["active"]["note"], "a note about the files")
        assert not list(store.iterdir())
        assert server.predict("m").json()["predictions"] == [4.0]
        assert server.client.get(server.url + "/health/ready").status_code == 200


def _store_events(server: Server) -> list[str]:
    return [one["event"] for one in server.log() if one.get("event") in ("store_available", "store_unavailable")]


def _store_is_missed(server: Server) -> bool:
    return _store_events(server)[-1:] == ["store_unavailable"]


def _is_missed_again_and_again(server: Server) -> None:
    """Wait until the server has looked for its store a few more times."""

    def looks() -> float:
        text = server.client.get(server.url + "/metrics").text
        return float(text.partition("\nserving_store_errors_total ")[2].split()[0])

    before = looks()
    until(lambda: looks() > before + 2, "more looks")


def _status(server: Server) -> str:
    line = [sys.executable, "-m", "serving", "status", "--url", server.url]
    return subprocess.run(line, cwd=server.directory, check=True, capture_output=True, text=True).stdout


def test_deleting_the_active_version_falls_back_and_deleting_everything_changes_nothing(
    watched: Server, tmp_path: Path
) -> None:
    """Invariant 10."""
    for version in (1, 2):
        write_version(tmp_path / "deleted", version, constant(version))
    (tmp_path / "deleted").rename(watched.store / "deleted")
    watched.wait_active("deleted", 2)
    shutil.rmtree(watched.store / "deleted" / "2")
    watched.wait_active("deleted", 1)
    shutil.rmtree(watched.store / "deleted")
    note = until(lambda: watched.get("/models/deleted/active")["active"]["note"], "a note about the files")
    assert "no longer in the store" in note
    assert watched.predict("deleted").json()["predictions"] == [1.0]
    watched.drop("deleted", 5, constant(5))
    watched.wait_active("deleted", 5)


def test_versions_that_cannot_be_told_apart_are_refused_by_name(watched: Server) -> None:
    watched.drop("alike", "1", constant(1))
    watched.wait_active("alike", 1)
    watched.drop("alike", "01", constant(2))
    refused = watched.wait_state("alike", "01", "REJECTED")
    assert "'1'" in refused["reason"]
    assert watched.active("alike") == "1"


def test_a_read_only_store_is_served(tmp_path: Path) -> None:
    """Nothing is written into the store, so a read-only mount will do: events cannot be proved, so it is polled."""
    store = tmp_path / "store"
    write_version(store / "m", 1, constant(1))
    if os.geteuid() != 0:
        store.chmod(0o555)
        read_only = store
    else:  # root writes through any mode; a read-only bind mount stops it too
        read_only = tmp_path / "mounted"
        read_only.mkdir()
        mount = subprocess.run(["mount", "--bind", store, read_only], check=False, capture_output=True)
        if mount.returncode != 0:
            pytest.skip(f"no bind mounts here: {mount.stderr.decode().strip()}")
        subprocess.run(["mount", "-o", "remount,ro,bind", read_only], check=True)
    try:
        with serving(tmp_path, store=read_only, SERVING_STORE__POLL_SECONDS="0.2") as server:
            server.wait_active("m", 1)
            if read_only != store:
                write_version(store / "m", 2, constant(2))
                server.wait_active("m", 2)
                assert any(one.get("mode") == "poll" for one in server.log())
    finally:
        if read_only != store:
            subprocess.run(["umount", "-l", read_only], check=False)
        else:
            store.chmod(0o755)

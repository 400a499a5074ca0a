"""A cached copy that is damaged is found before it is loaded, and renewed; one with holes takes what it holds."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version

MB = 1 << 20


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose tests bring a model each, with bytes of its own: equal ones have one copy between them."""
    with serving(tmp_path_factory.mktemp("copying")) as server:
        yield server


def copy_of(server: Server, path: Path) -> Path:
    """Return the cached copy of a file in the store."""
    raw = path.read_bytes()
    (found,) = [copy for copy in (server.state / "cache" / "sha256").iterdir() if copy.read_bytes() == raw]
    return found


def falsify(copy: Path, value: float) -> None:
    """Change what the model in a copy answers: it still loads, and nothing about it looks damaged."""
    raw = bytearray(copy.read_bytes())
    right = struct.pack(">d", value)
    assert raw.count(right) == 1
    at = raw.index(right)
    raw[at : at + 8] = struct.pack(">d", value + 1000)
    with copy.open("r+b") as file:
        file.write(raw)


def break_(copy: Path, _: float) -> None:
    """Change a byte so that nothing can be loaded from a copy."""
    with copy.open("r+b") as file:
        file.write(b"\xff")


def events(server: Server, model: str, *names: str) -> list[Any]:
    return [one["event"] for one in server.log() if one.get("event") in names and one.get("model") == model]


def answer(server: Server, model: str) -> float:
    return float(server.predict(model).json()["predictions"][0])


@pytest.mark.parametrize(("damage", "value"), [(falsify, 1.25), (break_, 1.75)])
def test_a_damaged_copy_is_renewed_before_its_host_is_brought_back(copying: Server, damage: Any, value: float) -> None:
    """No answer under the original digest comes from other bytes, and damage that breaks loading mends itself too."""
    model = f"damaged-by-{damage.__name__.strip('_')}"
    written = copying.drop(model, 1, constant(value)) / "model.joblib"
    copying.wait_active(model, 1)
    copy = copy_of(copying, written)
    damage(copy, value)
    copying.kill_hosts()
    assert answer(copying, model) == value
    assert copy.read_bytes() == written.read_bytes()
    assert events(copying, model, "copy_damaged", "copy_renewed") == ["copy_damaged", "copy_renewed"]
    until(lambda: copying.get(f"/models/{model}/active")["active"]["note"] is None, "the note being taken back")


def test_damaged_copies_are_renewed_at_a_restart(copying: Server) -> None:
    damages = {"falsified": (falsify, 2.25), "broken": (break_, 2.75)}
    written = {model: copying.drop(model, 1, constant(value)) for model, (_, value) in damages.items()}
    for model in damages:
        copying.wait_active(model, 1)
    copies = {model: copy_of(copying, path / "model.joblib") for model, path in written.items()}
    copying.stop()
    for model, (damage, value) in damages.items():
        damage(copies[model], value)
    copying.start(wait_ready=True)
    for model, (_, value) in damages.items():
        copying.wait_active(model, 1)
        assert answer(copying, model) == value
        assert copies[model].read_bytes() == (written[model] / "model.joblib").read_bytes()


def test_what_cannot_be_renewed_is_left_for_what_can_answer_and_comes_back_with_its_files(copying: Server) -> None:
    """Version 2 is pinned, its files have gone from the store, and its copy is damaged when its host dies."""
    first = copying.drop("gone", 1, constant(1))
    assert first.exists()
    copying.wait_active("gone", 1)
    second = copying.drop("gone", 2, constant(2.5))
    copying.wait_active("gone", 2)
    assert copying.operate("POST", "/models/gone/pin", {"version": "2"}).status_code == 200
    copy = copy_of(copying, second / "model.joblib")
    aside = copying.directory / "aside"
    shutil.copytree(second, aside)
    shutil.rmtree(second)
    until(lambda: copying.get("/models/gone/active")["active"]["note"], "a note about its files")
    falsify(copy, 2.5)
    copying.kill_hosts()
    copying.wait_active("gone", 1)
    assert answer(copying, "gone") == 1.0
    problem = copying.get("/models/gone/active")["problem"]
    assert problem.startswith("pinned to '2', which ")
    refused = copying.operate("POST", "/models/gone/pin", {"version": "2"})
    assert refused.status_code == 200, "it is pinned already"
    shutil.copytree(aside, second)
    copying.wait_active("gone", 2)
    assert answer(copying, "gone") == 2.5
    assert copying.get("/models/gone/active")["problem"] is None


def test_without_anything_else_the_reason_is_said_and_its_files_bring_it_back(copying: Server) -> None:
    written = copying.drop("alone", 1, constant(3.5))
    copying.wait_active("alone", 1)
    copy = copy_of(copying, written / "model.joblib")
    aside = copying.directory / "alone-aside"
    shutil.copytree(written, aside)
    shutil.rmtree(written)
    until(lambda: copying.get("/models/alone/active")["active"]["note"], "a note about its files")
    falsify(copy, 3.5)
    copying.kill_hosts()
    note = until(
        lambda: "is damaged" in (text := str(copying.get("/models/alone/active")["active"]["note"])) and text,
        "the reason",
    )
    assert "cannot be renewed" in note or "does not have these bytes" in note
    refused = copying.predict("alone")
    assert refused.status_code == 503
    assert "is damaged" in refused.json()["detail"]
    shutil.copytree(aside, written)
    until(lambda: copying.predict("alone").status_code == 200, "the model answering again")
    assert answer(copying, "alone") == 3.5


def test_a_version_that_is_loaded_again_from_a_damaged_copy_is_copied_anew(copying: Server) -> None:
    """It was retired long ago; its copy is still there, and looks as it always did."""
    for version in (1, 2, 3):
        copying.drop("again", version, constant(version + 0.125))
        copying.wait_active("again", version)
    copying.wait_state("again", 1, "RETIRED")
    falsify(copy_of(copying, copying.store / "again" / "1" / "model.joblib"), 1.125)
    assert copying.operate("POST", "/models/again/pin", {"version": "1"}).status_code == 200
    copying.wait_active("again", 1)
    assert answer(copying, "again") == 1.125


@pytest.mark.parametrize("megabytes", [256, pytest.param(2048, marks=pytest.mark.soak)])
def test_a_sparse_file_costs_what_it_holds(copying: Server, megabytes: int) -> None:
    """Holes around a few bytes, beside the model: in the cache they are holes too. 2 GB are more than a call copies."""
    aside = copying.store / ".sparse"
    version = write_version(aside, 1, constant(1))
    with (version / "ballast.bin").open("wb") as file:
        file.truncate(megabytes * MB)
        file.seek(megabytes * MB // 2)
        file.write(b"a few bytes")
    model = f"sparse-{megabytes}"
    (copying.store / model).mkdir()
    version.rename(copying.store / model / "1")
    copying.wait_active(model, 1, 120)
    copies = [path.stat() for path in (copying.state / "cache" / "sha256").iterdir()]
    assert max(found.st_size for found in copies) == megabytes * MB
    assert sum(found.st_blocks * 512 for found in copies) < 16 * MB

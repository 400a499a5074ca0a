"""What answered before a restart answers after it, whatever became of its files and of an operator's decisions.

A start is dear, so all models go through the same ones: each fixture is one life of the server, the tests below it look
at what that life made of their models.
"""

from __future__ import annotations

import concurrent.futures
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import joblib
import peculiar
import pytest

from serving.lifecycle.history import History
from tests.e2e.armed import Faults
from tests.e2e.harness import Server, armed, constant, serving, until, write_version


def bring(server: Server, version: int | str, *models: str) -> None:
    for model in models:
        server.drop(model, version, constant(float(version)))
    for model in models:
        server.wait_active(model, version)


def answer(server: Server, model: str) -> float:
    predictions = server.predict(model).json()["predictions"]
    assert len(predictions) == 1
    return float(predictions[0])


def wait_for_note(server: Server, model: str) -> str:
    return str(until(lambda: server.get(f"/models/{model}/active")["active"]["note"], "a note about its files"))


WHEN = ["while-it-runs", "while-it-is-down"]
PINNED = [f"pinned-{when}" for when in WHEN]
LAST = [f"last-{when}" for when in WHEN]

# --- the first life --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Faults]]:
    with armed(tmp_path_factory.mktemp("lasting")) as (server, faults):
        yield server, faults


@pytest.fixture(scope="module")
def first(faulty: tuple[Server, Faults]) -> Server:
    """Versions are rolled back and pinned, and the files of some removed; a name comes again in other letters."""
    server, _ = faulty
    bring(server, "01", "good")
    bring(server, 1, "barred", "hopeless", "only", *PINNED, *LAST)
    bring(server, 2, "barred", "hopeless", "only", *PINNED)
    for model in ("barred", "hopeless", "only"):
        assert server.operate("POST", f"/models/{model}/rollback").status_code == 200
    bring(server, 3, "barred", "hopeless")
    for model in PINNED:
        assert server.operate("POST", f"/models/{model}/pin", {"version": "1"}).status_code == 200
        server.wait_active(model, 1)
    shutil.rmtree(server.store / PINNED[0] / "1")
    shutil.rmtree(server.store / LAST[0])
    shutil.rmtree(server.store / "only" / "1")
    for model in (PINNED[0], LAST[0], "only"):
        wait_for_note(server, model)
    write_version(server.store / "GOOD", 9, constant(9))
    write_version(server.store / "good", "1", constant(7))
    assert server.operate("POST", "/refresh").status_code == 200
    return server


def assert_displaced_by_no_other_case(server: Server) -> None:
    until(lambda: any("'GOOD'" in one for one in server.get("/models")["store"]["problems"]), "the problem")
    assert "'good/01' is the same version" in server.wait_state("good", "1", "REJECTED")["reason"]
    assert (server.active("good"), answer(server, "good")) == ("01", 1.0)
    assert server.client.get(server.url + "/models/GOOD").status_code == 404


def test_a_name_that_differs_by_case_does_not_displace_what_is_active(first: Server) -> None:
    """Neither of a model, nor of a version that compares equal."""
    assert_displaced_by_no_other_case(first)


# --- the second life: more files are gone ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused_pin(first: Server) -> httpx.Response:
    """What somebody is told who pins what was rolled back, right after the start."""
    assert first.stop() == 0
    shutil.rmtree(first.store / PINNED[1] / "1")
    shutil.rmtree(first.store / LAST[1])
    first.start()
    return first.operate("POST", "/models/barred/pin", {"version": "2"})


@pytest.fixture(scope="module")
def second(first: Server, refused_pin: httpx.Response) -> Server:
    first.wait_ready()
    return first


def test_a_pin_on_a_quarantined_version_is_refused_before_its_bytes_are_known(
    second: Server, refused_pin: httpx.Response
) -> None:
    """Version 2 was rolled back; nothing has read its files since the start."""
    assert refused_pin.status_code == 409
    assert "in quarantine" in refused_pin.json()["detail"]
    assert second.version("barred", 2)["is_quarantined"] is True
    second.wait_active("barred", 3)
    assert second.version("barred", 2)["digest"] is None, "it was read after all: this shows nothing"


@pytest.mark.parametrize("model", PINNED)
def test_a_pinned_version_outlives_its_files(second: Server, model: str) -> None:
    assert answer(second, model) == 1.0
    assert "no longer in the store" in wait_for_note(second, model)
    assert second.operate("DELETE", f"/models/{model}/pin").status_code == 200
    second.wait_active(model, 2)


@pytest.mark.parametrize("model", LAST)
def test_the_last_version_outlives_its_files(second: Server, model: str) -> None:
    assert answer(second, model) == 1.0
    assert "until the model is unloaded" in second.get(f"/models/{model}/active")["active"]["note"]


def test_the_only_version_that_is_not_in_quarantine_outlives_its_files(second: Server) -> None:
    assert answer(second, "only") == 1.0
    second.wait_state("only", 2, "QUARANTINED")


def test_no_other_case_displaces_what_was_active_before_the_restart(second: Server) -> None:
    assert_displaced_by_no_other_case(second)


# --- the third life: the store has been emptied ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def emptied(second: Server) -> Server:
    """The same device, which says that it has no files. What is done with was unloaded, so that no start loads it."""
    bring(second, 1, "emptied")
    for model in ("good", "only", *PINNED):
        assert second.operate("POST", f"/v2/repository/models/{model}/unload").status_code == 200
    assert second.stop() == 0
    second.store.rename(second.store.with_name("away"))
    second.store.mkdir()
    return second.start(wait_ready=True)


def test_a_refused_pin_is_forgotten(emptied: Server) -> None:
    assert answer(emptied, "barred") == 3.0
    told = emptied.get("/models/barred/active")
    assert (told["pinned"], told["problem"]) == (None, None)


@pytest.mark.parametrize("model", LAST)
def test_the_last_version_outlives_its_files_over_two_restarts(emptied: Server, model: str) -> None:
    assert answer(emptied, model) == 1.0
    assert "until the model is unloaded" in emptied.get(f"/models/{model}/active")["active"]["note"]


def test_an_empty_store_changes_nothing(emptied: Server) -> None:
    emptied.wait_active("emptied", 1)
    assert emptied.get("/models")["store"]["is_available"] is True
    assert "no longer in the store" in emptied.get("/models/emptied/active")["active"]["note"]


# --- the fourth life: the store is back, and worse versions with it --------------------------------------------------


@pytest.fixture(scope="module")
def refilled(emptied: Server) -> Server:
    """Models without files were unloaded before."""
    bring(emptied, 2, "emptied")
    bring(emptied, 1, "slow", "spoiled")
    for model in LAST:
        assert emptied.operate("POST", f"/v2/repository/models/{model}/unload").status_code == 200
        until(lambda model=model: emptied.client.get(f"{emptied.url}/models/{model}").status_code == 404, "its end")
    assert emptied.stop() == 0
    away = emptied.store.with_name("away")
    for model in ("slow", "spoiled"):
        (emptied.store / model).rename(away / model)
    shutil.rmtree(emptied.store)
    away.rename(emptied.store)
    emptied.drop("slow", 2, constant(2, peculiar.HangsWhileLoading))
    (emptied.store / "spoiled" / "1" / "model.joblib").write_bytes(b"rubbish" * 100)
    return emptied.start()


def test_what_answered_answers_while_a_newer_version_hangs(refilled: Server) -> None:
    """And its old bytes while worse ones have taken their place."""
    refilled.wait_active("slow", 1)
    refilled.wait_state("slow", 2, "LOADING")
    assert answer(refilled, "slow") == 1.0
    until(lambda: (refilled.model("spoiled")["last_failure"] or {}).get("version") == "1", "the refusal")
    assert answer(refilled, "spoiled") == 1.0


@pytest.mark.parametrize("model", LAST)
def test_an_unloaded_model_without_files_stays_away(refilled: Server, model: str) -> None:
    assert refilled.client.get(f"{refilled.url}/models/{model}").status_code == 404
    assert model not in {one["name"] for one in refilled.get("/models/active")["models"]}


def test_a_version_that_came_into_the_empty_store_goes_with_it(refilled: Server) -> None:
    refilled.wait_active("emptied", 1)


# --- the fifth life: what was active is not at hand ------------------------------------------------------------------


@pytest.fixture(scope="module")
def uncached(refilled: Server) -> tuple[Server, str]:
    """Without the verified copies; as a release that took any name for a pin left it, a pin is in quarantine."""
    server = refilled
    shutil.rmtree(server.store / "slow" / "2")
    joblib.dump(constant(1), server.directory / "lone.joblib")
    (server.directory / "lone.joblib").rename(server.store / "lone.joblib")  # in one step: each content is a version
    version = until(lambda: server.active("lone"), "the file answering")
    assert server.operate("POST", "/models/lone/pin", {"version": version}).status_code == 200
    assert server.stop() == 0
    history = History(server.state, "any", 1000)
    history.start()
    history.decisions.pin("hopeless", "2")
    history.close()
    shutil.rmtree(server.state / "cache")
    return server.start(wait_ready=True), version


def test_a_pin_that_cannot_be_served_falls_back_and_comes_back_by_itself(uncached: tuple[Server, str]) -> None:
    server, _ = uncached
    server.wait_active("hopeless", 3)
    told = server.get("/models/hopeless/active")
    assert told["pinned"] == "2"
    assert "in quarantine" in told["problem"]
    assert told["active"]["note"] == told["problem"]
    lines = [one for one in server.log() if one.get("event") == "not_as_decided" and one["model"] == "hopeless"]
    assert len({one["reason"] for one in lines}) == len(lines), "told more than once"
    assert server.operate("POST", "/models/hopeless/versions/2/release").status_code == 200
    server.wait_active("hopeless", 2)
    assert server.get("/models/hopeless/active")["problem"] is None


def test_a_pinned_lone_file_is_known_again_by_its_bytes(uncached: tuple[Server, str]) -> None:
    server, version = uncached
    server.wait_active("lone", version)
    assert server.get("/models/lone/active")["problem"] is None
    assert [one["version"] for one in server.model("lone")["versions"]] == [version]


# --- the lives after that: another store -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(uncached: tuple[Server, str], tmp_path_factory: pytest.TempPathFactory) -> Server:
    server, _ = uncached
    assert server.stop() == 0
    server.store = tmp_path_factory.mktemp("another")
    write_version(server.store / "n", 1, constant(1))
    return server.start(wait_ready=True)


def test_another_store_under_the_same_state_begins_anew(moved: Server) -> None:
    moved.wait_active("n", 1)
    assert [one["name"] for one in moved.get("/models/active")["models"]] == ["n"]


def test_what_operators_ask_for_right_after_a_start_waits_for_the_first_look(
    moved: Server, faulty: tuple[Server, Faults]
) -> None:
    """Before that no model is known, and a call would be refused that is right."""
    _, faults = faulty
    moved.stop()
    faults.arm("listing", "pause")
    moved.start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        unloading = pool.submit(moved.operate, "POST", "/v2/repository/models/n/unload")
        until(lambda: faults.has_struck("listing"), "the first look")
        assert not unloading.done()
        faults.disarm("listing")
        assert unloading.result().status_code == 200
    assert moved.model("n")["unloaded"] is True
    assert moved.operate("POST", "/v2/repository/models/n/load").status_code == 200
    assert [one["name"] for one in moved.get("/models/active")["models"]] == ["n"], "the other store has come back"


# --- a store that is mounted -----------------------------------------------------------------------------------------


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A directory on which a file system of its own is mounted."""
    mounted = tmp_path / "volume"
    mounted.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=False, capture_output=True)
    if mount.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mount.stderr.decode().strip()}")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)


def test_an_unmounted_volume_is_not_an_empty_store(volume: Path, tmp_path: Path) -> None:
    """Unmounted while it runs, and still when it starts again; noticed by itself when it is back."""
    write_version(volume / "m", 1, constant(1))
    aside = tmp_path / "aside"
    shutil.copytree(volume / "m", aside)
    with serving(tmp_path, store=volume, wait_ready=True, SERVING_STORE__POLL_SECONDS="0.1") as server:
        for is_started_again in (False, True):
            if is_started_again:
                server.stop()
                server.start(wait_ready=True)
            else:
                subprocess.run(["umount", "-l", volume], check=True)
            lost = until(lambda: not (found := server.get("/models")["store"])["is_available"] and found, "its loss")
            assert "does not seem to be mounted" in lost["reason"]
            assert server.predict("m").json()["predictions"] == [1.0]
            assert server.get("/models/m/active")["active"]["version"] == "1"
        assert server.operate("POST", "/v2/repository/models/m/unload").status_code == 200
        assert server.operate("POST", "/v2/repository/models/m/load").status_code == 200
        assert server.predict("m").json()["predictions"] == [1.0], "unloaded and loaded without its volume"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume], check=True)
        shutil.copytree(aside, volume / "m")
        write_version(volume / "m", 2, constant(2))
        server.wait_active("m", 2)

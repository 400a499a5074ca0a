"""What answered before a restart answers after it, whatever became of its files and of an operator's decisions."""

from __future__ import annotations

import concurrent.futures
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import joblib
import peculiar
import pytest

from serving.lifecycle.history import History
from tests.e2e.harness import Server, armed, constant, serving, until, write_version


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is stopped and started in most tests; each brings a model of its own."""
    with serving(tmp_path_factory.mktemp("lasting")) as server:
        yield server


def bring(server: Server, model: str, *versions: int) -> None:
    for version in versions:
        server.drop(model, version, constant(version))
        server.wait_active(model, version)


def answer(server: Server, model: str) -> float:
    predictions = server.predict(model).json()["predictions"]
    assert len(predictions) == 1
    return float(predictions[0])


def restart(server: Server, *, wait_ready: bool = True) -> None:
    assert server.stop() == 0
    server.start(wait_ready=wait_ready)


# --- pins ------------------------------------------------------------------------------------------------------------


def test_a_pin_on_a_quarantined_version_is_refused_before_its_bytes_are_known(lasting: Server) -> None:
    """Version 2 was rolled back; after a restart nothing has read its files when somebody pins it."""
    bring(lasting, "barred", 1, 2)
    assert lasting.operate("POST", "/models/barred/rollback").status_code == 200
    bring(lasting, "barred", 3)
    restart(lasting, wait_ready=False)
    refused = lasting.operate("POST", "/models/barred/pin", {"version": "2"})
    assert refused.status_code == 409
    assert "in quarantine" in refused.json()["detail"]
    assert lasting.version("barred", 2)["is_quarantined"] is True
    lasting.wait_active("barred", 3)
    assert lasting.version("barred", 2)["digest"] is None, "it was read after all: this shows nothing"
    restart(lasting)
    assert answer(lasting, "barred") == 3.0


def test_a_pin_that_cannot_be_served_falls_back_and_comes_back_by_itself(lasting: Server) -> None:
    """As a release that took any name for a pin has left it: pinned to what is in quarantine."""
    bring(lasting, "hopeless", 1, 2)
    assert lasting.operate("POST", "/models/hopeless/rollback").status_code == 200
    bring(lasting, "hopeless", 3)
    lasting.stop()
    history = History(lasting.state, "any", 1000)
    history.start()
    history.pin("hopeless", "2")
    history.close()
    shutil.rmtree(lasting.state / "cache")  # so that what was active is not at hand either
    lasting.start(wait_ready=True)
    lasting.wait_active("hopeless", 3)
    told = lasting.get("/models/hopeless/active")
    assert told["pinned"] == "2"
    assert "in quarantine" in told["problem"]
    assert told["active"]["note"] == told["problem"]
    lines = [one for one in lasting.log() if one.get("event") == "not_as_decided" and one["model"] == "hopeless"]
    assert len({one["reason"] for one in lines}) == len(lines), "told more than once"
    assert lasting.operate("POST", "/models/hopeless/versions/2/release").status_code == 200
    lasting.wait_active("hopeless", 2)
    assert lasting.get("/models/hopeless/active")["problem"] is None


@pytest.mark.parametrize("when", ["while it runs", "while it is down"])
def test_a_pinned_version_outlives_its_files(lasting: Server, when: str) -> None:
    model = "pinned-" + when.replace(" ", "-")
    bring(lasting, model, 1, 2)
    assert lasting.operate("POST", f"/models/{model}/pin", {"version": "1"}).status_code == 200
    lasting.wait_active(model, 1)
    if when == "while it is down":
        lasting.stop()
    shutil.rmtree(lasting.store / model / "1")
    if when == "while it runs":
        until(lambda: lasting.get(f"/models/{model}/active")["active"]["note"], "a note about its files")
        lasting.stop()
    lasting.start(wait_ready=True)
    assert answer(lasting, model) == 1.0
    assert "no longer in the store" in until(lambda: lasting.get(f"/models/{model}/active")["active"]["note"], "a note")
    assert lasting.operate("DELETE", f"/models/{model}/pin").status_code == 200
    lasting.wait_active(model, 2)


def test_a_pinned_lone_file_is_known_again_by_its_bytes(lasting: Server) -> None:
    joblib.dump(constant(1), lasting.store / "lone.joblib")
    version = until(lambda: lasting.active("lone"), "the file answering")
    assert lasting.operate("POST", "/models/lone/pin", {"version": version}).status_code == 200
    lasting.stop()
    shutil.rmtree(lasting.state / "cache")
    lasting.start(wait_ready=True)
    lasting.wait_active("lone", version)
    assert lasting.get("/models/lone/active")["problem"] is None
    assert [one["version"] for one in lasting.model("lone")["versions"]] == [version]


# --- files that are gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["while it runs", "while it is down"])
def test_the_last_version_outlives_its_files_until_the_model_is_unloaded(lasting: Server, when: str) -> None:
    model = "last-" + when.replace(" ", "-")
    bring(lasting, model, 1)
    if when == "while it is down":
        lasting.stop()
    shutil.rmtree(lasting.store / model)
    if when == "while it runs":
        until(lambda: lasting.get(f"/models/{model}/active")["active"]["note"], "a note about its files")
        lasting.stop()
    lasting.start(wait_ready=True)
    for _ in range(2):
        assert answer(lasting, model) == 1.0
        assert "until the model is unloaded" in lasting.get(f"/models/{model}/active")["active"]["note"]
        restart(lasting)
    assert lasting.operate("POST", f"/v2/repository/models/{model}/unload").status_code == 200
    until(lambda: lasting.client.get(f"{lasting.url}/models/{model}").status_code == 404, "its end")
    restart(lasting)
    assert lasting.client.get(f"{lasting.url}/models/{model}").status_code == 404
    assert model not in {one["name"] for one in lasting.get("/models/active")["models"]}


def test_the_only_version_that_is_not_in_quarantine_outlives_its_files(lasting: Server) -> None:
    bring(lasting, "only", 1, 2)
    assert lasting.operate("POST", "/models/only/rollback").status_code == 200
    shutil.rmtree(lasting.store / "only" / "1")
    until(lambda: lasting.get("/models/only/active")["active"]["note"], "a note about its files")
    restart(lasting)
    assert answer(lasting, "only") == 1.0
    lasting.wait_state("only", 2, "QUARANTINED")


def test_what_answered_answers_while_a_newer_version_hangs(lasting: Server) -> None:
    """And its old bytes while worse ones have taken their place."""
    bring(lasting, "slow", 1)
    bring(lasting, "spoiled", 1)
    lasting.stop()
    lasting.drop("slow", 2, constant(2, peculiar.HangsWhileLoading))
    (lasting.store / "spoiled" / "1" / "model.joblib").write_bytes(b"rubbish" * 100)
    lasting.start()
    lasting.wait_active("slow", 1)
    lasting.wait_state("slow", 2, "LOADING")
    assert answer(lasting, "slow") == 1.0
    until(lambda: (lasting.model("spoiled")["last_failure"] or {}).get("version") == "1", "the refusal")
    assert answer(lasting, "spoiled") == 1.0
    shutil.rmtree(lasting.store / "slow" / "2")


def test_an_empty_store_and_one_without_the_model_change_nothing(lasting: Server) -> None:
    """The same device: it was emptied, and says so. A version that comes then is taken."""
    bring(lasting, "emptied", 1)
    lasting.stop()
    away = lasting.store.with_name("away")
    lasting.store.rename(away)
    lasting.store.mkdir()
    lasting.start(wait_ready=True)
    lasting.wait_active("emptied", 1)
    assert lasting.get("/models")["store"]["is_available"] is True
    assert "no longer in the store" in lasting.get("/models/emptied/active")["active"]["note"]
    bring(lasting, "emptied", 2)
    lasting.stop()
    shutil.rmtree(lasting.store)
    away.rename(lasting.store)
    lasting.start(wait_ready=True)
    lasting.wait_active("emptied", 1)


def test_another_store_under_the_same_state_begins_anew(tmp_path: Path) -> None:
    write_version(tmp_path / "first" / "m", 1, constant(1))
    write_version(tmp_path / "second" / "n", 1, constant(1))
    with serving(tmp_path, store=tmp_path / "first", wait_ready=True) as server:
        server.wait_active("m", 1)
    with serving(tmp_path, store=tmp_path / "second", wait_ready=True) as server:
        server.wait_active("n", 1)
        assert [one["name"] for one in server.get("/models/active")["models"]] == ["n"]
        server.stop()
        server.start(wait_ready=True)
        assert [one["name"] for one in server.get("/models/active")["models"]] == ["n"]


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


# --- names and calls -------------------------------------------------------------------------------------------------


def test_a_name_that_differs_by_case_does_not_displace_what_is_active(lasting: Server) -> None:
    """Neither of a model, nor of a version that compares equal, nor after a restart."""
    bring(lasting, "good", "01")  # type: ignore[arg-type]
    write_version(lasting.store / "GOOD", 9, constant(9))
    write_version(lasting.store / "good", "1", constant(7))
    lasting.operate("POST", "/refresh")
    for _ in range(2):
        until(lambda: any("'GOOD'" in one for one in lasting.get("/models")["store"]["problems"]), "the problem")
        assert "'good/01' is the same version" in lasting.wait_state("good", "1", "REJECTED")["reason"]
        assert (lasting.active("good"), answer(lasting, "good")) == ("01", 1.0)
        assert lasting.client.get(lasting.url + "/models/GOOD").status_code == 404
        restart(lasting)
    shutil.rmtree(lasting.store / "GOOD")


def test_what_operators_ask_for_right_after_a_start_waits_for_the_first_look(tmp_path: Path) -> None:
    """Before that no model is known, and a call would be refused that is right."""
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with armed(tmp_path, wait_ready=True) as (server, faults):
        server.stop()
        faults.arm("listing", "pause")
        server.start()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            unloading = pool.submit(server.operate, "POST", "/v2/repository/models/m/unload")
            until(lambda: faults.has_struck("listing"), "the first look")
            assert not unloading.done()
            faults.disarm("listing")
            assert unloading.result().status_code == 200
        assert server.model("m")["unloaded"] is True

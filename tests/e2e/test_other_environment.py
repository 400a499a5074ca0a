"""Models of another scikit-learn in a real server: they answer as they did where they were trained, or are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import psutil
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from tests.e2e.harness import MATERIAL, Server, constant, serving, until
from tests.e2e.record import check
from tests.e2e.traffic import Traffic

SCRIPT = MATERIAL / "trained_elsewhere.py"
EXACT = ("forest", "numbers", "boosted", "histogram", "pipeline", "vectors", "mixed")
SK15 = "sk15"


@pytest.fixture(scope="module")
def trained(other_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of models that the other environment has trained, with their answers."""
    directory = tmp_path_factory.mktemp("trained")
    subprocess.run([other_python, "-I", SCRIPT, directory], check=True, capture_output=True)
    return directory


@pytest.fixture
def python(other_python: Path, tmp_path: Path) -> Path:
    """An interpreter of the other environment that a test may break: a program that runs the real one."""
    wrapper = tmp_path / "python-of-a-test"
    mend(wrapper, other_python)
    return wrapper


def mend(wrapper: Path, real: Path) -> None:
    """Let the wrapper run the real interpreter, in one step."""
    new = wrapper.with_suffix(".new")
    new.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    new.chmod(0o755)
    new.replace(wrapper)


def settings_of(python: Path, **settings: str) -> dict[str, str]:
    return {f"SERVING_ENVIRONMENTS__{SK15.upper()}__PYTHON": str(python), **settings}


@pytest.fixture(scope="module")
def house(other_python: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows the other environment and serves one model of its own; each test adds another."""
    with serving(tmp_path_factory.mktemp("house"), **settings_of(other_python)) as server:
        server.drop("home", 1, constant(1))
        server.wait_active("home", 1)
        yield server


def put(server: Server, source: Path, model: str, version: int = 1) -> None:
    """Put a file into the store as a version, in one step."""
    directory = server.store / model
    directory.mkdir(exist_ok=True)
    new = directory / f".{version}.new"
    shutil.copyfile(source, new)
    new.rename(directory / f"{version}{source.suffix}")


def gate_of(version: dict[str, Any], name: str) -> dict[str, Any]:
    return next(result for result in version["gates"] if result["gate"] == name)


@pytest.mark.parametrize("name", EXACT)
def test_a_model_answers_bit_for_bit_as_where_it_was_trained(house: Server, trained: Path, name: str) -> None:
    golden = json.loads((trained / f"{name}.json").read_text())
    put(house, trained / f"{name}.joblib", name)
    house.wait_active(name, 1)
    for method, expected in golden["expected"].items():
        url = f"{house.url}/models/{name}/predict"
        query = {} if method == "predict" else {"method": method}
        answer = house.client.post(url, json={"instances": golden["instances"], **query}).json()
        assert answer["predictions"] == expected, method
    version = house.version(name, 1)
    assert (version["environment"], version["engine"]) == (SK15, "sklearn")
    assert version["libraries"]["scikit-learn"] == "1.5.2"
    assert version["needs"]["libraries"]["scikit-learn"] == "1.5.2"
    assert gate_of(version, "environment")["verdict"] == "passed"
    assert {"landlock", "seccomp"} <= set(version["sandbox"]["active"]) | set(version["sandbox"]["missing"])
    assert house.model(name)["active"]["environment"] == SK15


def test_golden_examples_are_judged_there(house: Server, trained: Path, tmp_path: Path) -> None:
    golden = json.loads((trained / "forest.json").read_text())
    for version, is_right in ((1, True), (2, False)):
        directory = tmp_path / str(version)
        directory.mkdir()
        shutil.copyfile(trained / "forest.joblib", directory / "model.joblib")
        document = golden if is_right else {**golden, "expected": {"predict": [7] * len(golden["instances"])}}
        (directory / "golden.json").write_text(json.dumps(document))
        (house.store / "golden").mkdir(exist_ok=True)
        shutil.move(directory, house.store / "golden" / str(version))
    house.wait_active("golden", 1)
    refused = house.wait_state("golden", 2, "REJECTED")
    assert refused["gates"][-1]["gate"] == "golden"
    assert refused["environment"] == SK15


def test_swaps_between_environments_under_load(house: Server, trained: Path) -> None:
    """Versions of the old and of the new scikit-learn by turns: no request fails, each answer is its version's own."""
    house.drop("turns", 1, constant(1))
    house.wait_active("turns", 1)
    with Traffic(house.url, "turns", rate=100, connections=4) as traffic:
        for version in range(2, 13):
            if version % 2:
                house.drop("turns", version, constant(version))
            else:
                put(house, trained / f"constant-{version}.joblib", "turns", version)
            until(
                lambda wanted=str(version): traffic.replies[-1].version == wanted, f"answers of version {version}", 60
            )
    check(traffic.replies)
    assert {reply.status for reply in traffic.replies} == {200}
    assert len({reply.version for reply in traffic.replies}) == 12


def test_nothing_of_an_environment_is_loaded_into_the_server(house: Server, other_python: Path, trained: Path) -> None:
    put(house, trained / "forest.joblib", "alone")
    house.wait_active("alone", 1)
    assert house.predict("alone", [[5.1, 3.5, 1.4, 0.2]]).status_code == 200
    assert house.process is not None
    there = str(other_python.parent.parent)
    mapped = Path(f"/proc/{house.process.pid}/maps").read_text()
    assert there not in mapped
    assert any(there in maps_of(host) for host in house.hosts())


def maps_of(process: psutil.Process) -> str:
    """Return what a process has mapped; nothing for one that has ended, as hosts of retired versions do."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process.pid}/maps").read_text()
    return ""


def test_a_model_is_proved_and_compiled_in_an_environment_that_can(tmp_path: Path) -> None:
    """With onnx, skl2onnx and onnxruntime there: the second environment of this test is the Python of the first."""
    rows, labels = load_iris(return_X_y=True)
    forest = RandomForestClassifier(30, random_state=0).fit(rows, labels)
    aside = tmp_path / "aside"
    aside.mkdir()
    joblib.dump(forest, aside / "model.joblib")
    raw = (aside / "model.joblib").read_bytes()
    file = {"name": "model.joblib", "sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    manifest = {"model": "f", "version": "1", "created_at": "2026-11-20T08:00:00Z", "files": [file]}
    (aside / "manifest.json").write_text(json.dumps({**manifest, "environment": "twin"}))
    with serving(tmp_path, SERVING_ENVIRONMENTS__TWIN__PYTHON=sys.executable) as server:
        (server.store / "f").mkdir()
        aside.rename(server.store / "f" / "1")
        server.wait_active("f", 1, 60)
        version = server.version("f", 1)
        assert (version["environment"], version["engine"]) == ("twin", "onnx")
        assert version["needs"]["environment"] == "twin"
        assert server.predict("f", rows.tolist()).json()["predictions"] == forest.predict(rows).tolist()


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_hostile_pickle_is_refused_there_too(house: Server, trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "made by a model"
    state = {"_sklearn_version": "1.5.2", "steps": [Call(str(place))]}
    raw = pickle.dumps(SimilarToPipeline(state), protocol=3)
    assert RENAMED[0] in raw
    (tmp_path / "hostile.pkl").write_bytes(raw.replace(*RENAMED))
    put(house, tmp_path / "hostile.pkl", "hostile")
    refused = house.wait_state("hostile", 1, "REJECTED")
    assert refused["environment"] == SK15
    assert refused["gates"][-1]["gate"] == "load"
    assert "posix.mkdir" in refused["gates"][-1]["evidence"]
    assert not place.exists()


class SimilarToPipeline:
    """Is written into a file under the name of a known class."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state


RENAMED = (f"c{__name__}\nSimilarToPipeline\n".encode(), b"csklearn.pipeline\nPipeline\n")


def test_a_version_waits_for_its_environment_and_is_tried_by_itself(
    other_python: Path, trained: Path, tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        put(server, trained / "forest.joblib", "iris")
        refused = server.wait_state("iris", 1, "REJECTED")
        last = refused["gates"][-1]
        assert (last["gate"], refused["environment"]) == ("environment", None)
        assert "trained with scikit-learn 1.5.2 (the file says); the server has" in last["evidence"]
        assert f"serving environment create {SK15} --for {server.store / 'iris' / '1.joblib'}" in last["evidence"]
        assert refused["engine"] is None  # it was not loaded
        complete(server.state / "environments" / "mine", other_python)
        server.wait_active("iris", 1)
        assert server.version("iris", 1)["environment"] == "mine"


def complete(directory: Path, python: Path) -> None:
    """Make an environment as the command leaves it: its record comes last."""
    (directory / "bin").mkdir(parents=True)
    mend(directory / "bin" / "python", python)
    record = {
        "name": directory.name,
        "created_at": "2026-11-20T12:00:00Z",
        "python_version": "3.11.7",
        "installer": "pip",
        "requirements": ["scikit-learn==1.5.2"],
        "libraries": {"scikit-learn": "1.5.2"},
    }
    (directory / "environment.json").write_text(json.dumps(record))


def test_an_environment_that_breaks_takes_nothing_that_answers_with_it(
    other_python: Path, python: Path, trained: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, **settings_of(python)) as server:
        put(server, trained / "constant-1.joblib", "m", 1)
        server.wait_active("m", 1)
        python.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
        put(server, trained / "constant-2.joblib", "m", 2)
        refused = server.wait_state("m", 2, "REJECTED")
        assert refused["gates"][-1]["gate"] == "environment"
        assert f"'{SK15}' (" in refused["gates"][-1]["evidence"]
        assert server.predict("m").json() == {"model": "m", "version": "1", "predictions": [1.0]}
        server.kill_hosts()

        def tells_what_is_missing() -> bool:
            note = server.model("m")["active"]["note"] or ""
            return "cannot" in note or "could" in note

        until(tells_what_is_missing, "the note of what is missing")
        mend(python, other_python)
        until(lambda: server.predict("m").status_code == 200, "an answer again", 60)
        server.wait_active("m", 2)
        assert server.predict("m").json()["predictions"] == [2.0]


def test_a_zygote_of_an_environment_that_is_killed_loses_no_request(
    other_python: Path, trained: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, **settings_of(other_python)) as server:
        put(server, trained / "constant-1.joblib", "m", 1)
        server.wait_active("m", 1)
        with Traffic(server.url, "m", rate=50, connections=4) as traffic:
            for _ in range(3):
                zygote = until(lambda: zygote_elsewhere(server, other_python), "a zygote", 60)
                zygote.kill()
                until(lambda gone=zygote: not gone.is_running(), "the end of the zygote")
                answered = len(traffic.replies)
                until(lambda seen=answered: len(traffic.replies) > seen + 20, "answers", 60)
        check(traffic.replies)
        assert {reply.status for reply in traffic.replies} == {200}


def zygote_elsewhere(server: Server, python: Path) -> psutil.Process | None:
    """Return the zygote of the other environment once it has a host; None before."""
    assert server.process is not None
    there = str(python.parent.parent)
    for zygote in psutil.Process(server.process.pid).children():
        try:
            if there in Path(f"/proc/{zygote.pid}/maps").read_text() and zygote.children():
                return zygote
        except (OSError, psutil.NoSuchProcess):
            continue
    return None


def test_a_zygote_of_an_environment_ends_without_hosts(other_python: Path, trained: Path, tmp_path: Path) -> None:
    settings = settings_of(other_python, SERVING_ENVIRONMENTS__IDLE_SECONDS="0.5", SERVING_STORE__KEEP_WARM="0")
    with serving(tmp_path, **settings) as server:
        put(server, trained / "constant-1.joblib", "m", 1)
        server.wait_active("m", 1)
        assert server.process is not None
        assert len(psutil.Process(server.process.pid).children()) == 2
        server.drop("m", 2, constant(2))
        server.wait_active("m", 2)
        children = psutil.Process(server.process.pid).children
        until(lambda: len(children()) == 1, "the end of the zygote", 60)
        put(server, trained / "constant-3.joblib", "m", 3)
        server.wait_active("m", 3)
        assert server.predict("m").json()["predictions"] == [3.0]


def test_what_answered_in_an_environment_answers_after_a_restart(
    other_python: Path, trained: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, **settings_of(other_python)) as server:
        put(server, trained / "forest.joblib", "iris")
        server.wait_active("iris", 1)
        rows = json.loads((trained / "forest.json").read_text())["instances"]
        before = server.predict("iris", rows).json()
        server.kill()
        shutil.rmtree(server.store / "iris")
        server.start()
        server.wait_active("iris", 1)
        assert server.predict("iris", rows).json() == before
        assert server.version("iris", 1)["environment"] == SK15

"""The wheel serves with the oldest and with the newest libraries that pyproject.toml allows: `make ends`.

It is installed into environments of its own, from a registry, which takes minutes: so only by name. Each lower bound is
tried as the exact version; one that is not true fails here, be it that it cannot be installed with the others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

from serving import __version__
from tests.e2e.harness import START_SECONDS, serving, until

pytestmark = pytest.mark.ends

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PRIVATE = ("tests/unit/http1", "tests/unit/test_private_names.py")
COMMANDS = ("serve", "demo", "check", "publish", "status", "wait", "bench", "rollback", "keygen")

# models of both libraries, in the form that Python writes and in the libraries' own
BOOSTERS = """
from pathlib import Path
import joblib
from lightgbm import LGBMClassifier
from sklearn.datasets import load_iris
from xgboost import XGBClassifier
rows, answers = load_iris(return_X_y=True)
store = Path("store")
forest = XGBClassifier(n_estimators=5).fit(rows, answers)
leaves = LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, answers)
for name in ("xgboost", "xgboost_file", "lightgbm", "lightgbm_file"):
    (store / name / "1").mkdir(parents=True)
joblib.dump(forest, store / "xgboost/1/model.joblib")
joblib.dump(leaves, store / "lightgbm/1/model.joblib")
forest.get_booster().save_model(store / "xgboost_file/1/model.ubj")
leaves.booster_.save_model(store / "lightgbm_file/1/model.txt")
"""


def lower_bounds() -> list[str]:
    """Return what is required, each as the oldest version that is allowed."""
    found = []
    for text in [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]:
        requirement = Requirement(text)
        assert {each.operator for each in requirement.specifier} in ({">="}, {">=", "<"}), f"{text} has no lower bound"
        bound = next(each for each in requirement.specifier if each.operator == ">=")
        found.append(
            f"{requirement.name}=={bound.version}" + (f" ; {requirement.marker}" if requirement.marker else "")
        )
    return found


def python_of(end: str) -> str:
    """Return the oldest Python that is allowed, or the newest here, which NEWEST_PYTHON names where it is another."""
    if end == "newest":
        return os.environ.get("NEWEST_PYTHON") or sys.executable
    version = PROJECT["requires-python"].removeprefix(">=")
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    return shutil.which(f"python{version}") or pytest.skip(f"there is no Python {version} here")


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a command printed; it must succeed. Nothing of this checkout is on its way."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SERVING_", "PYTHON"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["lowest", "newest"])
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, all its extras, and what the tests of private names are run with."""
    directory = tmp_path_factory.mktemp(request.param)
    made = directory / "environment"
    run(python_of(request.param), "-m", "venv", made, cwd=directory)
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(lower_bounds() if request.param == "lowest" else ()))
    wanted = (f"{wheel}[{','.join(EXTRAS)}]", "httpx", "hypothesis", "packaging", "pytest", "-c", constraints)
    if uv := shutil.which("uv"):
        run(uv, "pip", "install", "--quiet", "--python", made / "bin" / "python", *wanted, cwd=directory)
    else:
        run(made / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted, cwd=directory)
    return made


def test_the_wheel_serves_the_demo_and_models_of_every_library(environment: Path, tmp_path: Path) -> None:
    """From a directory with nothing of the project in it."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    command = environment / "bin" / "serving"
    for start in ((command,), (environment / "bin" / "python", "-m", "serving")):
        assert run(*start, "--version", cwd=place) == f"serving {__version__}\n"
    for each in COMMANDS:
        assert "Usage" in run(command, each, "--help", cwd=place)

    assert "8 versions published" in run(command, "demo", "--store", "store", cwd=place)
    run(environment / "bin" / "python", "-c", BOOSTERS, cwd=place)
    for each in ("diabetes_mixed/1", "xgboost_file/1", "lightgbm/1"):
        assert "passed: served by" in run(command, "check", place / "store" / each, cwd=place)

    with serving(place, python=environment / "bin" / "python", SERVING_SERVER__GRPC_PORT="0") as server:
        models = sorted(each.name for each in server.store.iterdir())
        assert len(models) == 6 + 4
        for name in models:
            newest = max(each.name for each in (server.store / name).iterdir())
            server.wait_active(name, newest, START_SECONDS * 3)
            golden = server.store / name / newest / "golden.json"
            rows = json.loads(golden.read_text())["instances"] if golden.exists() else [[5.1, 3.5, 1.4, 0.2]]
            answer = server.predict(name, rows)
            assert answer.status_code == 200, f"{name}: {answer.text}"
            assert (answer.json()["version"], len(answer.json()["predictions"])) == (newest, len(rows))
        assert "10 of 10 models active" in run(command, "status", "--url", server.url, cwd=place)
        assert server.client.get(server.url + "/docs").status_code == 200
        assert _spoken_over_grpc(server.log())
        _ask_with_arrow(server.client, server.url)
        assert server.stop() == 0


def test_private_names_of_libraries_mean_what_they_are_used_for(environment: Path, tmp_path: Path) -> None:
    """A connection, bytes in and bytes out, and the names of decision 35, with these versions: from a copy."""
    for each in (*PRIVATE, "tests/fakes.py", "pyproject.toml", "docs/decisions"):
        copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / each, tmp_path / each)
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    options = ("-q", "-c", "empty.ini", "--rootdir", tmp_path, "--import-mode=importlib", "-p", "no:cacheprovider")
    said = run(environment / "bin" / "python", "-m", "pytest", *options, *PRIVATE, cwd=tmp_path)
    assert re.search(r"^\d{3} passed in", said, re.MULTILINE), said


def _spoken_over_grpc(log: list[dict[str, Any]]) -> bool:
    triton = pytest.importorskip("tritonclient.grpc")
    address = next(event["address"] for event in log if event["event"] == "listening_for_grpc")
    with triton.InferenceServerClient(address) as client:
        return bool(until(lambda: client.is_model_ready("iris"), "iris over gRPC"))


def _ask_with_arrow(client: httpx.Client, url: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({f"x{place}": [value] for place, value in enumerate((5.1, 3.5, 1.4, 0.2))})
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    answer = client.post(f"{url}/models/iris/predict", content=sink.getvalue().to_pybytes(), headers=kind)
    assert answer.status_code == 200, answer.text


def test_every_lower_bound_is_read() -> None:
    assert re.fullmatch(r"cryptography==[\d.]+", lower_bounds()[0])
    assert len(lower_bounds()) == len(PROJECT["dependencies"]) + sum(map(len, EXTRAS.values()))

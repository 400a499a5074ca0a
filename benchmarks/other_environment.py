"""Models of another scikit-learn: making an environment, from a file to an answer there, and the memory it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.drop import time_drop
from benchmarks.memory import MB, memory_of
from benchmarks.models import publish_logistic
from benchmarks.result import Result, figure
from benchmarks.run import Run
from benchmarks.server import running
from tests.e2e.harness import TOKEN, Server

NAME = "sk15"
REQUIREMENTS = ("scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3")
IDLE_SECONDS = 1.0
# the pipeline of `benchmarks.models.logistic`, fitted there; writes versions 1 to N of it
TRAIN = """
import sys
import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rows, labels = load_breast_cancer(return_X_y=True)
for version in range(1, int(sys.argv[2]) + 1):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=float(version), max_iter=1000)).fit(rows, labels)
    joblib.dump(model, f"{sys.argv[1]}/{version}.joblib")
"""
METHOD = f"""Environments with {", ".join(REQUIREMENTS)} are made by `serving environment create --requirements`, with \
pip and with uv, each without a cache of packages of its own (the same index and network). Then a logistic pipeline of \
30 features, trained there, is copied into the store of a server with default settings, except for \
`store.settle_seconds = 0.05` and `environments.idle_seconds = {IDLE_SECONDS:g}`, and timed as for `drop`: \
warm, while the environment's zygote runs, and cold, after it has ended. The same pipeline of the server's own \
scikit-learn, hosted (`engine.compile = "off"`), is timed in the same run. Memory is the zygote's, from \
`/proc/<pid>/smaps_rollup`, with one host."""


def run(run: Run) -> Result:
    """Make environments, then drop versions into a server that uses one."""
    rounds = run.count(20, 3)
    pip_seconds, uv_seconds = [], []
    for number in range(run.count(3, 1)):
        pip_seconds.append(_make(run.scratch / f"pip-{number}", _plain_path()))
        uv_seconds.append(_make(run.scratch / f"uv-{number}", f"{_install_uv(run.scratch / 'uv')}:{_plain_path()}"))
    environments = run.scratch / "pip-0" / "environments"
    trained = run.scratch / "trained"
    trained.mkdir()
    python = environments / NAME / "bin" / "python"
    subprocess.run([python, "-I", "-c", TRAIN, trained, str(2 * rounds + 1)], check=True)
    settings = {
        "SERVING_STORE__SETTLE_SECONDS": "0.05",
        "SERVING_ENGINE__COMPILE": "off",
        "SERVING_ENVIRONMENTS__PATH": str(environments),
        "SERVING_ENVIRONMENTS__IDLE_SECONDS": f"{IDLE_SECONDS:g}",
        "SERVING_STORE__KEEP_WARM": "0",
        "SERVING_SECURITY__ADMIN_TOKEN": TOKEN,
    }
    own, cold, warm = [], [], []
    aside = run.scratch / "aside"
    for version in range(1, rounds + 1):
        publish_logistic(aside, "own", version)
    with running(run.scratch / "server", wait_ready=False, **settings) as server:
        for version in range(1, rounds + 1):
            [file] = (aside / "own" / str(version)).glob("*.joblib")
            own += [_time(server, "own", version, file)]
        _time(server, "there", 1, trained / "1.joblib")
        for version in range(2, rounds + 2):
            warm += [_time(server, "there", version, trained / f"{version}.joblib")]
        zygote = memory_of(_find_zygote(server, environments).pid)
        host = memory_of(_find_zygote(server, environments).children()[0].pid)
        before = "there"
        for version in range(rounds + 2, 2 * rounds + 2):
            server.operate("POST", f"/v2/repository/models/{before}/unload").raise_for_status()
            while _has_zygote(server, environments):
                time.sleep(0.1)
            before = f"cold{version}"
            cold += [_time(server, before, 1, trained / f"{version}.joblib")]
    return Result(
        name="other_environment",
        title="Models of another scikit-learn",
        method=METHOD,
        figures=(
            figure("make an environment with pip", "s", pip_seconds),
            figure("make an environment with uv", "s", uv_seconds),
            figure("file to first answer, own environment", "ms", own),
            figure("file to first answer, another environment, warm", "ms", warm),
            figure("file to first answer, another environment, cold", "ms", cold),
            figure("zygote of the environment, PSS", "MB", zygote.proportional / MB),
            figure("zygote of the environment, resident", "MB", zygote.resident / MB),
            figure("one host there, private", "MB", host.private / MB),
        ),
    )


def _time(server: Server, model: str, version: int, source: Path) -> float:
    """Return the milliseconds from before a file is copied into the store to the first answer of its version."""
    (server.store / model).mkdir(exist_ok=True)
    copy: Callable[[], object] = partial(shutil.copyfile, source, server.store / model / f"{version}.joblib")
    return time_drop(server, model, version, copy).seconds * 1000


def _make(directory: Path, path: str) -> float:
    """Make an environment in a new directory and return how many seconds it took."""
    directory.mkdir(parents=True)
    requirements = directory / "requirements.txt"
    requirements.write_text("\n".join(REQUIREMENTS))
    variables = {**os.environ, "PATH": path, "SERVING_ENVIRONMENTS__PATH": str(directory / "environments")}
    variables |= {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}
    command = [sys.executable, "-m", "serving", "environment", "create", NAME, "--requirements", str(requirements)]
    began = time.monotonic()
    subprocess.run([*command, "--python", sys.executable], env=variables, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _install_uv(directory: Path) -> Path:
    """Return the directory of uv's program; installs it on the first call."""
    if not directory.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    return directory / "bin"


def _plain_path() -> str:
    """Return PATH without directories that have uv."""
    places = os.environ["PATH"].split(":")
    return ":".join(place for place in places if not Path(place, "uv").exists())


def _find_zygote(server: Server, environments: Path) -> psutil.Process:
    assert server.process is not None
    children = psutil.Process(server.process.pid).children()
    return next(child for child in children if str(environments) in Path(f"/proc/{child.pid}/maps").read_text())


def _has_zygote(server: Server, environments: Path) -> bool:
    try:
        _find_zygote(server, environments)
    except StopIteration:
        return False
    return True

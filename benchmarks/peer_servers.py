"""Other model servers, each in an environment of its own under ``.bench-cache/venvs``, made on first use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.cores import on_cores
from benchmarks.models import ROW
from benchmarks.peers import free_port
from benchmarks.run import ROOT
from benchmarks.wire import address_of

AGAINST = ROOT / "benchmarks" / "against"
START_SECONDS, STOP_SECONDS = 120.0, 20.0
INSTALL_SECONDS = 900.0
MODELS = ("logistic", "forest", "neighbours")
ROWS_BODY = json.dumps({"instances": [ROW]}).encode()
INPUTS_BODY = json.dumps({"inputs": [ROW]}).encode()
_TENSOR = {"name": "predict", "shape": [1, len(ROW)], "datatype": "FP64", "data": ROW}
OIP_BODY = json.dumps({"inputs": [_TENSOR]}).encode()


class PeerFailed(Exception):
    """A peer could not be installed, started or asked. The text is its own last line about it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One server. `command` takes its ``bin`` directory, the models' directory, a model and a port and says what to run
    with which variables; `path` takes the model; `label` reads the first label from an answer.
    """

    name: str
    environment: str
    requirements: tuple[str, ...]
    command: Callable[[Path, Path, str, int], tuple[list[str], dict[str, str]]]
    path: Callable[[str], str]
    body: bytes
    label: Callable[[Any], Any]
    training: tuple[str, ...] = ()


def install(peer: Peer, cache: Path) -> Path:
    """Return the environment's ``bin``, made with pip if it is not there. Blocks for minutes; raises PeerFailed."""
    home = cache / "venvs" / peer.environment
    done = home / "installed.txt"
    wanted = "\n".join(peer.requirements)
    if done.is_file() and done.read_text() == wanted:
        return home / "bin"
    _run([sys.executable, "-m", "venv", str(home)], home.parent.parent)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *peer.requirements], home)
    done.write_text(wanted)
    return home / "bin"


def train(peer: Peer, binaries: Path, directory: Path) -> dict[str, str]:
    """Train the models with the environment's own scikit-learn and return its versions; raises PeerFailed."""
    directory.mkdir(parents=True, exist_ok=True)
    said = _run([str(binaries / "python"), str(AGAINST / "train.py"), str(directory), *peer.training], directory)
    found: dict[str, str] = json.loads(said.splitlines()[-1])
    return found


@contextmanager
def started(peer: Peer, binaries: Path, directory: Path, model: str, *, on: Iterable[int]) -> Iterator[str]:
    """Run a server with one model on some cores and return its URL when it answers as it should; raises PeerFailed."""
    port, log = free_port(), directory / f"{peer.environment}.log"
    command, variables = peer.command(binaries, directory, model, port)
    found = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": found, "PYTHONPATH": str(AGAINST), **variables}
    with on_cores(on), log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(peer, process, url, model, log)
        yield url
    finally:
        stop(process)
        shutil.rmtree(short_directory(port), ignore_errors=True)


def short_directory(port: int) -> Path:
    """Return a directory of a server at a port whose sockets' paths must be short; removed when the server is."""
    return Path(tempfile.gettempdir()) / f"peer-{port}"


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything it has started."""
    family = []
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, STOP_SECONDS)


def _wait_until_it_answers(peer: Peer, process: subprocess.Popen[bytes], url: str, model: str, log: Path) -> None:
    ends_at, seen = time.monotonic() + START_SECONDS, "no connection"
    headers = {"content-type": "application/json"}
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            raise PeerFailed(f"exited with {process.returncode}: {_last_line(log.read_text(errors='replace'))}")
        try:
            answer = httpx.post(url + peer.path(model), content=peer.body, headers=headers, timeout=10)
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        if answer.status_code == 200:
            if int(peer.label(answer.json())) != 0:  # the first row of the data is malignant
                raise PeerFailed(f"answers {answer.text[:200]}")
            return
        seen = f"{answer.status_code} {answer.text[:200]}"
        time.sleep(0.2)
    raise PeerFailed(f"does not answer at port {address_of(url)[1]} after {START_SECONDS:g} s: {seen}")


def _run(command: list[str], directory: Path) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise PeerFailed(_last_line(done.stderr or done.stdout))
    return done.stdout


def _last_line(text: str) -> str:
    """Return the last line that speaks of an error, else the last one; paths of this machine are none of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing was said"]
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines)[-1].replace(str(ROOT), ".")[:300]

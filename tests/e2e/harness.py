"""A real server process and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import joblib
import numpy as np
import psutil
from sklearn.linear_model import LinearRegression

from tests.e2e.armed import Faults
from tests.e2e.launch import MATERIAL, LaunchedPopen

ARMED = Path(__file__).parent / "armed.py"
sys.path.insert(0, str(MATERIAL))

import peculiar  # noqa: E402  (found through the line above, in hosts through PYTHONPATH)

PECULIAR = tuple(
    f"peculiar.{name}"
    for name, kind in vars(peculiar).items()
    if isinstance(kind, type) and kind.__module__ == "peculiar"
)

TOKEN = "test-token"
START_SECONDS = 60.0
NOT_INHERITED = ("SERVING_", "OMP_", "OPENBLAS_")  # by servers, from whoever runs the tests
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would read all certificates for each client: 20 ms
Result = TypeVar("Result")


def until(
    condition: Callable[[], Result], what: str = "the condition", seconds: float = 30.0, every: float = 0.01
) -> Result:
    """Wait for a condition to become true and return what it gave; fail with `what` when it does not.

    It is asked less and less often, so that who asks does not slow down what is waited for.
    """
    began = time.monotonic()
    while True:
        result = condition()
        if result:
            return result
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"{what} did not happen within {seconds:g} s; last seen: {result!r}")
        time.sleep(max(every, min(waited / 10, 0.1)))


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def constant(value: float, kind: type[peculiar.Constant] = peculiar.Constant, **parameters: Any) -> peculiar.Constant:
    """Return a fitted model of two features that answers `value`."""
    return kind(value, **parameters).fit(np.zeros((2, 2)))


def linear() -> LinearRegression:
    """Return a fitted model of two features that answers ``x + 2 * y``; scikit-learn's own, so it is compiled."""
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    return LinearRegression().fit(rows, rows @ [1.0, 2.0])


def connect(url: str, seconds: float = 20.0) -> socket.socket:
    """Connect to a server; each operation on the socket may take so long, and what is sent goes at once."""
    address = urlsplit(url)
    sock = socket.create_connection((address.hostname or "", address.port or 0), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def write_version(directory: Path, version: str | int, estimator: Any) -> Path:
    """Put one version into a model directory the safe way: written aside, then renamed."""
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / f".{version}.aside"
    aside.mkdir()
    joblib.dump(estimator, aside / "model.joblib")
    target = directory / str(version)
    aside.rename(target)
    return target


class Server:
    """One ``serving serve`` process on a free port. Its log is JSON in `log_path`.

    Its first zygote imports what it needs, as it does for a user, unless `imports_anew` is false: see `launch`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        store: Path | None = None,
        makes_store: bool = True,
        name: str = "server",
        python: str | Path = sys.executable,
        entry: tuple[str | Path, ...] = ("-m", "serving"),
        imports_anew: bool = True,
        **environment: str,
    ) -> None:
        self.store = store if store is not None else directory / "store"
        if makes_store:
            self.store.mkdir(parents=True, exist_ok=True)
        self.state = directory / f"{name}-state"
        self.log_path = directory / f"{name}.log"
        self.directory = directory
        self.environment = {
            "SERVING_STORE__SETTLE_SECONDS": "0.2",
            "SERVING_CANDIDATE__RETRY_SECONDS": "0.2",
            "SERVING_SECURITY__ADMIN_TOKEN": TOKEN,
            "SERVING_SECURITY__PICKLE_TRUSTED": ",".join(PECULIAR),
            "SERVING_LOG__FORMAT": "json",
            "SERVING_LOG__LEVEL": "debug",
            **environment,
        }
        self.python = python
        self.entry = entry
        self.imports_anew = imports_anew
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        # No surplus: the pool closes surplus idle connections, and now and then one that a thread has just been given.
        self.client = httpx.Client(
            timeout=60.0, verify=NO_TLS, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
        )

    # --- the process -------------------------------------------------------------------------------------------------

    def start(self, *, wait_ready: bool = False, port: int = 0) -> Server:
        """Start the process and wait until it listens (and, if asked, is ready); 0 takes a free port."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        environment = {**clean, "PYTHONPATH": str(MATERIAL), **self.environment}
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = (subprocess.Popen if self.imports_anew else LaunchedPopen)(
                [self.python, *self.entry, "serve", "--port", str(port), "--store", self.store, "--state", self.state],
                env=environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        events = until(lambda: self._listening(offset), "listening", START_SECONDS)
        self.url = events["url"]
        if wait_ready:
            self.wait_ready()
        return self

    def _listening(self, offset: int) -> dict[str, Any] | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server exited with {self.process.returncode}:\n{self.log_path.read_text()}")
        return next((event for event in self.log(offset) if event.get("event") == "listening"), None)

    def log(self, offset: int = 0) -> list[dict[str, Any]]:
        """Return what the server has logged, line by line."""
        with self.log_path.open("rb") as file:
            file.seek(offset)
            lines = file.read().splitlines()
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def stop(self, seconds: float = 30.0) -> int:
        """Ask the server to stop and return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server did not stop") from None

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """Return the server's descendants: the zygote and the hosts."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def hosts(self) -> list[psutil.Process]:
        """Return the host processes: the zygote's children."""
        assert self.process is not None
        zygotes = psutil.Process(self.process.pid).children()
        return [host for zygote in zygotes for host in zygote.children()]

    def kill_hosts(self) -> None:
        """Kill every host there is; one that was about to end by itself may be gone already."""
        for host in self.hosts():
            with contextlib.suppress(psutil.NoSuchProcess):
                host.kill()

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """GET and return the JSON; any status."""
        return self.client.get(self.url + path).json()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until /health/ready says so."""
        until(lambda: self.client.get(self.url + "/health/ready").status_code == 200, "readiness", seconds, 0.05)

    def active(self, model: str) -> str | None:
        """Return the version that answers for a model."""
        response = self.client.get(f"{self.url}/models/{model}/active")
        active = response.json().get("active") if response.status_code == 200 else None
        return active["version"] if active else None

    def wait_active(self, model: str, version: str | int, seconds: float = 30.0) -> None:
        """Wait until a version is active."""
        until(
            lambda: self.active(model) == str(version) or None,
            f"version {version} of {model} becoming active (versions: {self._versions(model)})",
            seconds,
            every=0.03,
        )

    def _versions(self, model: str) -> Any:
        with contextlib.suppress(httpx.HTTPError, AttributeError):
            return [(one["version"], one["state"], one["reason"]) for one in self.model(model).get("versions", [])]
        return None

    def model(self, model: str) -> Any:
        """GET /models/{model}."""
        return self.get(f"/models/{model}")

    def version(self, model: str, version: str | int) -> Any:
        """GET one version."""
        return self.get(f"/models/{model}/versions/{version}")

    def wait_state(self, model: str, version: str | int, state: str, seconds: float = 30.0) -> Any:
        """Wait until a version is in a state, and return it."""
        return until(
            lambda: (seen := self.version(model, version)).get("state") == state and seen,
            f"version {version} of {model} becoming {state} (versions: {self._versions(model)})",
            seconds,
        )

    def predict(self, model: str, rows: Any = ((0.0, 0.0),), version: str | None = None) -> httpx.Response:
        """POST a prediction."""
        where = f"/models/{model}/versions/{version}/predict" if version else f"/models/{model}/predict"
        return self.client.post(self.url + where, json={"instances": rows})

    def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Make an operator's call."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.client.request(method, self.url + path, json=body, headers=headers)

    def drop(self, model: str, version: str | int, estimator: Any) -> Path:
        """Put a version into the store by rename."""
        return write_version(self.store / model, version, estimator)


@contextlib.contextmanager
def serving(directory: Path, *, wait_ready: bool = False, **options: Any) -> Iterator[Server]:
    """Run a server for the length of a ``with`` block; its log is shown when the block fails.

    Its first zygote has imported everything already, which spares two seconds of a processor. Tests of the start itself
    ask for `imports_anew`; so it is with another entry or Python, too.
    """
    server = Server(directory, **{"imports_anew": not options.keys().isdisjoint({"entry", "python"}), **options})
    try:
        server.start(wait_ready=wait_ready)
        yield server
    except BaseException:
        print(server.log_path.read_text()[-20000:] if server.log_path.exists() else "no log")
        raise
    finally:
        server.client.close()
        if server.process is not None and server.process.poll() is None:
            server.kill()


@contextlib.contextmanager
def armed(directory: Path, **options: Any) -> Iterator[tuple[Server, Faults]]:
    """Run a server whose failpoints obey the second value."""
    faults = Faults(directory / "faults")
    with serving(directory, entry=(ARMED, faults.directory), **{"imports_anew": False, **options}) as server:
        yield server, faults

"""A server tells nobody anything: no connection, no name looked up, no file outside of its own directories.

Files that stay and lines of the log are looked at on every machine. Attempts, and files that are gone again, are what
strace saw: without it, or where a process may not trace its children, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pytest
import xgboost
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from serving.offline.keys import create_key, load_key
from serving.store.publishing import Publication, publish
from tests.e2e.harness import Server, serving, until, write_version
from tests.e2e.test_signed import NOW

ROWS = np.random.default_rng(0).normal(size=(60, 3))
CLASSES = (ROWS[:, 0] > 0).astype(int)
FILES = ("model.joblib", "model.onnx")  # that are checked
# -D: the traced process keeps its number and its parent; -ff: a file for each thread, so that no call is in two pieces
STRACE = ("strace", "-D", "-ff", "-y", "-q", "-s", "256", "-e")
CALLS = (
    "trace=socket,connect,bind,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,mknod,mknodat"
)
WATCHED_SECONDS = 12.0  # onnxruntime makes its first connection 9 s after it was imported
EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
# what would make a library quiet by itself, and places it would ask for before it asks for the home directory
UNSET = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


@dataclass(frozen=True)
class Watched:
    """What a process may use, what is watched, and where strace writes."""

    directory: Path

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def temporary(self) -> Path:
        return self.directory / "temporary"

    @property
    def environment(self) -> dict[str, Any]:
        """The variables that lead to the watched directories; Python's own cache of its modules is left as it is."""
        return {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, *command: str | Path) -> tuple[str | Path, ...]:
        """Return `command` under strace, if it can be had."""
        prefix = (*STRACE, CALLS, "-o", self.directory / "trace") if reason_against_strace() is None else ()
        return (*prefix, *command)

    def calls(self, pid: int) -> list[str]:
        """Return every traced call of every process, when the one that was started has ended and strace has seen it."""
        until(lambda: "+++ exited with" in (self.directory / f"trace.{pid}").read_text(), "the end of the trace")
        files = sorted(self.directory.glob("trace.*"))
        return [line for file in files for line in file.read_text().splitlines() if re.match(r"\w+\(", line)]


def watched(directory: Path) -> Watched:
    for name in ("home", "temporary"):
        (directory / name).mkdir()
    return Watched(directory)


def reason_against_strace() -> str | None:
    """Return why no process can be watched here, or None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"strace may not trace: {tried.stderr.strip()}"


needs_strace = pytest.mark.skipif(reason_against_strace() is not None, reason=str(reason_against_strace()))


@dataclass(frozen=True)
class Life:
    """A server that has lived and stopped."""

    watched: Watched
    server: Server

    @property
    def calls(self) -> list[str]:
        assert self.server.process is not None
        return self.watched.calls(self.server.process.pid)


@dataclass(frozen=True)
class Check:
    """A ``serving check`` of one file, begun."""

    watched: Watched
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Check]]:
    """A check of each file: they run beside the server's life, most of which is waiting."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for variable in UNSET:
            patch.delenv(variable, raising=False)
        yield {name: stack.enter_context(_checking(tmp_path_factory.mktemp("check"), name)) for name in FILES}


@contextlib.contextmanager
def _checking(directory: Path, name: str) -> Iterator[Check]:
    seen = watched(directory)
    with (directory / name).open("wb") as file:
        _write_graph(file) if name.endswith("onnx") else joblib.dump(LogisticRegression().fit(ROWS, CLASSES), file)
    command = seen.command(sys.executable, "-m", "serving", "check", directory / name)
    environment = {**os.environ, **seen.environment}
    process = subprocess.Popen(command, env=environment, cwd=directory, stdout=subprocess.DEVNULL)
    yield Check(seen, process)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, checks: dict[str, Check]) -> Iterator[Life]:
    """Start, compile a model, take a signed ONNX file and a booster, answer, swap, answer, stop."""
    directory = tmp_path_factory.mktemp("life")
    seen = watched(directory)
    create_key(directory / "key")
    key = load_key(directory / "key")
    with pytest.MonkeyPatch.context() as patch:
        for name in UNSET:
            patch.delenv(name, raising=False)
        entry = ("-c", EXEC, *seen.command(sys.executable, "-m", "serving"))
        chosen: dict[str, Any] = {"SERVING_SECURITY__TRUSTED_KEYS": str(key.public), "SERVING_SERVER__GRPC_PORT": "0"}
        with serving(directory, entry=entry, **seen.environment, **chosen) as server:
            write_version(server.store / "compiled", 1, LogisticRegression().fit(ROWS, CLASSES))
            publish(server.store, Publication("graph", "model.onnx", _write_graph, version="1", sign=key.sign), NOW)
            write_version(server.store / "boosted", 1, _booster())
            for model in ("compiled", "graph", "boosted"):
                server.wait_active(model, 1, 60)
                assert server.predict(model, ROWS[:2].tolist()).status_code == 200
            write_version(server.store / "compiled", 2, LogisticRegression(C=0.1).fit(ROWS, CLASSES))
            server.wait_active("compiled", 2, 60)
            assert server.predict("compiled", ROWS[:2].tolist()).status_code == 200
            _answer_on(server, WATCHED_SECONDS)
            assert [server.model(name)["active"]["engine"] for name in ("compiled", "graph")] == ["onnx", "onnx"]
            assert server.stop() == 0
        yield Life(seen, server)


def _answer_on(server: Server, seconds: float) -> None:
    """Ask for answers that long."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for model in ("compiled", "graph", "boosted"):
            assert server.predict(model, ROWS[:2].tolist()).status_code == 200
        time.sleep(0.5)  # each of their calls is traced


def _write_graph(file: Any) -> None:
    with warnings.catch_warnings(action="ignore"):  # skl2onnx is behind scikit-learn in attributes it reads
        graph = to_onnx(LogisticRegression().fit(ROWS.astype(np.float32), CLASSES), ROWS[:1].astype(np.float32))
    file.write(graph.SerializeToString())


def _booster() -> Any:
    return xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(ROWS, CLASSES)


def test_nothing_is_left_in_the_home_directory_or_among_temporary_files(life: Life) -> None:
    assert list(life.watched.home.rglob("*")) == []
    assert list(life.watched.temporary.rglob("*")) == []


def test_no_library_prints_into_the_log(life: Life) -> None:
    for line in life.server.log_path.read_bytes().splitlines():
        assert "event" in orjson.loads(line)


@needs_strace
def test_its_only_sockets_of_the_network_listen_on_loopback_and_nothing_is_sent(life: Life) -> None:
    calls = life.calls
    sockets = [call.split(" = ")[0] for call in calls if is_network_socket(call)]
    assert sockets[0] == "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_TCP)"  # HTTP's; gRPC's library makes more
    assert [call for call in sockets if "SOCK_STREAM" not in call] == []
    bound = [call for call in calls if call.startswith("bind(") and "AF_INET" in call]
    assert 'inet_addr("127.0.0.1")' in bound[0]
    assert [call for call in bound if not re.search(r'"(127\.0\.0\.1|::1|::ffff:127\.0\.0\.1)"', call)] == []
    assert [call for call in calls if is_sent_away(call)] == []


@needs_strace
def test_it_writes_into_its_own_directories_only(life: Life) -> None:
    server = life.server
    paths = written(life.calls, server.directory)
    assert [path for path in paths if not path.is_relative_to(server.state) and path.parent != server.store] == []
    assert server.state / "state.sqlite" in paths
    assert [path for path in paths if is_by_a_host(path)] == []


@needs_strace
@pytest.mark.parametrize("name", FILES)
def test_a_check_of_one_file_tells_nobody(checks: dict[str, Check], name: str) -> None:
    seen, process = checks[name].watched, checks[name].process
    assert process.wait(120) == 0
    calls = seen.calls(process.pid)
    assert [call for call in calls if is_network_socket(call) or is_sent_away(call)] == []
    paths = written(calls, seen.directory)
    assert [path for path in paths if not path.is_relative_to(seen.temporary) or is_by_a_host(path)] == []
    assert [*seen.home.iterdir(), *seen.temporary.iterdir()] == []


def is_network_socket(call: str) -> bool:
    """Whether a call asked for a socket that reaches farther than this machine's own processes, allowed or not."""
    return call.startswith("socket(") and not call.startswith(("socket(AF_UNIX,", "socket(AF_NETLINK,"))


def is_sent_away(call: str) -> bool:
    """Whether a call named somebody to connect or send to, or read what names are looked up with."""
    is_named = call.startswith(("connect(", "send")) and "sa_family=" in call
    is_local = "sa_family=AF_UNIX" in call or "sa_family=AF_NETLINK" in call
    return (is_named and not is_local) or '"/etc/resolv.conf"' in call


def is_by_a_host(path: Path) -> bool:
    """Whether a path is in the directory that is a host's home and its place for temporary files."""
    return "scratch" in path.parts[:-2]


def written(calls: list[str], working_directory: Path) -> list[Path]:
    """Return what was created or opened for writing, allowed or not, but for what is no file: /proc and /dev/null."""
    paths = []
    for call in calls:
        if call.startswith("open") and not re.search(r"O_(CREAT|WRONLY|RDWR|TMPFILE)", call):
            continue
        if call.startswith(("open", "creat", "mk", "rename", "link", "symlink")):
            quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', call)
            opened = re.search(r" = \d+<([^>]*)>$", call)
            place = re.findall(r"(?:AT_FDCWD|\d+)<([^>]*)>, \"", call)
            base = Path(place[-1]) if place else working_directory
            paths.append(Path(opened.group(1)) if opened else Path(os.path.normpath(base / quoted[-1])))
    return [path for path in paths if not path.is_relative_to("/proc") and path != Path(os.devnull)]

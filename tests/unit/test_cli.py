"""The command line in real processes: what it prints, where, and with which exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression

from serving import __version__
from serving.cli.client import ServerClient, choose_server_url
from serving.domain.rollout import RolloutSummary
from serving.offline import publish as publish_estimator
from serving.offline.keys import create_key
from serving.settings import ServerSettings, SettingsError
from tests.commands import clean_environment, run_command
from tests.e2e import launch
from tests.e2e.harness import until
from tests.fakes import make_rollout_status

ROOT = Path(__file__).parents[2]
WRITTEN_BY_1_3 = ROOT / "tests" / "unit" / "host" / "written_elsewhere" / "sklearn_1.3.2.joblib"
PYTHON = [sys.executable, "-W", "error", "-m", "serving"]


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def environment() -> dict[str, str]:
    return clean_environment()


def finish(done: subprocess.CompletedProcess[str]) -> Done:
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def serving(tmp_path: Path) -> Any:
    """Runs a command that starts no host, in a process that has imported the program already."""

    def run(*arguments: object, **variables: str) -> Done:
        return finish(run_command(arguments, tmp_path, variables))

    return run


@pytest.fixture
def serving_from_scratch(tmp_path: Path, environment: dict[str, str]) -> Any:
    """Runs a command as a shell does: what Python itself reads at its start counts."""

    def run(*arguments: object, **variables: str) -> Done:
        command, own = [*PYTHON, *map(str, arguments)], {**environment, **variables}
        return finish(
            subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120, check=False)
        )

    return run


@pytest.fixture
def serving_with_hosts(tmp_path: Path, environment: dict[str, str]) -> Any:
    """Runs a command that starts hosts, whose imports are done already."""

    def run(*arguments: object, **variables: str) -> Done:
        return finish(launch.run([*PYTHON, *map(str, arguments)], cwd=tmp_path, env={**environment, **variables}))

    return run


# --- a server that answers what a test tells it -----------------------------------------------------------------------


@dataclass
class FakeServer:
    """Answers by (method, path); keeps what it was asked."""

    answers: dict[tuple[str, str], tuple[int, Any]] = field(
        default_factory=lambda: {
            ("GET", "/models"): (200, {"models": [], "sandbox": None}),
            ("GET", "/workers"): (200, {"workers": []}),
        }
    )
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    @property
    def asked(self) -> tuple[str, str, Any]:
        (method, path, _, body) = self.requests[-1]
        return method, path, body

    @property
    def headers(self) -> dict[str, str]:
        return self.requests[-1][2]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.requests.append((self.command, self.path, dict(self.headers), body))
            status, answer = fake.answers[(self.command, self.path)]
            raw = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as httpd:
        fake.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        httpd.shutdown()
        thread.join()


def read_terminal(leader: int) -> str:
    """Return all that was shown on a terminal that nobody has open any more: the kernel hands it over in pieces."""
    shown = b""
    with os.fdopen(leader, "rb", buffering=0) as file, contextlib.suppress(OSError):  # which is how it ends
        while piece := file.read(1 << 16):
            shown += piece
    return shown.decode()


ACTIVE = {
    "version": "3",
    "digest": "sha256:" + "0" * 64,
    "engine": "onnx",
    "state": "ACTIVE",
    "activated_at": "2026-11-20T08:00:00Z",
    "note": None,
}
IRIS = {"name": "iris", "active": ACTIVE, "target": None, "pinned": None, "last_failure": None}
WINE = {
    "name": "wine",
    "active": None,
    "target": {"version": "4", "state": "VALIDATING"},
    "pinned": "4",
    "last_failure": {
        "version": "2",
        "gate": "golden",
        "reason": "row 3:\n\x1b[31mgot 2",
        "at": "2026-11-20T08:00:00Z",
    },
}
SECRET = {"SERVING_SECURITY__ADMIN_TOKEN": "s3cret"}


# --- the program ------------------------------------------------------------------------------------------------------


def test_version(serving_from_scratch: Any) -> None:
    assert serving_from_scratch("--version") == Done(0, f"serving {__version__}\n", "")


def test_help_is_quick_to_import(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys; from serving.cli.program import app; app(['--help'], standalone_mode=False);"
        "heavy = ['sklearn', 'fastapi', 'numpy', 'uvicorn', 'joblib', 'onnxruntime', 'rich'];"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    commands = [
        "serve",
        "demo",
        "publish",
        "check",
        "verify",
        "keygen",
        "status",
        "wait",
        "history",
        "pin",
        "unpin",
        "label",
        "rollback",
        "rollout",
        "release",
        "unload",
        "load",
        "refresh",
        "accept-state-loss",
        "bench",
        "replay",
        "environment",
    ]
    assert re.findall(r"^  ([a-z][a-z-]+) {2,}\S", done.stdout, re.MULTILINE) == commands


def test_a_shell_completes_commands(environment: dict[str, str], tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'serving'; from serving.cli import main; sys.exit(main())"
    asked = {"_SERVING_COMPLETE": "complete_bash", "COMP_WORDS": "serving unp", "COMP_CWORD": "1"}
    command, variables = [sys.executable, "-W", "error", "-c", code], {**environment, **asked}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["unpin"], "")


def test_a_misspelt_command_is_a_usage_error(serving: Any) -> None:
    done = serving("sttus")
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith("No such command 'sttus'. Did you mean 'status'?\n")


def test_help_shows_the_defaults_as_they_are_now(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[store]\npath = "from-file"\n[server]\nport = 1234\n')
    (tmp_path / "other.toml").write_text('[store]\npath = "from-other"\n')
    shown = " ".join(
        serving("serve", "--help", SERVING_SERVER__PORT="4321", SERVING_SERVER__FAIL_FAST="yes").out.split()
    )
    for part in (
        "[default: from-file]",
        "[default: 4321]",
        "[default: 127.0.0.1]",
        "[default: yes]",
        "[default: info]",
    ):
        assert part in shown
    assert "None" not in shown
    assert "[default: from-other]" in serving("serve", "--settings", "other.toml", "--help").out


def test_help_is_shown_even_when_the_settings_are_wrong(serving: Any) -> None:
    done = serving("serve", "--help", SERVING_SERVER__PORT="eighty")
    assert done.status == 0
    assert "--store DIR" in done.out
    assert "No defaults are shown: environment: SERVING_SERVER__PORT:" in done.out


def test_settings_that_cannot_be_used_end_with_2_and_one_line_each(serving: Any) -> None:
    done = serving("serve", "--watch", "evnts", SERVING_STORE__PAHT="x")
    assert (done.status, done.out) == (2, "")
    assert sorted(line.split(": ")[0] for line in done.err.splitlines()) == ["command line", "environment"]


# --- asking a server --------------------------------------------------------------------------------------------------


def test_status_is_a_line_a_table_and_what_an_operator_should_know(serving: Any, server: FakeServer) -> None:
    noted = {**IRIS, "active": {**ACTIVE, "note": "its files are gone"}}
    unloaded = {**IRIS, "name": "gone", "active": None, "unloaded": True}
    server.answers["GET", "/models/active"] = 200, {"models": [noted, WINE, unloaded]}
    sandbox = {"active": ["limits", "seccomp"], "missing": {"landlock": "Function not implemented"}}
    server.answers["GET", "/models"] = 200, {"models": [], "sandbox": sandbox}
    done = serving("status", "--url", server.url)
    assert done == Done(
        0,
        f"1 of 3 models active at {server.url}\n"
        "MODEL  ACTIVE    ENGINE  TARGET        PINNED  LAST FAILURE\n"
        "iris   3         onnx    -             -       -\n"
        "wine   -         -       4 VALIDATING  4       2 2026-11-20 08:00:00+00:00 golden: row 3: ?[31mgot 2\n"
        "gone   unloaded  -       -             -       -\n"
        "iris: its files are gone\n"
        "sandbox of every host: limits, seccomp; no landlock (Function not implemented)\n",
        "",
    )


def test_status_names_gates_that_warned_and_versions_in_quarantine(serving: Any, server: FakeServer) -> None:
    known = {
        "warnings": [{"version": "3", "gate": "environment", "evidence": "trained with scikit-learn 1.8.0"}],
        "quarantined": [{"version": "2", "path": "iris/2"}, {"version": "1", "path": None}],
    }
    server.answers["GET", "/models/active"] = 200, {"models": [{**IRIS, **known}]}
    lines = serving("status", "--url", server.url).out.splitlines()
    assert lines[-3:] == [
        "iris/3: gate environment warned: trained with scikit-learn 1.8.0",
        "iris/2: in quarantine since a rollback, until 'serving release iris 2' ('iris/2' of the store)",
        "iris/1: in quarantine since a rollback, until 'serving release iris 1' (not in the store with these bytes)",
    ]


def test_status_names_the_environment_of_what_answers_unless_it_is_the_servers_own(
    serving: Any, server: FakeServer
) -> None:
    elsewhere = {**IRIS, "active": {**ACTIVE, "engine": "sklearn", "environment": "sk15"}}
    server.answers["GET", "/models/active"] = 200, {"models": [elsewhere]}
    assert serving("status", "--url", server.url).out.splitlines()[1:] == [
        "MODEL  ACTIVE  ENGINE           TARGET  PINNED  LAST FAILURE",
        "iris   3       sklearn in sk15  -       -       -",
    ]


def test_status_of_what_is_in_order_is_a_line_and_a_table(serving: Any, server: FakeServer) -> None:
    """No token is sent for reading, and a proxy is not asked about this machine."""
    server.answers["GET", "/models/active"] = 200, {"models": [IRIS]}
    done = serving("status", "--url", server.url, http_proxy="http://127.0.0.1:9", **SECRET)
    assert done == Done(
        0,
        f"1 of 1 model active at {server.url}\n"
        "MODEL  ACTIVE  ENGINE  TARGET  PINNED  LAST FAILURE\n"
        "iris   3       onnx    -       -       -\n",
        "",
    )
    assert all("Authorization" not in headers for _, _, headers, _ in server.requests)


def test_names_that_a_terminal_lacks_letters_for_do_not_end_a_table(
    serving_from_scratch: Any, server: FakeServer
) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": [{**IRIS, "name": "übung"}]}
    done = serving_from_scratch("status", "--url", server.url, PYTHONIOENCODING="ascii")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[2].startswith("?bung")
    assert serving_from_scratch("status", "--url", server.url, LC_ALL="C").status == 0


WORKERS = [
    {
        "index": 0,
        "pid": 71,
        "state": "serving",
        "generation": 4,
        "started_at": "2026-11-20T08:00:00Z",
        "requests": 12,
        "restarts": 0,
        "retry_at": None,
        "reason": None,
    },
    {
        "index": 1,
        "pid": None,
        "state": "waiting",
        "generation": 0,
        "started_at": "2026-11-20T08:01:00Z",
        "requests": 3,
        "restarts": 2,
        "retry_at": "2026-11-20T08:01:30Z",
        "reason": "SIGSEGV while it loaded iris/3",
    },
]


def test_status_shows_the_workers_where_there_are_several(serving: Any, server: FakeServer) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": [IRIS]}
    server.answers["GET", "/workers"] = 200, {"workers": WORKERS}
    head, *lines = serving("status", "--url", server.url).out.splitlines()[3:]
    assert head == "1 of 2 workers serve"
    assert [re.split("  +", line) for line in lines] == [
        ["WORKER", "PID", "STATE", "GENERATION", "STARTED", "REQUESTS", "RESTARTS", "REASON"],
        ["0", "71", "serving", "4", "2026-11-20 08:00:00+00:00", "12", "0", "-"],
        [
            *("1", "-", "waiting until 2026-11-20 08:01:30+00:00", "0", "2026-11-20 08:01:00+00:00", "3", "2"),
            "SIGSEGV while it loaded iris/3",
        ],
    ]
    listed = json.loads(serving("status", "--json", "--url", server.url).out)
    assert listed == {"models": [IRIS], "workers": WORKERS}


def test_status_without_models_says_what_to_do(serving: Any, server: FakeServer) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": []}
    assert serving("status", "--url", server.url).out.startswith(f"no models at {server.url}; 'serving publish'")


def test_status_names_what_serves_nothing(serving: Any, server: FakeServer) -> None:
    problems = ["'my model' is not a name; rename it", "'cat.cbm' serves nothing"]
    server.answers["GET", "/models/active"] = 200, {"models": [IRIS]}
    server.answers["GET", "/models"] = 200, {"models": [], "store": {"is_available": True, "problems": problems}}
    lines = serving("status", "--url", server.url).out.splitlines()
    assert lines[-2:] == [f"store: {problem}" for problem in problems]


def test_status_of_a_store_that_is_not_there_does_not_say_that_it_is_empty(serving: Any, server: FakeServer) -> None:
    reason = "there is no store at '/models'; make an empty one: mkdir -p /models"
    server.answers["GET", "/models/active"] = 200, {"models": []}
    server.answers["GET", "/models"] = 200, {"models": [], "store": {"is_available": False, "reason": reason}}
    assert serving("status", "--url", server.url).out == f"store: {reason}\n"


def test_status_as_json_is_what_the_server_said(serving: Any, server: FakeServer) -> None:
    answer = {"models": [{**IRIS, "something_new": 1}]}
    server.answers["GET", "/models/active"] = 200, answer
    assert json.loads(serving("status", "--json", "--url", server.url).out) == answer


def test_a_version_in_quarantine_is_not_waited_for(serving: Any, server: FakeServer) -> None:
    version = {"version": "4", "state": "QUARANTINED", "reason": "rolled back"}
    server.answers["GET", "/models"] = 200, {"models": [{**IRIS, "versions": [version]}]}
    done = serving("wait", "iris", "4", "--url", server.url)
    assert done == Done(1, "", "serving: iris/4 is in quarantine: rolled back\n")


def test_the_server_is_where_the_settings_say(serving: Any, server: FakeServer) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": [IRIS]}
    port = server.url.rpartition(":")[2]
    assert serving("status", SERVING_SERVER__PORT=port, SERVING_SERVER__HOST="0.0.0.0").status == 0
    for host in ("127.0.0.1", "0.0.0.0", "::", "localhost"):
        found = ServerClient(choose_server_url(None, ServerSettings(host=host, port=int(port))), None, 60)
        assert found.get("models", "active") == {"models": [IRIS]}


@pytest.mark.parametrize(
    ("arguments", "asked", "line"),
    [
        (["pin", "iris", "3"], ("POST", "/models/iris/pin", {"version": "3"}), "iris is pinned to 3; active: 3 (onnx)"),
        (["unpin", "iris"], ("DELETE", "/models/iris/pin", None), "iris is not pinned any more; active: 3 (onnx)"),
        (
            ["label", "iris", "best", "3"],
            ("PUT", "/models/iris/labels/best", {"version": "3"}),
            "iris: no labels",
        ),
        (
            ["label", "iris", "gone", "--remove"],
            ("DELETE", "/models/iris/labels/gone", None),
            "iris: no labels",
        ),
        (["rollback", "iris"], ("POST", "/models/iris/rollback", {}), "iris is rolled back; active: 3 (onnx)"),
        (
            ["rollback", "iris", "--from", "4"],
            ("POST", "/models/iris/rollback", {"version": "4"}),
            "iris is rolled back; active: 3 (onnx)",
        ),
        (
            ["rollout", "iris", "promote"],
            ("POST", "/models/iris/rollout", {"action": "promote"}),
            "iris is promoted; active: 3 (onnx)",
        ),
        (
            ["rollout", "iris", "hold", "--version", "4"],
            ("POST", "/models/iris/rollout", {"action": "hold", "version": "4"}),
            "iris/4 is held where it is; active: 3 (onnx)",
        ),
        (
            ["release", "iris", "4"],
            ("POST", "/models/iris/versions/4/release", {}),
            "iris/4 is released; active: 3 (onnx)",
        ),
    ],
)
def test_an_operators_call(arguments: list[str], asked: Any, line: str, serving: Any, server: FakeServer) -> None:
    server.answers[asked[0], asked[1]] = 200, IRIS
    assert serving(*arguments, "--url", server.url, **SECRET) == Done(0, f"{line}\n", "")
    assert server.asked == asked
    assert server.headers["Authorization"] == "Bearer s3cret"


ROLLOUT = make_rollout_status()
ENDED = ROLLOUT.model_copy(update={"running": None})


class OneAfterAnother(dict[tuple[str, str], Any]):
    """Answers of a server that change each time: the last one stays."""

    def __getitem__(self, key: tuple[str, str]) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, tuple) else found.pop(0) if len(found) > 1 else found[0]


def answers_of(*statuses: Any) -> OneAfterAnother:
    answers = [(200, status.model_dump(mode="json")) for status in statuses]
    return OneAfterAnother({("GET", "/models/iris/rollout"): answers})


def test_a_rollout_is_shown_as_text_or_as_json(serving: Any, server: FakeServer) -> None:
    server.answers = answers_of(ROLLOUT)
    shown = serving("rollout", "iris", "--url", server.url).out.splitlines()
    assert shown[0].startswith("iris/4 beside 3: canary, it answers 10% of the requests, step 2 of 3; ")
    assert json.loads(serving("rollout", "iris", "--json", "--url", server.url).out) == ROLLOUT.model_dump(mode="json")


@pytest.mark.parametrize(("version", "status"), [("4", 1), ("3", 0)])
def test_a_rollout_is_watched_until_it_has_ended(version: str, status: int, serving: Any, server: FakeServer) -> None:
    assert ROLLOUT.running is not None
    assert ROLLOUT.last is not None
    grown = ROLLOUT.model_copy(update={"running": ROLLOUT.running.model_copy(update={"share": 50.0})})
    ended = ENDED.model_copy(update={"last": ROLLOUT.last.model_copy(update={"version": version})})
    server.answers = answers_of(ROLLOUT, ROLLOUT, grown, ended)
    done = serving("rollout", "iris", "--watch", "--url", server.url)
    assert (done.status, done.err) == (status, "")
    assert done.out.splitlines()[:3] == [
        "iris/4: canary, it answers 10% of the requests; wait: 80 of 100 requests in this step",
        "iris/4: canary, it answers 50% of the requests; wait: 80 of 100 requests in this step",
        "iris: nothing is under way; new versions take over share by share (canary)",
    ]
    assert done.out.splitlines()[3].startswith(f"last: {version} went back")


def test_a_rollout_is_steered_and_then_watched(serving: Any, server: FakeServer) -> None:
    server.answers = OneAfterAnother({**answers_of(ENDED), ("POST", "/models/iris/rollout"): (200, IRIS)})
    done = serving("rollout", "iris", "promote", "--watch", "--url", server.url, **SECRET)
    assert (done.status, done.out.splitlines()[0]) == (0, "iris is promoted; active: 3 (onnx)")
    assert done.out.splitlines()[1].startswith("iris: nothing is under way")


def test_a_version_alone_is_nothing_to_do(serving: Any, server: FakeServer) -> None:
    done = serving("rollout", "iris", "--version", "4", "--url", server.url)
    assert done.status == 2
    assert "goes with promote, rollback, hold or resume" in done.err


def test_status_says_a_line_about_a_rollout(serving: Any, server: FakeServer) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": [IRIS]}
    summary = RolloutSummary.of(ROLLOUT.model_copy(update={"is_stopped": True}))
    assert summary is not None
    entry = {**IRIS, "rollout": summary.model_dump(mode="json")}
    server.answers["GET", "/models"] = 200, {"models": [entry], "sandbox": None}
    assert serving("status", "--url", server.url).out.splitlines()[-2:] == [
        "iris/4: canary, it answers 10% of the requests; wait: 80 of 100 requests in this step",
        "iris: two rollouts in a row went back, so none begins until 'serving rollout iris resume'",
    ]


def test_a_terminal_shows_a_rollout_in_place(server: FakeServer, tmp_path: Path, environment: dict[str, str]) -> None:
    server.answers = answers_of(ROLLOUT, ENDED)
    leader, follower = pty.openpty()
    terminal = {**environment, "TERM": "xterm-256color", "COLUMNS": "120"}
    command = [*PYTHON, "rollout", "iris", "--watch", "--url", server.url]
    subprocess.run(command, cwd=tmp_path, env=terminal, stdout=follower, check=True)
    os.close(follower)
    shown = read_terminal(leader)
    assert "step 2 of 3" in shown
    assert "\x1b[1A" in shown, "goes up to write over it"
    assert "nothing is under way" in shown


def test_labels_are_shown_without_the_admin_token(serving: Any, server: FakeServer) -> None:
    server.answers["GET", "/models/iris/active"] = 200, {**IRIS, "labels": {"best": "3", "old": "1"}, "problem": "x"}
    assert serving("label", "iris", "--url", server.url).out == "iris: labels: best = 3, old = 1\niris: x\n"
    wrong = serving("label", "iris", "best", "3", "--remove", "--url", server.url, **SECRET)
    assert (wrong.status, "--remove goes with a label and no version" in wrong.err) == (2, True)


def test_refresh_shows_the_models(serving: Any, server: FakeServer) -> None:
    server.answers["POST", "/refresh"] = 200, {"models": [IRIS]}
    lines = serving("refresh", "--url", server.url, **SECRET).out.splitlines()
    assert lines[0] == f"{server.url} has looked at its store: 1 model"
    assert lines[2].split()[:3] == ["iris", "3", "onnx"]


def test_history_is_a_table(serving: Any, server: FakeServer) -> None:
    entry = {
        "at": "2026-11-20T08:00:00Z",
        "version": "3",
        "after": "ACTIVE",
        "actor": "reconciler",
        "event": "activated",
    }
    server.answers["GET", "/models/iris/history?limit=5"] = 200, {"history": [entry]}
    assert serving("history", "iris", "--limit", 5, "--url", server.url).out == (
        "AT                         VERSION  STATE   EVENT      BY          REASON\n"
        "2026-11-20 08:00:00+00:00  3        ACTIVE  activated  reconciler  -\n"
    )


def test_a_token_file_named_on_the_command_line_is_the_one_that_counts(
    serving: Any, server: FakeServer, tmp_path: Path
) -> None:
    server.answers["POST", "/refresh"] = 200, {"models": []}
    (tmp_path / "token").write_text("from-file\n")
    assert serving("refresh", "--url", server.url, "--token-file", "token", **SECRET).status == 0
    assert server.headers["Authorization"] == "Bearer from-file"


def test_names_cannot_change_the_path(serving: Any, server: FakeServer) -> None:
    server.answers["DELETE", "/models/a%2F..%3Fx/pin"] = 200, IRIS
    assert serving("unpin", "a/..?x", "--url", server.url, **SECRET).status == 0


@pytest.mark.parametrize(
    ("status", "answer", "line"),
    [
        (409, {"title": "x", "status": 409, "detail": "'4' is\n\x1b[2Jquarantined"}, "'4' is ?[2Jquarantined"),
        (
            403,
            {"detail": "the operator calls are closed"},
            "the operator calls are closed; no token was sent: set SERVING_",
        ),
        (404, "<html>not here</html>", "URL/models/iris/pin answered 404 Not Found; is it a serving server?"),
        (404, ["x"], "URL/models/iris/pin answered 404 Not Found; is it a serving server?"),
        (302, {"detail": "go there"}, "go there"),
        (200, "<html>hello</html>", "URL/models/iris/pin did not answer in JSON; is it a serving server?"),
        (200, {"name": "iris"}, "URL answered something else than expected (active: Field required)"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    status: int, answer: Any, line: str, serving: Any, server: FakeServer
) -> None:
    server.answers["POST", "/models/iris/pin"] = status, answer
    done = serving("pin", "iris", "4", "--url", server.url)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"serving: {line}".replace("URL", server.url))


def test_no_server_is_one_line_that_says_what_to_do(serving: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen, and nobody else gets its port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = serving("status", "--url", url)
    assert done == Done(
        1,
        "",
        f"serving: no server answers at {url} (Connection refused);"
        " start one with 'serving serve' or name another with --url\n",
    )


def test_a_server_that_hangs_up_is_one_line(serving: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        done = serving("status", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert (done.status, done.err.count("\n")) == (1, 1)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "http://x:99999", "http://a b", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=f"--url: {re.escape(repr(url))} should be an http:// or https:// address"):
        choose_server_url(url, ServerSettings())


def test_an_address_that_is_none_is_a_usage_error(serving: Any) -> None:
    done = serving("status", "--url", "ftp://x")
    assert (done.status, done.err.count("\n")) == (2, 1)


def test_a_free_port_has_no_address_yet(serving: Any) -> None:
    done = serving("status", SERVING_SERVER__PORT="0")
    assert (done.status, done.err) == (
        2,
        "server.port is 0, which is a free port chosen at the start: name it with --url\n",
    )


def test_two_tokens_are_one_too_many(serving: Any, server: FakeServer) -> None:
    done = serving("refresh", "--url", server.url, SERVING_SECURITY__ADMIN_TOKEN_FILE="token", **SECRET)
    assert (done.status, server.requests) == (2, [])


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started now do not ignore SIGINT, even where a shell runs these tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_with_130_and_no_noise(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with subprocess.Popen(
            [*PYTHON, "status", "--url", url], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        ) as process:
            with listener.accept()[0] as connection:
                connection.recv(1)
                until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "its waiting")
                process.send_signal(signal.SIGINT)
                assert process.wait(10) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_on_a_terminal_there_is_colour_and_elsewhere_none(
    serving: Any, server: FakeServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    server.answers["GET", "/models/active"] = 200, {"models": [WINE]}
    command = [*PYTHON, "status", "--url", server.url]
    assert "\x1b" not in serving(*command[4:]).out
    leader, follower = pty.openpty()
    terminal = {**environment, "TERM": "xterm-256color", "COLUMNS": "100"}
    subprocess.run(command, cwd=tmp_path, env=terminal, stdout=follower, check=True)
    os.close(follower)
    shown = read_terminal(leader)
    assert "\x1b[1m" in shown
    assert "\x1b[31mgot" not in shown


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    joblib.dump(LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1]), tmp_path / "trained.joblib")
    return tmp_path / "trained.joblib"


def test_publish_says_where_it_went_and_how_to_see_it(serving_with_hosts: Any, file: Path, tmp_path: Path) -> None:
    done = serving_with_hosts(
        "publish", file, "--model", "m", "--metric", "accuracy=0.9", "--metric", "by=me", "--store", "s"
    )
    assert (done.status, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first == "published m/1: s/m/1"
    assert re.fullmatch(r"passed: served by onnx, [\d.]+ MB; a running server .*, see: serving status", second)
    manifest = json.loads((tmp_path / "s/m/1/manifest.json").read_text())
    assert manifest["metrics"] == {"accuracy": 0.9, "by": "me"}


def test_publish_shows_the_gates_when_one_refuses(serving_with_hosts: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text('{"instances": [[0.0]], "expected": {"predict": [1]}}')
    done = serving_with_hosts("publish", file, "--model", "m", "--golden", "golden.json", "--store", "s")
    assert (done.status, done.err) == (1, "")
    head, *rows, last = done.out.splitlines()
    assert head.split() == ["GATE", "VERDICT", "MS", "EVIDENCE"]
    assert [row.split()[:2] for row in rows[-2:]] == [["contract", "skipped"], ["golden", "refused"]]
    assert last == (
        "not published: refused by golden: row 0, predict: expected 1, got 0 (largest difference 1, rtol 1e-06); "
        "the rows and answers are those of --golden FILE"
    )
    assert not (tmp_path / "s").exists()


def test_refusals_of_publish_name_the_flag_that_would_change_them(
    serving: Any, serving_with_hosts: Any, file: Path, tmp_path: Path
) -> None:
    publish_estimator(LogisticRegression().fit(np.eye(2), [0, 1]), "m", store=tmp_path / "s", check=False)
    taken = serving("publish", file, "--model", "m", "--version", "1", "--store", "s")
    assert (taken.status, taken.out) == (1, "")
    assert taken.err.endswith("or none to get the next number (--version V)\n")
    other = serving_with_hosts("publish", file, "--model", "m", "--store", "s")
    assert (other.status, other.err) == (1, "")
    last = other.out.splitlines()[-1]
    assert last.startswith("not published: refused by contract: not compatible with the active version 1: takes 1 feat")
    assert last.endswith("; --breaking does that")


def test_check_is_a_table_what_the_file_needs_where_it_runs_and_a_verdict(serving_with_hosts: Any, file: Path) -> None:
    done = serving_with_hosts("check", file)
    assert (done.status, done.err) == (0, "")
    head, *lines, last = done.out.splitlines()
    assert head.split() == ["GATE", "VERDICT", "MS", "EVIDENCE"]
    assert [row.split()[0] for row in lines][:3] == ["published", "integrity", "provenance"]
    assert {row.index("passed") for row in lines if "passed" in row} == {head.index("VERDICT")}
    assert last.startswith("passed: served by onnx, ")
    here = sklearn.__version__
    assert any(line.startswith(f"needs: scikit-learn {here}") and line.endswith("(the file says)") for line in lines)
    assert "needs: modules joblib, numpy, sklearn" in lines
    assert f"environment: own: trained with scikit-learn {here}; here: scikit-learn {here}" in lines


def test_check_prints_its_report_as_json(serving_with_hosts: Any, file: Path) -> None:
    report = json.loads(serving_with_hosts("check", file, "--json").out)
    assert report["ready"] is True
    assert report["environment"] == "own"
    assert report["environment_reason"].startswith("trained with scikit-learn ")
    assert report["needs"]["modules"] == ["joblib", "numpy", "sklearn"]


def test_check_says_what_a_file_needs_that_cannot_run_here(serving_with_hosts: Any) -> None:
    done = serving_with_hosts("check", WRITTEN_BY_1_3)
    lines = done.out.splitlines()
    assert done.status == 1
    assert "needs: scikit-learn 1.3.2, numpy 1.* (the file says)" in lines
    assert "environment: none fits" in lines
    assert lines[-1].startswith("refused by environment: trained with scikit-learn 1.3.2 (the file says); ")
    done = serving_with_hosts("check", WRITTEN_BY_1_3, "--json")
    report = json.loads(done.out)
    assert (done.status, report["ready"], report["environment"]) == (1, False, None)
    assert report["needs"]["libraries"]["scikit-learn"] == "1.3.2"
    assert report["gates"][-1]["gate"] == "environment"


def test_check_of_a_file_that_is_refused_ends_with_1(serving_with_hosts: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.joblib").write_bytes(b"no model")
    done = serving_with_hosts("check", "broken.joblib")
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines()[-1].startswith("refused by ")


@pytest.mark.parametrize("command", [["check"], ["publish", "--model", "m"]])
def test_a_file_that_is_not_there_is_one_line(command: list[str], serving: Any) -> None:
    done = serving(*command, "gone.joblib")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "serving: 'gone.joblib' cannot be read: No such file or directory; give a model file or a version directory\n"
    )


def test_a_metric_without_a_value_is_a_usage_error(serving: Any) -> None:
    done = serving("publish", "x.joblib", "--model", "m", "--metric", "accuracy")
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith("'accuracy' should be K=V, such as accuracy=0.97\n")


# --- signed versions --------------------------------------------------------------------------------------------------


def test_a_key_signs_what_the_settings_line_it_prints_trusts(
    serving: Any, serving_with_hosts: Any, file: Path, tmp_path: Path
) -> None:
    made = serving("keygen", "key")
    assert (made.status, made.err) == (0, "")
    line = made.out.splitlines()[-1]
    (public,) = re.fullmatch(r'trusted_keys = \["(ed25519:[A-Za-z0-9+/]{43}=)"\]', line).groups()  # type: ignore[union-attr]
    assert (tmp_path / "key.pub").read_text() == f"{public}\n"
    (tmp_path / "settings.toml").write_text(f'[store]\npath = "s"\n[security]\ntrust = "signed"\n{line}\n')
    published = serving_with_hosts("publish", file, "--model", "m", "--sign", "key")
    assert (published.status, published.err) == (0, "")
    assert published.out.startswith(f"published m/1: s/m/1, signed by {public[:20]}...\n")
    verified = serving("verify", "s/m/1")
    assert (verified.status, verified.err) == (0, "")
    head, *rows, last = verified.out.splitlines()
    assert head.split() == ["CHECK", "VERDICT", "EVIDENCE"]
    assert [row.split()[:2] for row in rows] == [["manifest", "passed"], ["files", "passed"], ["signature", "passed"]]
    assert re.fullmatch(rf"verified: m/1, made at \S+Z, signed by {re.escape(public)}", last)
    (tmp_path / "s/m/1").rename(tmp_path / "s/m/2")
    moved = serving("verify", "s/m/2", "--key", public)
    assert (moved.status, moved.err) == (1, "")
    assert moved.out.splitlines()[-1].startswith("not verified: manifest.json is for m/1, this is m/2")


def test_where_only_signed_versions_count_nothing_else_is_published(serving: Any, file: Path, tmp_path: Path) -> None:
    done = serving("publish", file, "--model", "m", "--store", "s", SERVING_SECURITY__TRUST="signed")
    assert (done.status, done.out) == (1, "")
    assert done.err == 'serving: security.trust is "signed", and this version is not signed: sign it (--sign KEYFILE)\n'
    assert not (tmp_path / "s").exists()


def test_a_key_that_is_none_is_one_line_and_one_that_others_can_read_a_warning(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    command = ["publish", "x.joblib", "--model", "m", "--version", "active", "--sign", "key"]
    done = serving(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err == "serving: 'key' is not a private key in PEM; 'serving keygen FILE' makes one\n"
    (tmp_path / "key").unlink()
    create_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    warning, refusal = serving(*command).err.splitlines()
    assert warning.startswith("warning: 'key' can be read by others (mode 0644)")
    assert "'active' is a reserved word" in refusal
    again = serving("keygen", "key")
    assert (again.status, again.out, again.err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("arguments", [[], ["--key", "ed25519:AAAA"]])
def test_verifying_without_a_key_to_trust_is_a_usage_error(arguments: list[str], serving: Any) -> None:
    done = serving("verify", "s/m/1", *arguments)
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for --key" in done.err


# --- Ctrl-C while it starts -------------------------------------------------------------------------------------------


def test_ctrl_c_while_the_commands_are_imported_ends_without_a_traceback(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Hold the import of one module with a pipe, so that the signal comes in the middle of it."""
    held = tmp_path / "typer.py"
    held.write_text("import sys\nprint('importing', flush=True)\nsys.stdin.read()\n")
    path = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    with subprocess.Popen(
        [*PYTHON, "serve"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite that runs in the background of a script ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no other thread forks here)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == ""

"""``serving wait`` against a real server: how a version ended, as an exit status and one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server, constant, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("wait")) as one:
        yield one


def start_wait(url: str, *arguments: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("SERVING_")}
    command = [sys.executable, "-W", "error", "-m", "serving", "wait", "--url", url, *arguments]
    environment = {**kept, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait(url: str, *arguments: str) -> tuple[int, str, str]:
    process = start_wait(url, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_version_that_comes_later_is_waited_for(server: Server) -> None:
    process = start_wait(server.url, "m", "1")
    server.drop("m", 1, constant(1))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "m/1 is active\n", "")
    assert server.active("m") == "1"


def test_a_version_that_is_refused_is_1_with_the_reason(server: Server) -> None:
    (server.directory / "bad").mkdir()
    (server.directory / "bad" / "1.joblib").write_text("oops\n")
    (server.directory / "bad").rename(server.store / "bad")
    status, out, err = wait(server.url, "bad", "1")
    assert (status, out) == (1, "")
    assert err.startswith("serving: bad/1 is refused: format: '1.joblib' should be a joblib file but is text")


def test_a_timeout_says_where_the_version_stands(server: Server) -> None:
    server.drop("old", 2, constant(2))
    server.wait_active("old", 2)
    server.drop("old", 1, constant(1))
    server.wait_state("old", 1, "DISCOVERED")
    unknown = wait(server.url, "nope", "7", "--timeout", "0")
    assert unknown == (1, "", "serving: nope/7 is not active after 0 s: the server knows no model 'nope'\n")
    missing = wait(server.url, "old", "7", "--timeout", "0.1")[2]
    assert missing == "serving: old/7 is not active after 0.1 s: the server knows no such version; active: 2\n"
    older = wait(server.url, "old", "1", "--timeout", "0")[2]
    assert older.startswith("serving: old/1 is not active after 0 s: it is DISCOVERED")
    assert older.endswith("active: 2\n")


def test_a_server_that_does_not_answer_is_said_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, out, err = wait(url, "m", "1")
    assert (status, out) == (1, "")
    assert err.startswith(f"serving: no server answers at {url}")

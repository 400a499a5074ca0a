"""``serving bench`` against a real server: what it says, and when it says no."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.cli.bench import draw_histogram
from tests.e2e.harness import Server, constant, serving, write_version

COMMAND = [sys.executable, "-W", "error", "-m", "serving", "bench"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bench")
    write_version(directory / "store" / "m", 7, constant(7))
    (directory / "store" / "empty").mkdir()
    with serving(directory, wait_ready=True) as started:
        yield started


def bench(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "Traceback" not in done.stderr
    return done


def test_it_measures_and_says_who_answered(server: Server) -> None:
    done = bench("m", "--url", server.url, "--seconds", 0.5, "--connections", 3, "--rows", 2)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"m at {server.url}: 2 rows made up from the signature, 3 connections, 0.5 s"
    engine = server.get("/models/active")["models"][-1]["active"]["engine"]
    answered = re.fullmatch(rf"answered by version 7, engine {engine}: ([\d,]+) answers", lines[1])
    assert answered
    assert re.fullmatch(r"requests/s   [\d,]+", lines[2])
    assert re.fullmatch(r"latency      p50 .* ms, p90 .* ms, p99 .* ms, max .* ms", lines[3])
    assert lines[4] == f"failures     0 of {answered[1]}"
    drawn = [int(line.rpartition(" ")[2].replace(",", "")) for line in lines[5:]]
    assert sum(drawn) == int(answered[1].replace(",", "")), "every answer is in the histogram"


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_it_draws_in_ascii_where_there_is_nothing_else(server: Server, variables: dict[str, str]) -> None:
    done = bench("m", "--url", server.url, "--seconds", 0.2, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    drawn = done.stdout.splitlines()[5:]
    assert drawn
    if "LC_ALL" in variables:  # where Python writes UTF-8 all the same
        return
    assert all(re.fullmatch(r"  <= +[\d.]+ ms  #* [\d,]+", line) for line in drawn)
    assert any("#" in line for line in drawn)


def test_rows_come_from_golden_examples(server: Server, tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text(json.dumps({"instances": [[1.0, 2.0]], "expected": {}}))
    done = bench("m", "--url", server.url, "--seconds", 0.2, "--golden", golden)
    assert done.returncode == 0
    assert f"1 row from {golden}" in done.stdout
    golden.write_text("[]")
    done = bench("m", "--url", server.url, "--golden", golden)
    assert done.returncode == 1
    assert "holds no golden examples" in done.stderr


def test_a_body_that_is_refused_is_a_failure_with_its_reason(server: Server, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"instances": [[1.0]]}')
    done = bench("m", "--url", server.url, "--seconds", 0.2, "--body", body)
    assert done.returncode == 1
    assert "× 422 row 0" in done.stdout
    assert "requests/s   0" in done.stdout


def test_a_terminal_sees_a_bar(server: Server) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "m", "--url", server.url, "--seconds", "0.5"]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0
    assert "━" in seen.decode()
    assert re.search(r"[\d,]+ requests", seen.decode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(
    ("model", "said"),
    [("nobody", "no model named 'nobody'"), ("empty", "'empty'")],
)
def test_models_that_cannot_answer(server: Server, model: str, said: str) -> None:
    done = bench(model, "--url", server.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


def test_a_server_that_is_not_there() -> None:
    done = bench("m", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("serving: no server answers at http://127.0.0.1:1")


def test_a_body_excludes_what_would_make_one(server: Server, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    done = bench("m", "--url", server.url, "--body", body, "--rows", 2)
    assert done.returncode == 2
    assert "--body" in done.stderr
    assert bench("m", "--url", server.url, "--body", tmp_path / "none").returncode == 2


def test_a_histogram_has_a_line_for_each_class() -> None:
    lines = draw_histogram([0.001, 0.001, 0.002, 0.004])
    assert len(lines) == 12
    assert lines[0].split()[-1] == "2"
    assert lines[-1].startswith("  ≤      4.00 ms")
    assert draw_histogram([]) == []
    assert len(draw_histogram([0.001])) == 1

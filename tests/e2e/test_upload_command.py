"""``serving publish --url``: sends a version to a server, and tells what its gates say, as the local command does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.offline.keys import SigningKey, create_key, load_key
from tests.commands import clean_environment, run_command
from tests.e2e.harness import TOKEN, Server, constant, linear, serving, until, write_version
from tests.e2e.uploading import UPLOADS, dump, leftovers, manifest_of

GOLDEN = {"instances": [[1.0, 2.0]], "expected": {"predict": [5.0]}}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SigningKey]:
    path = tmp_path_factory.mktemp("key") / "key"
    create_key(path)
    return path, load_key(path)


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("taking")
    write_version(directory / "store" / "m", 1, constant(1))
    with serving(directory, wait_ready=True, **UPLOADS) as server:
        yield server


@pytest.fixture
def publish(tmp_path: Path) -> Run:
    (tmp_path / "line.joblib").write_bytes(dump(linear()))

    def run(*arguments: object, file: str = "line.joblib", **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(["publish", file, *arguments], tmp_path, variables)

    return run


@pytest.fixture
def publish_as_program(tmp_path: Path) -> Run:
    """Like `publish`, as a process of its own: as it is for everybody."""
    (tmp_path / "line.joblib").write_bytes(dump(linear()))

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**clean_environment(), **variables}
        command = [sys.executable, "-W", "error", "-m", "serving", "publish", "line.joblib", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


WITH_TOKEN = {"SERVING_SECURITY__ADMIN_TOKEN": TOKEN}


def test_a_file_is_published_as_the_next_version(taking: Server, publish_as_program: Run) -> None:
    done = publish_as_program("--model", "line", "--url", taking.url, "--metric", "accuracy=0.9", **WITH_TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    size = (taking.store / "line" / "1" / "model.joblib").stat().st_size
    assert first == f"published line/1: {taking.url}, {size} bytes"
    assert second.startswith("passed")
    taking.wait_active("line", 1)
    assert manifest_of(taking, "line", 1)["metrics"] == {"accuracy": 0.9}


def test_a_refusal_shows_the_gates_and_the_flag_that_would_help(
    taking: Server, publish: Run, publish_as_program: Run, tmp_path: Path
) -> None:
    (tmp_path / "golden.json").write_text(json.dumps({**GOLDEN, "expected": {"predict": [6.0]}}))
    done = publish_as_program("--model", "wrong", "--url", taking.url, "--golden", "golden.json", **WITH_TOKEN)
    assert (done.returncode, done.stderr) == (1, "")
    head, *rows, last = done.stdout.splitlines()
    assert head.split() == ["GATE", "VERDICT", "MS", "EVIDENCE"]
    assert rows[-1].split()[:2] == ["golden", "refused"]
    assert last.startswith("not published: refused by golden: row 0, predict: expected 6.0, got 5.0")
    assert last.endswith("; the rows and answers are those of --golden FILE")
    assert not (taking.store / "wrong").exists()

    (tmp_path / "golden.json").write_text(json.dumps(GOLDEN))
    done = publish("--model", "wrong", "--url", taking.url, "--golden", "golden.json", "--version", "3", **WITH_TOKEN)
    assert (done.returncode, done.stdout.startswith("published wrong/3: ")) == (0, True)
    taking.wait_active("wrong", 3)


@pytest.mark.parametrize(
    ("arguments", "variables", "reason"),
    [
        (["--version", "1"], WITH_TOKEN, "version '1' of 'm' exists already"),
        ([], {}, "no token was sent: set SERVING_SECURITY__ADMIN_TOKEN or give --token-file"),
        ([], {"SERVING_SECURITY__ADMIN_TOKEN": "wrong"}, "this token is not known here"),
        (["--token-file", "missing"], {}, "missing"),
        (["--golden", "missing.json"], WITH_TOKEN, "the golden examples cannot be read"),
        (["--version", ".x"], WITH_TOKEN, "no version is called that"),
    ],
)
def test_what_is_not_published_is_said_in_one_line(
    taking: Server, publish: Run, arguments: list[str], variables: dict[str, str], reason: str
) -> None:
    done = publish("--model", "m", "--url", taking.url, *arguments, **variables)
    assert (done.returncode in (1, 2), done.stdout) == (True, "")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert leftovers(taking.store) == []


def test_a_server_that_is_not_there_and_a_store_that_is_not_ours(publish: Run) -> None:
    done = publish("--model", "m", "--url", "http://127.0.0.1:9")
    assert (done.returncode, "no server answers at http://127.0.0.1:9" in done.stderr) == (1, True)
    done = publish("--model", "m", "--url", "http://127.0.0.1:9", "--store", "s")
    assert (done.returncode, "its own store" in done.stderr) == (2, True)
    done = publish("--model", "m", "--url", "http://127.0.0.1:9", file="nothing.joblib")
    assert (done.returncode, "nothing.joblib" in done.stderr) == (1, True)


def test_a_server_without_uploads_refuses_a_large_file_before_it_is_sent(tmp_path: Path, publish: Run) -> None:
    with (tmp_path / "large.joblib").open("wb") as file:
        file.write(dump(linear()))
        file.truncate(1 << 30)
    with serving(tmp_path) as server:
        done = publish("--model", "m", "--url", server.url, file="large.joblib", **WITH_TOKEN)
    assert (done.returncode, done.stdout) == (1, "")
    assert "store.uploads = true" in done.stderr


def test_a_signed_version_is_published_as_it_was_signed(
    tmp_path: Path, publish: Run, key: tuple[Path, SigningKey]
) -> None:
    path, signing = key
    trust = {
        "SERVING_SECURITY__TRUST": "signed",
        "SERVING_SECURITY__TRUSTED_KEYS": str(signing.public),
        "SERVING_SECURITY__PICKLE_TRUSTED": "",
    }
    (tmp_path / "golden.json").write_text(json.dumps(GOLDEN))
    with serving(tmp_path, **trust, **UPLOADS) as server:

        def send(*more: object) -> subprocess.CompletedProcess[str]:
            return publish("--model", "s", "--url", server.url, *more, **WITH_TOKEN)

        unsigned = send()
        assert unsigned.returncode == 1
        assert "refused by provenance: not signed" in unsigned.stdout
        for number in (1, 2):
            done = send("--sign", path, "--golden", "golden.json", "--metric", "accuracy=1")
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"published s/{number}: ")
            assert f"signed by {signing.public.fingerprint}" in done.stdout
            server.wait_active("s", number)
        manifest = manifest_of(server, "s", 2)
        assert manifest["metrics"] == {"accuracy": 1}
        assert (server.store / "s" / "2" / "manifest.sig").exists()
        gates: dict[str, Any] = {gate["gate"]: gate["verdict"] for gate in server.version("s", 2)["gates"]}
        assert (gates["provenance"], gates["golden"]) == ("passed", "passed")
        until(lambda: not leftovers(server.store), "nothing is left")

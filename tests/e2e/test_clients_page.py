"""docs/clients.md tells the truth: every example is run against a live server and prints what the page shows."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from serving.demo import demo_versions
from tests.e2e.harness import Server, serving

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
EXAMPLE = re.compile(r"^```(sh|python)\n(.*?)^```\n\n```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```(?:sh|python)$", re.MULTILINE)
MODELS = {("iris", "2"), ("diabetes_mixed", "1")}
HAS_GRPC = find_spec("grpc") is not None


def examples() -> Iterator[Any]:
    for found in EXAMPLE.finditer(TEXT):
        heading = TEXT[: found.start()].rpartition("\n## ")[2].partition("\n")[0]
        line = TEXT.count("\n", 0, found.start()) + 1
        yield pytest.param(*found.groups(), id=f"{heading}, line {line}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("clients")
    for one in demo_versions():
        if (one.model, one.version) in MODELS:
            one.publish(directory / "store")
    # compiling would take longer than everything else here, and changes no answer
    settings = {"SERVING_SERVER__DEFAULT_MODEL": "iris", "SERVING_ENGINE__COMPILE": "off"}
    if HAS_GRPC:
        settings["SERVING_SERVER__GRPC_PORT"] = "0"
    with serving(directory, **settings) as server:
        for model, version in MODELS:
            server.wait_active(model, version)
        yield server


def here(code: str, server: Server) -> str:
    """Put this server's addresses in the place of those on the page."""
    address = urlsplit(server.url)
    code = code.replace("127.0.0.1:8000", address.netloc).replace('"127.0.0.1", 8000', f'"127.0.0.1", {address.port}')
    if "127.0.0.1:9000" in code:
        if not HAS_GRPC:
            pytest.skip("grpc is not installed")
        grpc = next(event["address"] for event in server.log() if event.get("event") == "listening_for_grpc")
        code = code.replace("127.0.0.1:9000", grpc)
    return code


def modules_of(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def run_shell(code: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(code: str) -> str:
    for module in modules_of(code):
        if find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"{module} is not installed")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what clients warn of while they are imported is theirs
        exec(compile(code, "docs/clients.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.mark.parametrize(("language", "code", "shown"), list(examples()))
def test_an_example_prints_what_the_page_shows(server: Server, language: str, code: str, shown: str) -> None:
    printed = {"sh": run_shell, "python": run_python}[language](here(code, server))
    assert printed.replace("\r\n", "\n").strip() == shown.strip()


def test_every_example_on_the_page_is_run() -> None:
    assert len(list(examples())) == len(CODE.findall(TEXT)) >= 12

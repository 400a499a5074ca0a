"""``serving environment``: what is made is used only when it is complete; whatever goes wrong leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest

from serving.environments.environment_directory import EnvironmentDirectory
from serving.environments.inventory import Inventory
from serving.settings import EnvironmentSettings
from tests.e2e.harness import MATERIAL, NOT_INHERITED, is_alive, until
from tests.e2e.launch import LaunchedPopen
from tests.environments import SECOND
from tests.unit.environments.fabricated import fabricate, fabricate_made, install


class Commands:
    """Runs ``serving environment`` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.made = EnvironmentDirectory(directory / ".serving" / "environments")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        # no index that this machine is set up for: what is installed here is a local file
        nothing = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
        self.variables = {**inherited, **nothing, "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1", "PYTHONPATH": str(MATERIAL)}
        for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX"):
            self.variables.pop(name, None)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command."""
        return LaunchedPopen(
            [sys.executable, "-m", "serving", "environment", *arguments],
            cwd=self.directory,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run a command to its end; return its status and what it printed."""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    def refuse(self, *arguments: str, **variables: str) -> str:
        """Run a command that is refused, and return the reason, one line."""
        status, _, err = self.run(*arguments, **variables)
        assert status == 1, err
        return err.splitlines()[-1].removeprefix("serving: ")

    def rows(self, **variables: str) -> dict[str, dict[str, Any]]:
        """Return the environments that ``list`` shows, by name."""
        status, out, err = self.run("list", "--json", **variables)
        assert (status, err) == (0, "")
        return {row["name"]: row for row in json.loads(out)["environments"]}

    def usable(self) -> list[str]:
        """Return the environments that a server would use."""
        return [each.name for each in Inventory(EnvironmentSettings(), self.directory / ".serving").list_environments()]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def python(other_python: Path) -> str:
    """The Python that the second environment was made with."""
    return os.path.realpath(other_python)


@pytest.fixture
def wheel(other_python: Path, tmp_path: Path) -> str:
    """A wheel in which everything is that the second environment has: installing it takes a moment and no network."""
    (site,) = other_python.parent.parent.glob("lib/python*/site-packages")
    path = tmp_path / "borrowed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("borrowed.pth", f"{site}\n")
        archive.writestr("borrowed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: borrowed\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("borrowed-1.0.dist-info/WHEEL", tag)
        archive.writestr("borrowed-1.0.dist-info/RECORD", "borrowed.pth,,\nborrowed-1.0.dist-info/RECORD,,\n")
    return str(path)


@pytest.fixture
def requirements(wheel: str, tmp_path: Path) -> str:
    path = tmp_path / "requirements.txt"
    path.write_text(f"{wheel}\n")
    return str(path)


@contextlib.contextmanager
def silent_index() -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """Yield an index that accepts connections and never answers, and the variables that name it to an installer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(120)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/simple"
        yield (
            listening,
            {"PIP_NO_INDEX": "0", "UV_NO_INDEX": "0", "PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url, "NO_PROXY": "*"},
        )


def name_closed_index() -> dict[str, str]:
    """Return the variables that name an index to an installer at an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/simple"
    named = {"PIP_NO_INDEX": "0", "UV_NO_INDEX": "0", "PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url}
    return {**named, "PIP_RETRIES": "1"}  # pip says why only when it tries again


def test_one_that_was_created_is_complete(other_python: Path) -> None:
    directory = other_python.parent.parent
    record = json.loads((directory / "environment.json").read_text())
    libraries = {name: version for name, version in record["libraries"].items() if name not in ("pip", "setuptools")}
    installed = {f"{name}=={version}" for name, version in libraries.items()}
    assert set(SECOND.requirements) <= installed
    assert set(record["requirements"]) == set(SECOND.requirements)
    assert set((directory / "requirements.lock").read_text().splitlines()) == installed
    (sklearn,) = directory.glob("lib/python*/site-packages/sklearn/__init__.py")
    assert list((sklearn.parent / "__pycache__").glob("__init__.*.pyc")), "hosts cannot write what Python compiles"
    assert not list((sklearn.parent / "tests").glob("**/*.pyc")), "no model imports these"


def test_one_is_checked_by_a_host_in_it(other_python: Path, commands: Commands) -> None:
    there = {"SERVING_ENVIRONMENTS__THERE__PYTHON": str(other_python)}
    status, out, err = commands.run("check", "there", "--json", **there)
    assert (status, err) == (0, "")
    checked = json.loads(out)
    assert (checked["libraries"]["scikit-learn"], checked["changes"]) == ("1.5.2", [])
    assert {gate["verdict"] for gate in checked["gates"]} == {"passed", "skipped"}
    assert "environment" in checked["sandbox"]["active"]


def test_a_file_of_requirements_is_installed_as_it_is(
    requirements: str, python: str, commands: Commands, tmp_path: Path
) -> None:
    status, out, err = commands.run("create", "sk15", "--requirements", requirements, "--python", python)
    assert (status, err) == (0, "")
    assert "created 'sk15'" in out
    assert commands.rows()["sk15"].items() >= {"state": "ok", "sklearn": "1.5.2", "origin": "created"}.items()
    assert commands.usable() == ["sk15"]
    assert (tmp_path / ".serving").stat().st_mode & 0o777 == 0o700
    assert "the environment 'sk15' exists already" in commands.refuse("create", "sk15", "--with", "numpy")
    install(commands.made.path / "sk15", "catboost", "1.2")
    status, out, err = commands.run("check", "sk15")
    assert (status, err) == (0, "")
    assert "changed since it was made: catboost: none, now 1.2" in out


def test_one_that_is_killed_is_never_used_and_can_be_created_again(
    requirements: str, python: str, commands: Commands
) -> None:
    with silent_index() as (index, variables):
        creating = commands.start("create", "sk15", "--with", "scikit-learn==1.5.2", "--python", python, **variables)
        connection, _ = index.accept()
        assert commands.rows()["sk15"]["state"] == "being made"
        creating.kill()
        creating.communicate()
        with connection:  # its end is the end of the installer
            connection.settimeout(60)
            while connection.recv(4096):
                pass
    until(lambda: commands.rows()["sk15"]["state"] == "half-made", "the end of the installer")
    assert commands.usable() == []
    assert "'sk15' is half-made; create it again, or remove what is left" in commands.refuse("check", "sk15")
    (commands.made.path / "sk15" / "lib" / "left-over").touch()
    status, _, err = commands.run("create", "sk15", "--requirements", requirements, "--python", python)
    assert (status, err) == (0, "")
    assert commands.usable() == ["sk15"]
    assert not (commands.made.path / "sk15" / "lib" / "left-over").exists()


def test_what_is_left_of_a_creation_can_be_removed(commands: Commands) -> None:
    fabricate(commands.made.path / "sk15")
    row = commands.rows()["sk15"]
    assert (row["state"], row["problem"]) == ("problem", "'create' has not made it: move it away")
    assert "move them away, or choose another name" in commands.refuse("remove", "sk15")
    (commands.made.path / ".sk15.unfinished").touch()
    assert commands.rows()["sk15"]["state"] == "half-made"
    status, out, _ = commands.run("remove", "sk15")
    assert (status, out.startswith("removed 'sk15'")) == (0, True)
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_a_second_creation_of_the_same_name_is_refused_and_ctrl_c_leaves_nothing(
    python: str, commands: Commands
) -> None:
    with silent_index() as (index, variables):
        creating = commands.start("create", "sk15", "--with", "scikit-learn==1.5.2", "--python", python, **variables)
        connection, _ = index.accept()
        for second in (("create", "sk15", "--with", "numpy", "--python", python), ("remove", "sk15")):
            assert "the environment 'sk15' is being made" in commands.refuse(*second)
        installers = psutil.Process(creating.pid).children(recursive=True)
        creating.send_signal(signal.SIGINT)
        creating.communicate()
        connection.close()
    assert creating.returncode == 130
    until(lambda: not any(map(is_alive, installers)), "the end of the installer")
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_an_index_that_cannot_be_reached_is_said_in_one_line(python: str, commands: Commands) -> None:
    order = ("create", "sk15", "--with", "scikit-learn==1.5.2", "--python", python)
    reason = commands.refuse(*order, **name_closed_index())
    assert "could not install it: the package index cannot be reached" in reason
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_packages_whose_code_would_run_while_they_are_installed_are_refused(
    python: str, commands: Commands, tmp_path: Path
) -> None:
    source = tmp_path / "evil-1.0"
    source.mkdir()
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit(1)\n")
    build = '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    (source / "pyproject.toml").write_text(f'{build}[project]\nname = "evil"\nversion = "1.0"\n')
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    links = Path(shutil.make_archive(str(tmp_path / "links" / "evil-1.0"), "gztar", tmp_path, "evil-1.0")).parent
    variables = {"PIP_FIND_LINKS": str(links), "UV_FIND_LINKS": str(links)}
    order = ("create", "sk15", "--requirements", "requirements.txt", "--python", python)
    (tmp_path / "requirements.txt").write_text("evil==1.0\n")
    assert "could not install it" in commands.refuse(*order, **variables)
    assert not (tmp_path / "ran").exists()
    assert "could not install it" in commands.refuse(*order, "--allow-source", **variables)
    assert (tmp_path / "ran").exists()
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_one_without_scikit_learn_is_not_made(python: str, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("")
    reason = commands.refuse("create", "empty", "--requirements", "requirements.txt", "--python", python)
    assert "scikit-learn is not installed there" in reason
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_one_in_which_no_model_can_be_fitted_is_not_made(
    wheel: str, other_python: Path, python: str, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "sklearn.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    shutil.copyfile(wheel, broken)
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(broken, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name.replace("borrowed", "broken"), whole.read(name).replace(b"borrowed", b"broken"))
        archive.write(tmp_path / "sklearn.py", "sklearn.py")
    (tmp_path / "requirements.txt").write_text(f"{broken}\n")
    reason = commands.refuse("create", "sk15", "--requirements", "requirements.txt", "--python", python)
    assert "no model can be fitted in the environment 'sk15': ImportError: libgomp.so.1" in reason
    assert commands.made.list_names() == []


@pytest.mark.ends
def test_a_models_own_requirements_say_what_is_installed(python: str, commands: Commands, tmp_path: Path) -> None:
    directory = tmp_path / "mlflow" / "1"
    directory.mkdir(parents=True)
    joblib.dump(np.arange(3.0), directory / "model.joblib")
    (directory / "requirements.txt").write_text(
        "--index-url http://attacker.example/simple\nscikit-learn==1.5.2\nmlflow==2.9.2\nnumpy==1.26.4\n-e ./evil\n"
    )
    (directory / "python_env.yaml").write_text(f"python: {sys.version_info.major}.{sys.version_info.minor}.1\n")
    status, out, err = commands.run("create", "sk15", "--for", str(directory), **name_closed_index())
    assert status == 1
    *output, reason = err.splitlines()
    assert "could not install it" in reason
    assert any("127.0.0.1" in line or "onnection" in line for line in output), "the last lines of the installer"
    assert commands.made.list_names() == []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"the model needs Python {here}.1, mlflow 2.9.2, numpy 1.26.4, scikit-learn 1.5.2; the modules" in out
    if sys.version_info < (3, 13):  # there are wheels of this NumPy
        assert f": the model was trained with Python {here}.1\n" in out
    assert "numpy==1.26.4, pandas<3, scikit-learn==1.5.2; and if they need it: mlflow==2.9.2, scipy<1.16\n" in out
    assert "attacker" not in out + err


def test_a_broken_python_of_the_settings_is_listed_and_refused(commands: Commands, tmp_path: Path) -> None:
    gone = {"SERVING_ENVIRONMENTS__GONE__PYTHON": str(tmp_path / "gone")}
    assert commands.rows(**gone)["gone"].items() >= {"state": "problem", "origin": "settings"}.items()
    assert f"the environment 'gone' cannot be used: {tmp_path}/gone does not exist" in commands.refuse(
        "check", "gone", **gone
    )
    assert "'gone' is an environment of the settings: remove it there" in commands.refuse("remove", "gone", **gone)
    assert "the settings name an environment 'gone'" in commands.refuse("create", "gone", "--with", "x", **gone)


def test_one_that_the_settings_hide_is_listed_as_hidden(commands: Commands, tmp_path: Path) -> None:
    fabricate_made(commands.made, "sk15")
    there = {"SERVING_ENVIRONMENTS__SK15__PYTHON": str(fabricate(tmp_path / "there"))}
    _, out, _ = commands.run("list", **there)
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["own", "server"],
        ["sk15", "settings"],
        ["sk15", "created"],
    ]
    assert out.endswith("hidden  0   the settings name another environment so\n")


def test_one_that_is_in_use_is_removed_only_by_force(commands: Commands) -> None:
    fabricate_made(commands.made, "sk15")
    with subprocess.Popen([commands.made.find_python("sk15"), "-c", "input()"], stdin=subprocess.PIPE) as user:
        assert f"processes of a server run in 'sk15' ({user.pid})" in commands.refuse("remove", "sk15")
        assert commands.usable() == ["sk15"]
        assert commands.run("remove", "sk15", "--force")[0] == 0
        assert commands.made.list_names() == []
        assert user.poll() is None
        user.communicate(b"\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "sk15"), "say what to install"),
        (("create", "sk15", "--for", "m", "--requirements", "r"), "not both"),
    ],
)
def test_a_creation_without_an_aim_is_misuse(arguments: tuple[str, ...], reason: str, commands: Commands) -> None:
    status, _, err = commands.run(*arguments)
    assert (status, reason in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "own", "--with", "numpy"), "'own' is a reserved word; choose another name"),
        (("create", "../x", "--with", "numpy"), "'../x' is not a name"),
        (("create", "sk15", "--with", "--index-url=http://x"), "'--index-url=http://x' is no requirement"),
        (("create", "sk15", "--requirements", "none.txt"), "'none.txt' does not exist"),
        (("create", "sk15", "--with", "numpy", "--python", "no-such"), "'no-such' is no Python that can be started"),
        (("create", "sk15", "--for", "none.joblib"), "'none.joblib' cannot be read: No such file or directory"),
        (("check", "none"), "there is no environment 'none'"),
        (("remove", "none"), "there is no environment 'none'"),
        (("remove", "../x"), "there is no environment '../x'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: tuple[str, ...], reason: str, commands: Commands) -> None:
    assert reason in commands.refuse(*arguments)
    assert commands.made.list_names() == []

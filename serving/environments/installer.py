"""Makes virtual environments and installs packages into them: with uv if it is here, else with venv and pip.

Neither compiles what it installs: that is a step of its own, which leaves out the packages' tests. They are half of the
code, and no model needs them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.domain.errors import EnvironmentRefused
from serving.domain.text import one_line
from serving.environments.environment_directory import PYTHON_PATH
from serving.environments.find_python import Interpreter, look_up
from serving.environments.installer_failures import explain_failure

Doing = Callable[[str], None]

SHOWN_LINES = 12  # of what a program printed last
_KEPT_LINES = 60
_ONLY_WHEELS = ["--only-binary", ":all:"]
# what no model imports: tests, and what installs packages
_NOT_COMPILED = r"[/\\](tests?|pip|setuptools|pkg_resources)[/\\]"
_NOT_ALL_COMPILED = 1  # status of compileall; packages may hold files that are no Python


class InstallationFailed(EnvironmentRefused):
    """The installer has failed; `output` are the last lines that it printed."""

    def __init__(self, message: str, output: Sequence[str]) -> None:
        super().__init__(message)
        self.output = tuple(output)


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed: `requirements` and the lines of `requirements_file`, within `constraints`.

    Unless `allows_source`, only wheels: then no code of a package runs while it is installed.
    """

    requirements: Sequence[str]
    constraints: Sequence[str] = ()
    requirements_file: Path | None = None
    allows_source: bool = False


class Installer:
    """One program that installs: uv, when `uv` is its path, else venv and pip. One thread at a time.

    `variables` is the process's environment, which may name an index; what is of this server is left out of it.
    """

    def __init__(self, uv: str | None, variables: Mapping[str, str]) -> None:
        self.uv = uv
        kept = {name: value for name, value in variables.items() if not name.upper().startswith("SERVING_")}
        self._variables = {**kept, "UV_PYTHON_DOWNLOADS": "manual", "PIP_NO_INPUT": "1"}

    @property
    def name(self) -> str:
        """``uv`` or ``pip``."""
        return "pip" if self.uv is None else "uv"

    def fetch_python(self, minor: str, doing: Doing) -> Interpreter:
        """Let uv download a Python of this minor version, and return it. Raises EnvironmentRefused without uv."""
        if self.uv is None:
            raise EnvironmentRefused(f"only uv can fetch a Python: install uv, or Python {minor}")
        self._run([self.uv, "python", "install", "--no-bin", minor], f"Python {minor} could not be fetched", doing)
        found = subprocess.run(
            [self.uv, "python", "find", "--managed-python", minor],
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )
        interpreter = look_up(found.stdout.strip()) if found.returncode == 0 else None
        if interpreter is None:
            raise EnvironmentRefused(f"uv has fetched Python {minor}, and does not say where it is")
        return interpreter

    def make(self, directory: Path, python: Interpreter, doing: Doing, locked: int) -> None:
        """Make an empty virtual environment in `directory`, an empty one; raises EnvironmentRefused.

        `locked` is a descriptor that the program keeps open as long as it runs. Blocks.
        """
        if self.uv is not None:
            command = [self.uv, "venv", "--no-project", "--python", python.path, str(directory)]
        else:
            command = [python.path, "-I", "-m", "venv", str(directory)]
        self._run(command, f"no virtual environment could be made with {python}", doing, locked)

    def install(self, directory: Path, installation: Installation, doing: Doing, locked: int) -> None:
        """Install packages into the virtual environment in `directory`; raises EnvironmentRefused. Blocks."""
        constraints = directory / "constraints.txt"
        constraints.write_text("".join(f"{each}\n" for each in installation.constraints))
        inside = str(directory / PYTHON_PATH)
        if self.uv is not None:
            command = [self.uv, "pip", "install", "--python", inside, "--no-progress"]
        else:
            pip = [inside, "-I", "-m", "pip", "--disable-pip-version-check"]
            command = [*pip, "install", "--no-compile", "--progress-bar", "off"]
        command += [*([] if installation.allows_source else _ONLY_WHEELS), "--constraint", str(constraints)]
        if installation.requirements_file is not None:
            command += ["--requirement", str(installation.requirements_file)]
        self._run([*command, *installation.requirements], f"{self.name} could not install it", doing, locked)

    def compile(self, directory: Path, doing: Doing, locked: int) -> None:
        """Write what Python compiles, which hosts could not, in the virtual environment in `directory`.

        In one process: others would outlive it, and keep `locked` open, if it were killed. Raises EnvironmentRefused
        when it is. Blocks.
        """
        command = [str(directory / PYTHON_PATH), "-I", "-m", "compileall", "-qq", "-x", _NOT_COMPILED]
        libraries = [str(path) for path in sorted(directory.glob("lib/python3*/site-packages"))]
        failure = "what is installed could not be compiled"
        self._run([*command, *libraries], failure, doing, locked, accepted=(0, _NOT_ALL_COMPILED))

    def _run(
        self,
        command: Sequence[str],
        failure: str,
        doing: Doing,
        locked: int | None = None,
        *,
        accepted: Sequence[int] = (0,),
    ) -> None:
        """Run a program to its end, and show each line it prints. It dies with this process, and on Ctrl-C.

        `accepted` are the statuses that are no failure.
        """
        starter = [sys.executable, "-P", "-m", "serving.environments.start_installer", str(os.getpid())]
        last: deque[str] = deque(maxlen=_KEPT_LINES)
        with subprocess.Popen(
            [*starter, *command],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if locked is None else (locked,),
            process_group=0,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if text := one_line(line):
                        last.append(text)
                        doing(text)
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if code not in accepted:
            lines = tuple(last)
            raise InstallationFailed(f"{failure}: {explain_failure(lines, code)}", lines[-SHOWN_LINES:])


def find_installer(variables: Mapping[str, str]) -> Installer:
    """Return the installer of this machine; see `Installer` for `variables`."""
    return Installer(find_uv(), variables)


def find_uv() -> str | None:
    """Return the path of uv, on PATH or beside the interpreter that runs this; None without it."""
    beside = Path(sys.executable).parent / "uv"
    return shutil.which("uv") or (str(beside) if os.access(beside, os.X_OK) else None)

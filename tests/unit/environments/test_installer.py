"""The installer is told to take wheels only, gets no secret of the server, and its last lines are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from serving.domain.errors import EnvironmentRefused
from serving.environments.find_python import Interpreter
from serving.environments.installer import Installation, InstallationFailed, Installer

PYTHON = Interpreter("/p/python3.10", "3.10.13")
INSTALLATION = Installation(["scikit-learn==1.3.2"], ["numpy<2"])


@pytest.fixture
def uv(tmp_path: Path) -> Path:
    """Something in place of uv that notes its arguments and variables."""
    path = tmp_path / "uv"
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nenv > {tmp_path}/variables\necho one\necho two >&2\n')
    path.chmod(0o755)
    return path


def read_calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_uv_installs_wheels_only(uv: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    with (tmp_path / "lock").open("w") as lock:
        installer = Installer(str(uv), dict(os.environ))
        installer.make(tmp_path / "there", PYTHON, lines.append, lock.fileno())
        (tmp_path / "there").mkdir()
        installer.install(tmp_path / "there", INSTALLATION, lines.append, lock.fileno())
    venv, install = read_calls(tmp_path)
    assert venv == f"venv --no-project --python /p/python3.10 {tmp_path}/there"
    assert install == (
        f"pip install --python {tmp_path}/there/bin/python --no-progress --only-binary :all: "
        f"--constraint {tmp_path}/there/constraints.txt scikit-learn==1.3.2"
    )
    assert (tmp_path / "there" / "constraints.txt").read_text() == "numpy<2\n"
    assert lines == ["one", "two"] * 2


def test_sources_are_built_only_where_that_is_allowed(uv: Path, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        allowed = Installation(["x"], (), tmp_path / "r.txt", allows_source=True)
        Installer(str(uv), dict(os.environ)).install(tmp_path, allowed, lambda _: None, lock.fileno())
    (install,) = read_calls(tmp_path)
    assert "--only-binary" not in install
    assert install.endswith(f"--requirement {tmp_path}/r.txt x")


def test_the_installer_gets_no_setting_of_the_server(uv: Path, tmp_path: Path) -> None:
    variables = {**os.environ, "SERVING_SECURITY__ADMIN_TOKEN": "hush", "PIP_INDEX_URL": "https://mirror.example"}
    with (tmp_path / "lock").open("w") as lock:
        Installer(str(uv), variables).install(tmp_path, INSTALLATION, lambda _: None, lock.fileno())
    seen = (tmp_path / "variables").read_text()
    assert "hush" not in seen
    assert "PIP_INDEX_URL=https://mirror.example" in seen
    assert "UV_PYTHON_DOWNLOADS=manual" in seen


def test_all_but_tests_is_compiled_and_what_is_no_python_is_no_failure(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.10" / "site-packages"
    for name, code in {"one/a.py": "", "one/tests/b.py": "", "pip/c.py": "", "template.py": "{{ no }} Python"}.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(code)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    lines: list[str] = []
    with (tmp_path / "lock").open("w") as lock:
        Installer(None, dict(os.environ)).compile(tmp_path, lines.append, lock.fileno())
    assert [path.name.split(".")[0] for path in packages.glob("**/*.pyc")] == ["a"]
    assert lines == []


def test_the_last_lines_of_a_failure_are_kept(uv: Path, tmp_path: Path) -> None:
    uv.write_text("#!/bin/sh\nseq 100\necho '\033[31mno space left on device'\nexit 2\n")
    with (tmp_path / "lock").open("w") as lock, pytest.raises(InstallationFailed) as failed:
        Installer(str(uv), dict(os.environ)).install(tmp_path, INSTALLATION, lambda _: None, lock.fileno())
    assert str(failed.value) == "uv could not install it: the disk is full; make room, and create it again"
    assert failed.value.output == (*(str(number) for number in range(90, 101)), "?[31mno space left on device")


def test_uv_fetches_a_python(uv: Path, tmp_path: Path) -> None:
    fetched = tmp_path / "fetched"
    fetched.write_text(f'#!/bin/sh\necho \'["3.10.19", "{fetched}"]\'\n')
    fetched.chmod(0o755)
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$2" = find ] && echo {fetched}\nexit 0\n')
    assert Installer(str(uv), dict(os.environ)).fetch_python("3.10", lambda _: None) == Interpreter(
        str(fetched), "3.10.19"
    )
    assert read_calls(tmp_path) == ["python install --no-bin 3.10", "python find --managed-python 3.10"]
    with pytest.raises(EnvironmentRefused, match=r"only uv can fetch a Python: install uv, or Python 3.10"):
        Installer(None, {}).fetch_python("3.10", lambda _: None)

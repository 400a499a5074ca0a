"""What is made for a model: its needs, the Python, what is installed, and that the result has what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.domain.environment import Environment, Needs
from serving.domain.errors import EnvironmentRefused
from serving.environments.find_python import Interpreter
from serving.environments.installer import Installation
from serving.offline import make_environment as module
from serving.offline.make_environment import EnvironmentOrder, make_environment
from serving.settings import EnvironmentSettings, NamedEnvironment, Settings
from serving.wire.evaluation import NeedsFound
from tests.unit.environments.fabricated import fabricate, install

PYTHONS = [Interpreter(f"/p/python{each}", f"{each}.1") for each in ("3.13", "3.12", "3.11")]
OLD = Needs(libraries={"scikit-learn": "1.3.2", "mlflow": "2.9"}, modules=("sklearn",), python="3.10.4")
MODEL = EnvironmentOrder("sk13", model=Path("m.joblib"))


class FakeInstaller:
    """Installs what a test says, in a moment."""

    name, uv = "fake", None

    def __init__(self, libraries: dict[str, str]) -> None:
        self.libraries = libraries
        self.asked: Installation | None = None
        self.python: Interpreter | None = None

    def fetch_python(self, minor: str, doing: object) -> Interpreter:
        return Interpreter(f"/fetched/python{minor}", f"{minor}.9")

    def make(self, directory: Path, python: Interpreter, doing: object, locked: int) -> None:
        self.python = python
        fabricate(directory, {})

    def install(self, directory: Path, installation: Installation, doing: object, locked: int) -> None:
        self.asked = installation
        for name, version in self.libraries.items():
            install(directory, name, version)

    def compile(self, directory: Path, doing: object, locked: int) -> None:
        pass


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the environments that were tried out."""
    names: list[str] = []

    def check(environment: Environment, settings: Settings, started: object) -> None:
        names.append(environment.name)

    monkeypatch.setattr(module, "check_environment", check)
    monkeypatch.setattr(module, "list_interpreters", lambda uv: PYTHONS)
    return names


class Making:
    """Makes environments for a model with given needs."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(state={"path": state})  # type: ignore[arg-type]
        self.said: list[str] = []
        self.installer = FakeInstaller({"scikit-learn": "1.3.2", "numpy": "1.26.4", "pandas": "2.2.3", "sklearn": "0"})
        self._monkeypatch = monkeypatch

    def make(self, order: EnvironmentOrder, needs: Needs = OLD) -> Any:
        self._monkeypatch.setattr(module, "find_needs_of", lambda path, settings: NeedsFound(needs=needs))
        installer: Any = self.installer
        return make_environment(order, self.settings, installer, self.said.append, lambda _: None)

    def refuse(self, order: EnvironmentOrder, needs: Needs = OLD) -> str:
        with pytest.raises(EnvironmentRefused) as refused:
            self.make(order, needs)
        assert not list((self.settings.state.path / "environments").glob("*"))
        return str(refused.value)


@pytest.fixture
def making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]) -> Making:
    return Making(tmp_path / "state", monkeypatch)


def test_every_decision_is_told(making: Making, checked: list[str]) -> None:
    record = making.make(MODEL)
    needs, python, installing, left_out = making.said
    assert needs == "the model needs Python 3.10.4, mlflow 2.9, scikit-learn 1.3.2; the modules sklearn"
    assert python.startswith("Python 3.12.1 (/p/python3.12): the newest here that has wheels of scikit-learn 1.3.2, ")
    assert python.endswith("; the model was trained with 3.10.4")
    assert installing.startswith("installing with fake: pandas<2.3, scikit-learn==1.3.2; and if they need it: joblib<1")
    assert left_out == "left out, because no module of the model belongs to them: mlflow"
    assert checked == ["sk13"]
    assert (record.installer, record.libraries["scikit-learn"]) == ("fake", "1.3.2")
    assert record.requirements == ("pandas<2.3", "scikit-learn==1.3.2")


def test_what_was_installed_must_fit_the_model(making: Making, checked: list[str]) -> None:
    making.installer.libraries["scikit-learn"] = "1.5.2"
    assert "what was installed does not fit the model: scikit-learn 1.5.2 instead of 1.3.2;" in making.refuse(MODEL)
    making.installer.libraries["scikit-learn"] = "1.3.2"
    needs = OLD.model_copy(update={"modules": ("mine", "sklearn")})
    order = replace(MODEL, extra=("my-package",))
    assert "what was installed does not fit the model: no module mine; see --with" in making.refuse(order, needs)
    assert checked == []


def test_the_name_must_be_the_one_that_the_manifest_asks_for(making: Making) -> None:
    needs = OLD.model_copy(update={"environment": "other"})
    assert "names the environment 'other': it would not run in 'sk13'" in making.refuse(MODEL, needs)


def test_nothing_is_made_for_a_model_that_needs_nothing(making: Making) -> None:
    assert "nothing says what 'm.joblib' needs" in making.refuse(MODEL, Needs())


def test_uv_fetches_a_python_only_where_none_fits_and_it_may(making: Making) -> None:
    needs = OLD.model_copy(update={"libraries": {"scikit-learn": "1.0.2"}})
    making.installer.libraries["scikit-learn"] = "1.0.2"
    assert "needs Python 3.9 or 3.10, which is not on PATH" in making.refuse(MODEL, needs)
    making.make(replace(MODEL, downloads_python=True), needs)
    assert making.installer.python == Interpreter("/fetched/python3.10", "3.10.9")
    making.installer.libraries["scikit-learn"] = "1.3.2"
    making.make(EnvironmentOrder("other", model=MODEL.model, downloads_python=True))
    assert making.installer.python == PYTHONS[1]


def test_a_file_of_requirements_chooses_the_python_and_is_left_as_it_is(making: Making, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("--index-url https://mirror.example\nscikit-learn==1.2.2\n")
    making.make(EnvironmentOrder("sk12", requirements_file=file, extra=("six",), allows_source=True))
    assert making.installer.asked == Installation(("six",), (), file, allows_source=True)
    assert making.installer.python == PYTHONS[2]
    assert making.said[-1] == f"installing with fake: all of '{file}', six"


def test_a_name_of_the_settings_is_taken(making: Making, tmp_path: Path) -> None:
    named = EnvironmentSettings(named={"sk13": NamedEnvironment(python=tmp_path)})
    making.settings = making.settings.model_copy(update={"environments": named})
    assert "the settings name an environment 'sk13'; choose another name" in making.refuse(MODEL)


def test_the_state_directory_is_private_from_the_start(making: Making) -> None:
    making.make(MODEL)
    assert making.settings.state.path.stat().st_mode & 0o777 == 0o700

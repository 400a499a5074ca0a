"""The Python for a model is its own minor version, else the newest here that its libraries have wheels for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serving.domain.errors import EnvironmentRefused
from serving.environments.find_python import (
    Interpreter,
    choose_interpreter,
    find_requested,
    has_wheels,
    list_interpreters,
    look_up,
)

FOUND = [Interpreter(f"/p/python{each}", f"{each}.7") for each in ("3.13", "3.12", "3.11", "3.10", "3.9")]


def choose(trained_with: str | None, **pins: str) -> tuple[str, str]:
    interpreter, why = choose_interpreter(FOUND, trained_with, {name.replace("_", "-"): v for name, v in pins.items()})
    return interpreter.version, why


def test_the_models_own_python_is_taken_whatever_its_patch() -> None:
    assert choose("3.10.13", scikit_learn="1.3.2") == ("3.10.7", "the model was trained with Python 3.10.13")


def test_another_is_the_newest_that_the_libraries_have_wheels_for() -> None:
    version, why = choose("3.8.1", scikit_learn="1.3.2")
    assert (version, why) == (
        "3.12.7",
        "the newest here that has wheels of scikit-learn 1.3.2; the model was trained with 3.8.1",
    )
    assert choose(None, scikit_learn="1.3.2", numpy="1.24.4")[0] == "3.11.7"
    assert choose(None, scikit_learn="1.2.2", scipy="1.7.3")[0] == "3.10.7"
    assert choose(None)[0] == "3.13.7"


def test_its_own_python_is_not_taken_without_wheels_for_it() -> None:
    assert choose("3.13.0", scikit_learn="1.5.1")[0] == "3.12.7"


def test_without_any_it_is_said_which_to_install() -> None:
    with pytest.raises(EnvironmentRefused) as refused:
        choose_interpreter(FOUND[:1], None, {"scikit-learn": "1.1.3"})
    assert str(refused.value) == (
        "scikit-learn 1.1.3 needs Python 3.9, 3.10 or 3.11, which is not on PATH, under pyenv or of uv (found 3.13.7); "
        "install it, name it with --python, or let uv fetch it with --python-download"
    )
    with pytest.raises(
        EnvironmentRefused, match=r"no Python has wheels of scikit-learn 1.0, numpy 2.5.0 together; rep"
    ):
        choose_interpreter(FOUND, None, {"scikit-learn": "1.0", "numpy": "2.5.0"})


@pytest.mark.parametrize(
    ("sklearn", "minors"),
    [
        ("1.0", ["3.9"]),
        ("1.0.2", ["3.9", "3.10"]),
        ("1.1.2", ["3.9", "3.10"]),
        ("1.2.2", ["3.9", "3.10", "3.11"]),
        ("1.3.0", ["3.9", "3.10", "3.11"]),
        ("1.3.2", ["3.9", "3.10", "3.11", "3.12"]),
        ("1.5.1", ["3.9", "3.10", "3.11", "3.12"]),
        ("1.5.2", ["3.9", "3.10", "3.11", "3.12", "3.13"]),
        ("1.7.0", ["3.10", "3.11", "3.12", "3.13"]),
        ("1.8.0", ["3.11", "3.12", "3.13", "3.14"]),
    ],
)
def test_the_pythons_of_each_scikit_learn(sklearn: str, minors: list[str]) -> None:
    known = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
    assert [minor for minor in known if has_wheels(minor, {"scikit-learn": sklearn})] == minors


def test_the_operator_may_ask_for_a_version_a_path_or_a_name(tmp_path: Path) -> None:
    assert find_requested("3.10", FOUND).version == "3.10.7"
    here = find_requested(sys.executable, FOUND)
    assert (here.path, here.version.split(".")[:2]) == (sys.executable, [str(part) for part in sys.version_info[:2]])
    with pytest.raises(EnvironmentRefused, match=r"no Python 3.14 here: found 3.13.7, 3.12.7"):
        find_requested("3.14", FOUND)
    (tmp_path / "python").write_text("#!/bin/sh\necho pyenv: command not found >&2\nexit 127\n")
    (tmp_path / "python").chmod(0o755)
    for wrong in (str(tmp_path / "python"), str(tmp_path / "none"), "no-such-python"):
        with pytest.raises(EnvironmentRefused, match="is no Python that can be started"):
            find_requested(wrong, FOUND)


def test_only_pythons_that_start_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyenv has a shim on PATH for each Python, also for those that are not chosen."""
    (tmp_path / "python3.9").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.9").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [each.version.rpartition(".")[0] for each in list_interpreters(None)] == [minor]
    assert look_up("python3.9") is None


def test_pythons_of_pyenv_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ".pyenv" / "versions" / "3.9.18" / "bin" / "python3.9"
    place.parent.mkdir(parents=True)
    place.write_text(f'#!/bin/sh\necho \'["3.9.18", "{place}"]\'\n')
    place.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Interpreter(str(place), "3.9.18") in list_interpreters(None)

"""Every version of scikit-learn that may be installed has an allow-list: the versions have different names."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from serving.host.restricted.allow_list import Distrusted, choose_list
from serving.host.restricted.call_rules import are_usual_arguments

ROOT = Path(__file__).parents[4]
MINORS = ("1.6", "1.7", "1.8", "1.9")


def test_the_oldest_allowed_scikit_learn_has_a_list() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(each for each in map(Requirement, project["dependencies"]) if each.name == "scikit-learn")
    (bound,) = wanted.specifier
    assert ".".join(map(str, Version(bound.version).release[:2])) == MINORS[0]


@pytest.mark.parametrize("minor", MINORS)
def test_a_list_is_in_the_package(minor: str) -> None:
    lists = resources.files("serving.host.restricted").joinpath("lists")
    assert lists.joinpath(f"scikit-learn-{minor}.json").is_file()


@pytest.mark.parametrize("minor", MINORS)
def test_losses_accept_only_numbers_under_each_module_name(minor: str) -> None:
    """Up to scikit-learn 1.8 the compiled losses call their module `_loss`."""
    place = resources.files("serving.host.restricted").joinpath("lists", f"scikit-learn-{minor}.json")
    called = json.loads(place.read_text())["called"]
    module = "_loss" if minor in ("1.6", "1.7", "1.8") else "sklearn._loss._loss"
    assert f"{module}.CyHalfSquaredError" in called
    for name in ("CyHuberLoss", "CyPinballLoss", "CyHalfTweedieLoss"):
        assert f"{module}.{name}" in called
        assert are_usual_arguments((module, name), (0.5,))
        assert not are_usual_arguments((module, name), ("0.5",))


@pytest.mark.parametrize("minor", MINORS)
def test_class_names_of_a_model_may_be_any_text(minor: str) -> None:
    """Up to 1.7 scikit-learn keeps them as the keys of a dict in these attributes."""
    place = resources.files("serving.host.restricted").joinpath("lists", f"scikit-learn-{minor}.json")
    listed = json.loads(place.read_text())["schema"]["classes"]["sklearn.linear_model._logistic.LogisticRegressionCV"]
    for attribute in ("coefs_paths_", "scores_"):
        assert attribute not in listed or "text" in listed[attribute]


LISTS = [(1, 0), (1, 9), (1, 10)]


@pytest.mark.parametrize(
    ("version", "chosen"),
    [("1.0.2", (1, 0)), ("1.9.1", (1, 9)), ("1.10.0", (1, 10)), ("1.11.dev0", (1, 10)), ("2.0.0", (1, 10))],
)
def test_a_scikit_learn_goes_by_its_own_list_or_by_the_newest(version: str, chosen: tuple[int, int]) -> None:
    assert choose_list(version, LISTS) == chosen


@pytest.mark.parametrize("version", ["0.24.2", "0.9", "1.5.0"])
def test_a_scikit_learn_without_a_list_is_refused(version: str) -> None:
    with pytest.raises(Distrusted, match=f"no list of names for scikit-learn {version}, the oldest it knows is 1.0"):
        choose_list(version, LISTS)

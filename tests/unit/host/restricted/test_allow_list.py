"""Every version of scikit-learn has an allow-list of its own, and every list keeps the same rules."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from serving.host.restricted.allow_list import Distrusted, choose_list
from serving.host.restricted.attribute_schema import NATIVE, PLAIN, Schema
from serving.host.restricted.call_rules import are_usual_arguments
from serving.host.restricted.fitting_only import find_stand_in

ROOT = Path(__file__).parents[4]
MINORS = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.9")
# modules whose classes and functions a list may have, and the few that it may have of others
LIBRARIES = frozenset({"sklearn", "numpy", "scipy", "xgboost", "lightgbm", "_loss"})
OTHERS = frozenset(
    {
        *(
            f"builtins.{name}"
            for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int")
        ),
        *(f"builtins.{name}" for name in ("list", "object", "range", "set", "slice", "str", "tuple")),
        *("_codecs.encode", "collections.OrderedDict", "collections.defaultdict", "copyreg._reconstructor"),
        *("functools.partial", "joblib.numpy_pickle.NumpyArrayWrapper"),
        *("joblib.memory.Memory", "joblib._store_backends.FileSystemStoreBackend"),
    }
)
# parts of the libraries that fetch, write, compile, or run what they are given
REFUSED_PARTS = frozenset(
    (
        *("datasets", "externals", "testing", "_testing", "tests", "f2py", "distutils", "ctypeslib", "_external"),
        *("weave", "io", "lib", "fixes", "estimator_checks"),
    )
)
REFUSED_NAMES = frozenset(
    (
        *("vectorize", "memmap", "load", "loads", "save", "fromfile", "tofile", "genfromtxt", "loadtxt", "savetxt"),
        *("frompyfunc", "apply_along_axis", "fromfunction", "piecewise", "getattr", "eval", "exec", "compile", "open"),
        *(
            "PyFuncDistance",
            "PyFuncDistance32",
            "PyFuncDistance64",
            "delayed",
            "Parallel",
            "fetch_openml",
            "import_module",
        ),
    )
)
# what a file may call that is no loss, distance, tree or source of random numbers
CALLED = frozenset(
    {
        *("_codecs.encode", "builtins.bytearray", "builtins.bytes", "builtins.frozenset", "builtins.range"),
        *("builtins.set", "builtins.slice", "collections.OrderedDict", "collections.defaultdict"),
        *("copyreg._reconstructor", "functools.partial", "numpy.dtype", "numpy._core.multiarray._reconstruct"),
        *("numpy._core.multiarray.scalar", "numpy._core.numeric._frombuffer", "numpy.ma.core._mareconstruct"),
    }
)
CALLED_PARTS = ("_loss.", "sklearn._loss._loss.", "sklearn.linear_model._sgd_fast.", "numpy.random.")
CALLED_OF_TREES = frozenset(
    {
        *("sklearn.metrics._dist_metrics.newObj", "sklearn.neighbors._ball_tree.newObj"),
        *("sklearn.neighbors._kd_tree.newObj", "sklearn.tree._tree.Tree"),
    }
)


@cache
def read_list(minor: str) -> Any:
    place = resources.files("serving.host.restricted").joinpath("lists", f"scikit-learn-{minor}.json")
    return json.loads(place.read_text(encoding="utf-8"))


def list_names(minor: str) -> set[str]:
    document = read_list(minor)
    classes = {name for names in document["called"].values() for name in names}
    return {*document["called"], *classes, *document["created"], *document["values"]}


def test_the_oldest_allowed_scikit_learn_has_a_list() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(each for each in map(Requirement, project["dependencies"]) if each.name == "scikit-learn")
    (bound,) = wanted.specifier
    assert ".".join(map(str, Version(bound.version).release[:2])) in MINORS


def test_the_package_has_these_lists_and_no_others() -> None:
    places = resources.files("serving.host.restricted").joinpath("lists").iterdir()
    assert {place.name for place in places} == {f"scikit-learn-{minor}.json" for minor in MINORS}


@pytest.mark.parametrize("minor", MINORS)
def test_a_list_names_only_what_models_are_made_of(minor: str) -> None:
    for name in list_names(minor) - OTHERS:
        module, _, last = name.rpartition(".")
        parts = module.split(".")
        assert parts[0] in LIBRARIES, name
        assert REFUSED_PARTS.isdisjoint(parts), name
        assert last not in REFUSED_NAMES, name


@pytest.mark.parametrize("minor", MINORS)
def test_a_list_has_nothing_that_a_stand_in_takes_the_place_of(minor: str) -> None:
    """A listed name is loaded as it is; the distributions of SciPy 1.8 and older have a class of their own."""
    assert find_stand_in(("scipy.stats._distn_infrastructure", "rv_frozen")) is not None
    names = [tuple(name.rpartition(".")[::2]) for name in list_names(minor)]
    assert [name for name in names if find_stand_in((name[0], name[1])) is not None] == []


@pytest.mark.parametrize("minor", MINORS)
def test_a_file_may_call_only_known_kinds_of_functions(minor: str) -> None:
    called = read_list(minor)["called"]
    assert {name for name in called if not name.startswith(CALLED_PARTS)} <= CALLED | CALLED_OF_TREES
    for name, classes in called.items():
        if name.rpartition(".")[2].startswith("__pyx_unpickle_"):
            assert [each.rpartition(".")[2] for each in classes] == [name.rpartition("__pyx_unpickle_")[2]]
            # each has a rule of its own: Cython reads what it is given unchecked
            module, _, last = name.rpartition(".")
            assert not are_usual_arguments((module, last), (object, "1", object))


@pytest.mark.parametrize("minor", MINORS)
def test_a_schema_holds_known_words_about_classes_of_the_list(minor: str) -> None:
    document = read_list(minor)
    schema = Schema.parse(document["schema"])  # raises for a word that is none
    made = set(document["schema"]["made"])
    nameable = {*document["called"], *document["created"], *document["values"], "functools.partial"}
    assert set(schema.classes) <= nameable | made
    assert set(document["created"]) - {"joblib.numpy_pickle.NumpyArrayWrapper"} <= set(schema.classes)
    for name, attributes in schema.classes.items():
        for attribute, kinds in attributes.items():
            assert "dropped" not in kinds.plain or attribute == "memory"
            assert "data" not in kinds.plain or attribute in {
                *("param_grid", "param_distributions", "cv_results_", "best_params_"),
            }
            assert kinds.globals <= nameable | {"numpy.bool", "numpy.bool_"}, (name, attribute)
            assert kinds.plain <= PLAIN


@pytest.mark.parametrize("minor", MINORS)
def test_names_of_the_tests_are_not_in_a_list(minor: str) -> None:
    """Names of columns and steps are the owner's: a list with those of its own models would refuse all others."""
    named = {"age", "income", "height", "city", "note", "plan", "my scaler", "my_weights", "my_groups", "churn", "kept"}
    for name, attributes in Schema.parse(read_list(minor)["schema"]).classes.items():
        for attribute, kinds in attributes.items():
            assert named.isdisjoint(kinds.texts), (name, attribute)


@pytest.mark.parametrize("minor", MINORS)
def test_texts_that_choose_a_method_are_few(minor: str) -> None:
    """A stacked model calls what `stack_method_` names, a scorer what `_response_method` names."""
    methods = {"auto", "predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "default"}
    methods |= {"deprecated", "warn", "threshold"}
    chosen = ("stack_method", "stack_method_", "_response_method", "response_method", "chain_method", "method_")
    for name, attributes in Schema.parse(read_list(minor)["schema"]).classes.items():
        for attribute in chosen:
            if attribute in attributes and not name.startswith(NATIVE):
                kinds = attributes[attribute]
                assert kinds.texts <= methods, (name, attribute)
                assert kinds.plain.isdisjoint({"text", "data"}), (name, attribute)


@pytest.mark.parametrize("minor", MINORS)
def test_losses_accept_only_numbers_under_each_module_name(minor: str) -> None:
    """From 1.5 to 1.8 the compiled losses call their module `_loss`; 1.0 has none."""
    called = read_list(minor)["called"]
    module = "_loss" if minor in ("1.5", "1.6", "1.7", "1.8") else "sklearn._loss._loss"
    forms = {f"{module}.CyHalfSquaredError", f"{module}.__pyx_unpickle_CyHalfSquaredError"}
    assert minor == "1.0" or forms & called.keys()
    for name in ("CyHuberLoss", "CyPinballLoss", "CyHalfTweedieLoss"):
        assert are_usual_arguments((module, name), (0.5,))
        assert not are_usual_arguments((module, name), ("0.5",))


@pytest.mark.parametrize("minor", MINORS)
def test_class_names_of_a_model_may_be_any_text(minor: str) -> None:
    """Up to 1.7 scikit-learn keeps them as the keys of a dict in these attributes."""
    listed = read_list(minor)["schema"]["classes"]["sklearn.linear_model._logistic.LogisticRegressionCV"]
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

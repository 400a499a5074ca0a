"""What is installed for a model: what its file names, in the versions it was trained with. Nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.environment import Needs
from serving.domain.errors import EnvironmentRefused
from serving.environments.plan_requirements import RequirementPlan, plan_requirements, read_name

JOBLIB = "joblib<1.7"


def plan(*modules: str, extra: tuple[str, ...] = (), with_pandas: bool = True, **libraries: str) -> RequirementPlan:
    versions = {name.replace("_", "-"): version for name, version in libraries.items()}
    return plan_requirements(Needs(modules=modules, libraries=versions), extra, with_pandas=with_pandas)


def test_the_versions_it_was_trained_with_are_installed() -> None:
    found = plan("numpy", "sklearn", scikit_learn="1.5.2", numpy="1.26.4", pandas="2.2.3")
    assert found == RequirementPlan(("numpy==1.26.4", "pandas==2.2.3", "scikit-learn==1.5.2"), (JOBLIB, "scipy<1.16"))


def test_what_is_not_known_is_taken_from_the_time_of_its_scikit_learn() -> None:
    found = plan("sklearn", scikit_learn="1.3.2")
    assert (found.requirements, found.constraints) == (
        ("pandas<2.3", "scikit-learn==1.3.2"),
        (JOBLIB, "numpy>=1.22,<2", "scipy<1.13"),
    )
    assert plan("sklearn", "scipy", scikit_learn="1.9.1").requirements == ("pandas", "scikit-learn==1.9.1", "scipy")


def test_scikit_learn_and_pandas_are_always_there_unless_told_otherwise() -> None:
    assert plan("sklearn", scikit_learn="1.5.2").requirements == ("pandas<3", "scikit-learn==1.5.2")
    assert plan("sklearn", scikit_learn="1.5.2", with_pandas=False).requirements == ("scikit-learn==1.5.2",)
    assert plan("pandas", scikit_learn="1.5.2", with_pandas=False).requirements == ("pandas<3", "scikit-learn==1.5.2")
    assert plan().requirements == ("pandas", "scikit-learn>=1.0,<1.10")


@pytest.mark.parametrize(
    ("sklearn", "numpy", "limit"),
    [
        ("1.3.2", None, "numpy>=1.22,<2"),
        ("1.4.1.post1", None, "numpy>=1.22,<2"),
        ("1.5.2", None, "numpy>=1.22,<2.3"),
        ("1.9.1", None, "numpy>=1.22"),
        ("1.0.2", "1.23.5", "numpy==1.23.5"),
        ("1.0.2", "1.19.5", "numpy>=1.22,<1.24"),
        ("1.4.2", "2.0.0", "numpy==2.0.0"),
        ("1.4.1", "2.0.0", "numpy>=1.22,<2"),
        ("1.3.2", "2.0.0", "numpy>=1.22,<2"),
        ("1.5.2", "2.0.0", "numpy==2.0.0"),
        ("1.5.2", "2.*", "numpy>=2,<2.3"),
    ],
)
def test_numpy_fits_scikit_learn_and_the_hosts(sklearn: str, numpy: str | None, limit: str) -> None:
    stated = {"numpy": numpy} if numpy else {}
    assert limit in plan("sklearn", scikit_learn=sklearn, **stated).constraints
    named = plan("numpy", "sklearn", scikit_learn=sklearn, **stated)
    assert limit in named.requirements
    assert bool(named.notes) == (numpy is not None and not numpy.endswith(".*") and numpy not in limit)


def test_a_file_that_tells_only_the_time_of_numpy_1_gets_the_newest_of_these() -> None:
    found = plan("numpy", "sklearn", scikit_learn="1.5.2", numpy="1.*")
    assert "numpy>=1.22,<2" in found.requirements
    assert found.notes == ()
    assert found.pins == {"numpy": "1.26.4", "scikit-learn": "1.5.2"}


def test_pins_of_what_no_module_belongs_to_only_constrain() -> None:
    found = plan("sklearn", scikit_learn="1.3.2", mlflow="2.9.2", scipy="1.11.4", jupyter="1.0.0", numpy="1.26.4")
    assert found.requirements == ("pandas<2.3", "scikit-learn==1.3.2")
    assert found.constraints == (JOBLIB, "jupyter==1.0.0", "mlflow==2.9.2", "numpy==1.26.4", "scipy==1.11.4")
    assert found.left_out == ("jupyter", "mlflow", "numpy", "scipy")


def test_packages_of_the_field_are_known_by_their_modules() -> None:
    found = plan("category_encoders", "imblearn", "yaml", "sklearn", scikit_learn="1.3.2", imbalanced_learn="0.11.0")
    assert found.requirements == (
        "category-encoders",
        "imbalanced-learn==0.11.0",
        "pandas<2.3",
        "pyyaml",
        "scikit-learn==1.3.2",
    )


def test_a_distribution_is_never_guessed_from_the_name_of_a_module() -> None:
    with pytest.raises(EnvironmentRefused, match=r"names mine, other, and it is not known .* --with NAME"):
        plan("mine", "other", "sklearn")


@pytest.mark.parametrize(
    ("pins", "advice"),
    [
        ({"my_package": "1.0", "other": "2"}, "--with my-package==1.0 --with other==2"),
        ({"my_package": "1.0"}, "--with NAME"),
        ({}, "--with NAME"),
    ],
)
def test_what_the_files_beside_a_model_pin_is_not_installed_for_a_module_that_is_not_known(
    pins: dict[str, Any], advice: str
) -> None:
    """Whoever can drop a model can write them, and packages run code as soon as a Python that has them starts."""
    with pytest.raises(EnvironmentRefused) as refused:
        plan("my_package", "other", "sklearn", **pins)
    assert str(refused.value).endswith(f"name it, if you trust it: {advice}")


def test_a_module_may_belong_to_what_the_operator_names() -> None:
    assert plan("mine", "sklearn", extra=("my-company-pkg==2",), scikit_learn="1.5.2").requirements == (
        "pandas<3",
        "scikit-learn==1.5.2",
        "my-company-pkg==2",
    )


def test_what_the_operator_names_replaces_what_the_model_says() -> None:
    found = plan("numpy", "sklearn", extra=("NumPy>=1.26", "scipy"), scikit_learn="1.5.2", numpy="1.25", scipy="1.10")
    assert found.requirements == ("pandas<3", "scikit-learn==1.5.2", "NumPy>=1.26", "scipy")
    assert found.constraints == (JOBLIB,)


def test_xgboost_for_the_processor_replaces_xgboost() -> None:
    found = plan("xgboost", extra=("xgboost-cpu==2.1.4",), with_pandas=False, scikit_learn="1.5.2", xgboost="2.1.4")
    assert found.requirements == ("scikit-learn==1.5.2", "xgboost-cpu==2.1.4")


def test_joblib_is_the_newest_whatever_the_model_says() -> None:
    found = plan("joblib", "sklearn", joblib="1.2.0", scikit_learn="1.3.2")
    assert JOBLIB in found.requirements
    assert found.notes == ("the newest joblib instead of 1.2.0: it reads the same files",)


@pytest.mark.parametrize(
    ("modules", "libraries", "reason"),
    [
        (("sklearn", "torch"), {}, "made with PyTorch, which no environment runs: export it as ONNX"),
        (("keras", "tensorflow"), {}, "made with Keras and TensorFlow, which no environment runs"),
        (("sklearn",), {"scikit_learn": "0.24.2"}, "trained with scikit-learn 0.24.2; environments run 1.0 and newer"),
    ],
)
def test_models_that_no_environment_runs_are_refused(
    modules: tuple[str, ...], libraries: dict[str, Any], reason: str
) -> None:
    with pytest.raises(EnvironmentRefused, match=reason):
        plan(*modules, **libraries)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Scikit_Learn==1", "scikit-learn"),
        ("a[b]>=1", "a"),
        ("a @ https://x/y", "a"),
        (" a ; python_version > '3'", "a"),
        ("https://x/y.whl", None),
        ("./dist/a.whl", None),
        ("dist/a-1.whl", None),
        ("", None),
    ],
)
def test_the_name_of_a_requirement(requirement: str, name: str | None) -> None:
    assert read_name(requirement) == name

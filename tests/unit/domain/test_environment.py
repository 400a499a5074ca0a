"""Which environment a model runs in: the server's own first, then by name, the first that has what the model needs."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.environment import (
    OWN,
    Choice,
    Environment,
    Needs,
    choose_environment,
    compared_libraries,
    suggest_name,
    to_minor,
)

USUAL = ("joblib", "numpy", "sklearn")


def make_environment(name: str, *modules: str, problem: str | None = None, **libraries: str) -> Environment:
    installed = {library.replace("_", "-"): version for library, version in libraries.items()}
    return Environment(name, f"/{name}/bin/python", "3.11.7", installed, frozenset({*USUAL, *modules}), problem)


def make_needs(*modules: str, environment: str | None = None, **libraries: str) -> Needs:
    trained = {library.replace("_", "-"): version for library, version in libraries.items()}
    sources = dict.fromkeys(trained, "the file says")
    return Needs(libraries=trained, sources=sources, modules=tuple(sorted({*USUAL, *modules})), environment=environment)


HERE = make_environment(OWN, "xgboost", scikit_learn="1.9.1", xgboost="3.2.0")
SK13 = make_environment("sk13", scikit_learn="1.3.2")
SK15 = make_environment("sk15", scikit_learn="1.5.2")


def choose(needs: Needs, *others: Environment, own: Environment = HERE) -> Choice:
    return choose_environment(needs, own, others)


def test_the_servers_own_comes_first() -> None:
    other = make_environment("a", scikit_learn="1.9.1")
    chosen = choose(make_needs(scikit_learn="1.9.0"), other)
    assert chosen == Choice(name=OWN, reason="trained with scikit-learn 1.9.0; here: scikit-learn 1.9.1")


def test_the_others_come_by_name_whatever_their_order() -> None:
    later, earlier = make_environment("b", scikit_learn="1.5.0"), make_environment("a", scikit_learn="1.5.2")
    for others in ((later, earlier), (earlier, later)):
        assert choose(make_needs(scikit_learn="1.5.1"), *others).name == "a"


def test_another_minor_of_scikit_learn_does_not_fit() -> None:
    assert choose(make_needs(scikit_learn="1.3.0"), SK15, SK13) == Choice(
        name="sk13", reason="trained with scikit-learn 1.3.0; in environment 'sk13': scikit-learn 1.3.2"
    )


def test_where_none_fits_the_versions_are_named() -> None:
    chosen = choose(make_needs(scikit_learn="1.4.2"), SK15, SK13)
    assert chosen.name is None
    assert chosen.reason == (
        "trained with scikit-learn 1.4.2 (the file says); the server has 1.9.1; no environment fits: "
        "'sk13' (scikit-learn), 'sk15' (scikit-learn)"
    )
    assert choose(make_needs(scikit_learn="1.4.2")).reason.endswith(
        "the server has 1.9.1; there is no other environment"
    )


def test_every_module_has_to_be_there() -> None:
    needs = make_needs("category_encoders", "mine", category_encoders="2.6.3")
    chosen = choose(needs)
    assert chosen.name is None
    assert "its file names category_encoders (2.6.3), mine, which are not installed here" in chosen.reason
    lacking = make_environment("a", "category_encoders", category_encoders="2.6.1")
    assert choose(needs, lacking).name is None
    fitting = make_environment("b", "category_encoders", "mine", category_encoders="2.6.1")
    assert choose(needs, lacking, fitting).name == "b"


@pytest.mark.parametrize(
    ("module", "library"),
    [("catboost", "catboost"), ("imblearn", "imbalanced_learn"), ("statsmodels", "statsmodels")],
)
def test_packages_of_the_field_are_compared_by_minor(module: str, library: str) -> None:
    needs = make_needs(module, **{library: "1.2.3"})
    other: Any = make_environment("a", module, **{library: "1.3.0"})
    same: Any = make_environment("b", module, **{library: "1.2.0"})
    assert choose(needs, other).name is None
    assert choose(needs, other, same).name == "b"


def test_what_the_file_does_not_name_is_not_compared() -> None:
    needs = make_needs(scikit_learn="1.9.1", catboost="1.2", pandas="1.0")  # pinned beside the file
    assert compared_libraries(needs) == ["scikit-learn"]
    assert choose(needs).name == OWN


def test_the_server_reads_what_another_xgboost_wrote_unless_an_environment_has_that_one() -> None:
    needs = make_needs("xgboost", scikit_learn="1.9.0", xgboost="2.1.4")
    chosen = choose(needs)
    assert chosen.name == OWN
    assert "what another version of xgboost wrote is read here" in chosen.reason
    older = make_environment("a", "xgboost", scikit_learn="1.9.0", xgboost="2.1.0")
    assert choose(needs, older).name == "a"
    without = make_environment(OWN, scikit_learn="1.9.1")
    refused = choose(needs, own=without)
    assert refused.name is None
    assert "xgboost (2.1.4), which is not installed here (pip install 'serving[xgboost]')" in refused.reason


def test_a_broken_environment_is_not_chosen_and_named_with_its_problem() -> None:
    broken = make_environment("a", scikit_learn="1.5.2", problem="its Python cannot be run")
    needs = make_needs(scikit_learn="1.5.2")
    assert "'a' (its Python cannot be run)" in choose(needs, broken).reason
    assert choose(needs, broken, SK15).name == "sk15"


def test_a_manifest_may_name_the_environment() -> None:
    both = (SK15, make_environment("mine", scikit_learn="1.5.0"))
    assert choose(make_needs(scikit_learn="1.5.2", environment="sk15"), *both).name == "sk15"
    assert choose(make_needs(scikit_learn="1.9.1", environment=OWN), *both).name == OWN
    gone = choose(make_needs(scikit_learn="1.9.1", environment="gone"), *both)
    assert gone == Choice(name=None, reason="manifest.json names the environment 'gone', which does not exist")
    wrong = choose(make_needs(scikit_learn="1.9.1", environment="sk15"), *both)
    assert wrong.name is None
    assert "no environment fits: 'sk15' (scikit-learn)" in wrong.reason


def test_what_needs_nothing_stays() -> None:
    assert choose(Needs(), SK15) == Choice(name=OWN, reason="needs nothing that is not here")


def test_a_name_is_suggested_that_is_free() -> None:
    assert suggest_name(make_needs(scikit_learn="1.3.2"), ()) == "sk13"
    assert suggest_name(make_needs(scikit_learn="1.3.2"), {"sk13", "sk13-2"}) == "sk13-3"
    assert suggest_name(make_needs("catboost"), ()) == "catboost"
    assert suggest_name(make_needs("mine"), ()) == "extra"


@pytest.mark.parametrize(
    ("version", "minor"), [("1.5.2", "1.5"), ("1.10.dev0", "1.10"), ("2", "2"), ("x", "x"), ("1.5rc1", "1.5")]
)
def test_the_minor_of_a_version(version: str, minor: str) -> None:
    assert to_minor(version) == minor

"""What a model needs, the environments there are, and which of them a model runs in. Pure.

An environment is a Python with its own packages, in which hosts can run. The one that the server itself runs in is
called `OWN`. A model that another version of a library has written is run where that version is, because loading it
under the wrong one may give wrong answers without an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count

from serving.data_model import BaseModel, ConfigDict

OWN = "own"
SKLEARN = "scikit-learn"
# distributions whose objects in a file fit only the same major.minor, by the module that a file names for them
COMPARED: Mapping[str, str] = {
    "sklearn": SKLEARN,
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders",
    "feature_engine": "feature-engine",
    "statsmodels": "statsmodels",
}
# extras of the server, which reads what other versions of these have written, as far as its gates allow
_READ_WHEN_OLDER = frozenset({"xgboost", "lightgbm"})

_MINOR = re.compile(r"\d+\.\d+")


class Needs(BaseModel):
    """What a model needs to run, found out without running any of it.

    `libraries` are the versions it was trained with, by the distribution's name on PyPI (``scikit-learn``); `sources`
    says for each of them, and for ``python``, what named it. `modules` are the top-level modules that its file names,
    sorted. `environment` is the name that ``manifest.json`` gives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str | None = None
    libraries: dict[str, str] = {}
    sources: dict[str, str] = {}
    modules: tuple[str, ...] = ()
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment. `python` is the path of its interpreter, `python_version` like ``3.10.13``.

    `libraries` are the distributions installed there, with their versions; `modules` the top-level modules that can be
    imported there. `problem` says why no host can run there; None when one can. `stamp` changes when it is made anew.
    """

    name: str
    python: str
    python_version: str
    libraries: Mapping[str, str]
    modules: frozenset[str]
    problem: str | None = None
    stamp: str = ""


class Choice(BaseModel):
    """The environment that a model runs in, by its `name`; None where none fits. `reason` says why, in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None
    reason: str


def choose_environment(needs: Needs, own: Environment, others: Iterable[Environment]) -> Choice:
    """Return the first environment that has what a model needs: the server's own, then the others by name.

    It has every module that the file names, and the same major.minor of each compared library that these modules belong
    to. Where none has the same version of XGBoost or LightGBM, the server's own does, if it has the rest.
    """
    candidates = [own, *sorted(others, key=lambda each: each.name)]
    if needs.environment is not None:
        candidates = [each for each in candidates if each.name == needs.environment]
        if not candidates:
            reason = f"manifest.json names the environment '{needs.environment}', which does not exist"
            return Choice(name=None, reason=reason)
    misfits = {each.name: find_misfits(needs, each) for each in candidates}
    for each in candidates:
        if not misfits[each.name]:
            return Choice(name=each.name, reason=_explain_fit(needs, each))
    for each in candidates:
        if each.name == OWN and all(_is_readable(needs, each, library) for library in misfits[each.name]):
            reason = f"{_explain_fit(needs, each)}; what another version of {_join(misfits[OWN])} wrote is read here"
            return Choice(name=OWN, reason=reason)
    return Choice(name=None, reason=_explain_misfit(needs, own, candidates, misfits))


def find_misfits(needs: Needs, environment: Environment) -> list[str]:
    """Return what keeps a model out of an environment: libraries of other versions, missing modules, its problem."""
    if environment.problem is not None:
        return [environment.problem]
    missing = [f"module {name}" for name in needs.modules if name not in environment.modules]
    wrong = []
    for library in compared_libraries(needs):
        there = environment.libraries.get(library)
        if there is None or to_minor(there) != to_minor(needs.libraries[library]):
            wrong.append(library)
    return [*wrong, *missing]


def compared_libraries(needs: Needs) -> list[str]:
    """Return the libraries whose versions decide, of those that the file names and whose version is known."""
    named = {COMPARED[module] for module in needs.modules if module in COMPARED}
    return [library for library in COMPARED.values() if library in named and library in needs.libraries]


def to_minor(version: str) -> str:
    """Return the major.minor of a version, the whole text where it has none."""
    found = _MINOR.match(version)
    return found[0] if found else version


def suggest_name(needs: Needs, taken: Collection[str]) -> str:
    """Return a name for an environment that has what a model needs, such as ``sk13``; none that is `taken`."""
    named = [COMPARED[module] for module in needs.modules if module in COMPARED and COMPARED[module] != SKLEARN]
    version = needs.libraries.get(SKLEARN)
    name = named[0] if named else "extra"
    if version is not None:
        name = "sk" + re.sub(r"[^0-9a-z]", "", to_minor(version).lower())[:20]
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(each for each in names if each not in taken)


def _is_readable(needs: Needs, own: Environment, misfit: str) -> bool:
    """Whether the server's own environment reads what another version of this library has written."""
    return misfit in _READ_WHEN_OLDER and misfit in own.libraries and misfit in needs.libraries


def _explain_fit(needs: Needs, environment: Environment) -> str:
    compared = compared_libraries(needs)
    where = "here" if environment.name == OWN else f"in environment '{environment.name}'"
    if not compared:
        return f"{where} is every module that the file names" if needs.modules else f"needs nothing that is not {where}"
    versions = [f"{library} {environment.libraries[library]}" for library in compared]
    trained = [needs.libraries[library] for library in compared]
    return f"trained with {_join(map(' '.join, zip(compared, trained, strict=True)))}; {where}: {_join(versions)}"


def _explain_misfit(
    needs: Needs, own: Environment, candidates: Iterable[Environment], misfits: Mapping[str, list[str]]
) -> str:
    seen = []
    for library in compared_libraries(needs):
        source = needs.sources.get(library)
        here = own.libraries.get(library)
        said = f"trained with {library} {needs.libraries[library]}{f' ({source})' if source else ''}"
        if library in misfits.get(own.name, ()) or own.name not in misfits:
            seen.append(f"{said}; the server has {here or 'none'}")
    absent = [name for name in needs.modules if name not in own.modules]
    if absent:
        known = [f"{name} ({_known_version(needs, name)})" if _known_version(needs, name) else name for name in absent]
        extras = [name for name in absent if name in _READ_WHEN_OLDER]
        remedy = f" (pip install 'serving[{','.join(extras)}]')" if extras else ""
        verb = "is" if len(absent) == 1 else "are"
        seen.append(f"its file names {_join(known)}, which {verb} not installed here{remedy}")
    others = [f"'{each.name}' ({_join(misfits[each.name])})" for each in candidates if each.name != OWN]
    tried = f"no environment fits: {_join(others)}" if others else "there is no other environment"
    return "; ".join([*seen, tried])


def _known_version(needs: Needs, module: str) -> str | None:
    return needs.libraries.get(COMPARED.get(module, module.replace("_", "-")))


def _join(texts: Iterable[str]) -> str:
    """Return the first of these texts as part of a sentence."""
    found = list(texts)
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(found[:5]) + more

"""Decides what has to be installed for a model, from what is known about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.domain.environment import SKLEARN, Needs, to_minor
from serving.domain.errors import EnvironmentRefused
from serving.domain.pinned_versions import normalize_name
from serving.environments.known_distributions import DISTRIBUTIONS, FOREIGN, SAME_AS

JOBLIB = "joblib<1.7"
"""What hosts read files with; a newer one is not known yet. No answer depends on it, whatever a model says."""
OLDEST_SKLEARN, NEWEST_SKLEARN = "1.0", "1.10"
OLDEST_NUMPY = "1.22"
# built before NumPy 2, and crash with it
_BEFORE_NUMPY_2 = (1, 4, 2)
# by scikit-learn: the first versions that it was not tried with when it was new, and that its Pythons can do without
_TOO_NEW: dict[str, dict[str, str]] = {
    "1.0": {"numpy": "1.24", "scipy": "1.10", "pandas": "1.6"},
    "1.1": {"numpy": "1.25", "scipy": "1.11", "pandas": "2.1"},
    "1.2": {"numpy": "1.26", "scipy": "1.12", "pandas": "2.1"},
    "1.3": {"numpy": "2", "scipy": "1.13", "pandas": "2.3"},
    "1.4": {"numpy": "2", "scipy": "1.14", "pandas": "2.3"},
    "1.5": {"numpy": "2.3", "scipy": "1.16", "pandas": "3"},
    "1.6": {"numpy": "2.3", "scipy": "1.16", "pandas": "3"},
    "1.7": {"numpy": "2.4", "scipy": "1.17", "pandas": "3"},
    "1.8": {"numpy": "2.5", "scipy": "1.18", "pandas": "3.1"},
}
_LAST_NUMPY_1 = "1.26.4"

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.+!_-]*)")
_NUMPY_LIMIT = re.compile(r"numpy>=[0-9.]+,<([0-9.]+)")
_MOST_SUGGESTED = 5
_NAME_OF_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")


@dataclass(frozen=True, slots=True)
class RequirementPlan:
    """What is installed for a model.

    `requirements` are installed. `constraints` only hold for what these need. `notes` say what was done differently
    than the model says; `left_out` are distributions that the model's own requirements name, and that none of its
    modules belongs to: they are installed only where a requirement needs them.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pins(self) -> dict[str, str]:
        """The exact versions among these, by distribution; the last NumPy before 2 where it has to be one before 2."""
        lines = (*self.requirements, *self.constraints)
        is_before_2 = any((limit := _NUMPY_LIMIT.fullmatch(each)) and read_release(limit[1]) <= (2,) for each in lines)
        return {**({"numpy": _LAST_NUMPY_1} if is_before_2 else {}), **read_exact_versions(lines)}


def plan_requirements(needs: Needs, extra: Sequence[str] = (), *, with_pandas: bool = True) -> RequirementPlan:
    """Return what to install for a model. `extra` are requirements of the operator, which replace the model's.

    Raises EnvironmentRefused for a model that no environment runs, and for a module whose distribution is not known.
    """
    named = {name for each in extra if (name := read_name(each)) is not None}
    overridden = named | {SAME_AS[name] for name in named if name in SAME_AS}
    wanted = dict.fromkeys([SKLEARN, *(["pandas"] if with_pandas else []), *_find_distributions(needs, bool(extra))])
    notes: list[str] = []
    versions = {**needs.libraries, **read_exact_versions(extra)}
    _require_known_sklearn(versions.get(SKLEARN))
    ranges = _find_ranges(versions, notes)
    if (joblib := versions.pop("joblib", None)) is not None:
        notes.append(f"the newest joblib instead of {joblib}: it reads the same files")
    requirements = [
        f"{name}=={versions[name]}" if name in versions else f"{name}{ranges.get(name, '')}"
        for name in sorted(wanted)
        if name not in overridden
    ]
    pinned = {name: f"=={version}" for name, version in versions.items()}
    constraints = [
        f"{name}{limit}"
        for name, limit in sorted({**ranges, **pinned}.items())
        if name not in overridden and name not in wanted
    ]
    left_out = tuple(sorted(name for name in pinned if name not in wanted and name not in overridden))
    return RequirementPlan((*requirements, *extra), tuple(constraints), left_out, tuple(notes))


def read_exact_versions(requirements: Iterable[str]) -> dict[str, str]:
    """Return the versions of requirements like ``scikit-learn==1.3.2``, by distribution; others are ignored."""
    found = (_PIN.fullmatch(each.strip()) for each in requirements)
    return {normalize_name(each[1]): each[2] for each in found if each is not None}


def read_name(requirement: str) -> str | None:
    """Return the normalised distribution of a requirement; None for a link or a path."""
    found = _NAME_OF_REQUIREMENT.match(requirement)
    rest = requirement[found.end() :].lstrip() if found else ""
    return None if found is None or rest.startswith((":", "/", "\\")) else normalize_name(found[1])


def read_release(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (1, 3, 2) for ``1.3.2.post1``."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def _find_distributions(needs: Needs, has_extra: bool) -> list[str]:
    """Return the distributions of the modules that the file names."""
    foreign = sorted({FOREIGN[module] for module in needs.modules if module in FOREIGN})
    if foreign:
        raise EnvironmentRefused(
            f"the model is made with {' and '.join(foreign)}, which no environment runs: export it as ONNX, "
            "see docs/models.md"
        )
    unknown = [module for module in needs.modules if module not in DISTRIBUTIONS]
    if unknown and not has_extra:
        raise EnvironmentRefused(
            f"the model's file names {', '.join(unknown)}, and it is not known which distribution has "
            f"{'it' if len(unknown) == 1 else 'them'}; name it, if you trust it: {_suggest_options(unknown, needs)}"
        )
    return [DISTRIBUTIONS[module] for module in needs.modules if module in DISTRIBUTIONS]


def _suggest_options(modules: Sequence[str], needs: Needs) -> str:
    """Return options for these modules. What the files beside a model pin may be anything: a person decides."""
    names = [normalize_name(module) for module in modules]
    pinned = [f"--with {name}=={needs.libraries[name]}" for name in names if name in needs.libraries]
    return " ".join(pinned[:_MOST_SUGGESTED] if len(pinned) == len(names) else ["--with NAME"])


def _require_known_sklearn(version: str | None) -> None:
    if version is not None and read_release(version)[:2] < read_release(OLDEST_SKLEARN):
        raise EnvironmentRefused(
            f"the model was trained with scikit-learn {version}; environments run {OLDEST_SKLEARN} and newer: "
            "train it again, or export it as ONNX"
        )


def _find_ranges(versions: dict[str, str], notes: list[str]) -> dict[str, str]:
    """Return the ranges of what has no exact version: of the time of its scikit-learn, and fit for hosts.

    Takes a version of NumPy that cannot be used, or that a file tells in part (``1.*``), out of `versions`.
    """
    sklearn, numpy = versions.get(SKLEARN), versions.get("numpy")
    too_new = dict(_TOO_NEW.get(to_minor(sklearn), {})) if sklearn is not None else {}
    oldest = OLDEST_NUMPY
    if numpy is not None:
        is_in_part = numpy.endswith(".*")
        if not is_in_part and read_release(numpy) < read_release(OLDEST_NUMPY):
            notes.append(f"NumPy {OLDEST_NUMPY} or newer instead of {numpy}: hosts need it")
        elif sklearn is not None and read_release(sklearn) < _BEFORE_NUMPY_2 and read_release(numpy) >= (2,):
            notes.append(f"a NumPy before 2 instead of {numpy}: scikit-learn {sklearn} needs it")
        elif numpy == "2.*":
            oldest = "2"
        if is_in_part or notes:
            del versions["numpy"]
        if read_release(numpy) < (2,):
            too_new["numpy"] = min("2", too_new.get("numpy", "2"), key=read_release)
    return {
        "joblib": JOBLIB.removeprefix("joblib"),
        SKLEARN: f">={OLDEST_SKLEARN},<{NEWEST_SKLEARN}",
        **{name: f"<{first}" for name, first in too_new.items()},
        "numpy": f">={oldest}" + (f",<{too_new['numpy']}" if "numpy" in too_new else ""),
    }

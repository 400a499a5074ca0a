"""Makes an environment for a model, or from requirements: what it needs, which Python, what is installed, the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.domain.environment import Environment, Needs, find_misfits, to_minor
from serving.domain.errors import EnvironmentRefused
from serving.domain.pinned_versions import read_pins
from serving.environments.create_environment import create_environment, require_free_name
from serving.environments.environment_directory import EnvironmentRecord
from serving.environments.find_python import (
    Interpreter,
    choose_interpreter,
    find_requested,
    list_interpreters,
    list_minors,
)
from serving.environments.installer import Doing, Installation, Installer
from serving.environments.inventory import open_directory
from serving.environments.plan_requirements import RequirementPlan, plan_requirements, read_exact_versions
from serving.offline.check_environment import check_environment
from serving.offline.offline_evaluator import find_needs_of
from serving.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EnvironmentOrder:
    """What the operator asks for: `model` is the path of a model, `requirements_file` a file of requirements.

    `extra` are further requirements; `python` is a version, a path or a name, None to have it chosen.
    """

    name: str
    model: Path | None = None
    requirements_file: Path | None = None
    extra: Sequence[str] = ()
    python: str | None = None
    with_pandas: bool = True
    allows_source: bool = False
    downloads_python: bool = False


def make_environment(
    order: EnvironmentOrder, settings: Settings, installer: Installer, say: Say, doing: Doing
) -> EnvironmentRecord:
    """Make an environment as ordered, and return its record. See `create_environment`.

    `say` is called with each decision, one line; `doing` with each step of the work. Raises EnvironmentRefused, and
    what `find_needs_of` raises for the model. Blocks for minutes.
    """
    directory = open_directory(settings.environments, settings.state.path)
    _require_usable(order, settings)
    require_free_name(directory, order.name)
    if settings.environments.path is None:  # made as the server would make it: what comes there later is private
        settings.state.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    needs = Needs()
    if order.model is not None:
        doing(f"looking at what '{order.model}' needs")
        needs = find_needs_of(order.model, settings).needs
        if not (needs.libraries or needs.modules or order.extra):
            raise EnvironmentRefused(
                f"nothing says what '{order.model}' needs: it runs where any model runs, or see --with"
            )
        say(f"the model needs {describe_needs(needs)}")
        if needs.environment not in (None, order.name):
            wanted = f"the model's manifest.json names the environment '{needs.environment}'"
            raise EnvironmentRefused(f"{wanted}: it would not run in '{order.name}'")
    installation, plan = _plan_installation(order, needs)
    doing("looking for a Python")
    python, why = _select_python(order, needs, plan.pins, installer, doing)
    say(f"{python}: {why}")
    for note in plan.notes:
        say(note)
    say(f"installing with {installer.name}: {_describe_installation(installation)}")

    def check(environment: Environment) -> None:
        _require_fit(needs, environment)
        check_environment(environment, settings, doing)

    record = create_environment(directory, order.name, python, installation, installer, check, doing)
    unused = [name for name in plan.left_out if name not in record.libraries]
    if unused:
        say(f"left out, because no module of the model belongs to them: {', '.join(unused)}")
    return record


def describe_needs(needs: Needs) -> str:
    """Say in one line what a model needs."""
    python = [f"Python {needs.python}"] if needs.python else []
    versions = [f"{name} {version}" for name, version in sorted(needs.libraries.items())]
    modules = f"the modules {', '.join(needs.modules)}" if needs.modules else ""
    return "; ".join(filter(None, (", ".join([*python, *versions]), modules)))


def _require_fit(needs: Needs, environment: Environment) -> None:
    """Raise EnvironmentRefused where what was installed is not what the model needs."""
    wrong = [
        f"{each} {environment.libraries.get(each, 'none')} instead of {needs.libraries[each]}"
        if each in needs.libraries
        else f"no {each}"
        for each in find_misfits(needs, environment)
    ]
    if wrong:
        raise EnvironmentRefused(f"what was installed does not fit the model: {', '.join(wrong)}; see --with")


def _require_usable(order: EnvironmentOrder, settings: Settings) -> None:
    if order.name in settings.environments.named:
        raise EnvironmentRefused(f"the settings name an environment '{order.name}'; choose another name")
    for each in order.extra:
        if each.startswith("-") or not each.strip():
            raise EnvironmentRefused(f"'{each}' is no requirement; --with takes one such as 'imbalanced-learn==0.11.0'")
    if order.requirements_file is not None and not order.requirements_file.is_file():
        raise EnvironmentRefused(f"'{order.requirements_file}' does not exist; --requirements takes a file")


def _plan_installation(order: EnvironmentOrder, needs: Needs) -> tuple[Installation, RequirementPlan]:
    """Return what is installed. The operator's own file of requirements is taken as it is."""
    if order.requirements_file is not None:
        pins = read_pins("requirements.txt", order.requirements_file.read_bytes()) | read_exact_versions(order.extra)
        plan = RequirementPlan(tuple(f"{name}=={version}" for name, version in pins.items()))
        return Installation(order.extra, (), order.requirements_file, order.allows_source), plan
    plan = plan_requirements(needs, order.extra, with_pandas=order.with_pandas)
    return Installation(plan.requirements, plan.constraints, None, order.allows_source), plan


def _select_python(
    order: EnvironmentOrder, needs: Needs, pins: dict[str, str], installer: Installer, doing: Doing
) -> tuple[Interpreter, str]:
    """Return the Python to make the environment with, and why it is this one."""
    found = list_interpreters(installer.uv)
    try:
        if order.python is not None:
            return find_requested(order.python, found), "as asked for"
        return choose_interpreter(found, needs.python, pins)
    except EnvironmentRefused:
        minors = list_minors(pins) if order.python is None else [order.python]
        if not order.downloads_python or not minors:
            raise
        own = to_minor(needs.python) if needs.python is not None else None
        minor = own if own in minors else minors[-1]
        doing(f"fetching Python {minor}")
        return installer.fetch_python(minor, doing), "fetched by uv"


def _describe_installation(installation: Installation) -> str:
    file = [] if installation.requirements_file is None else [f"all of '{installation.requirements_file}'"]
    wanted = ", ".join([*file, *installation.requirements])
    limits = f"; and if they need it: {', '.join(installation.constraints)}" if installation.constraints else ""
    return f"{wanted}{limits}"

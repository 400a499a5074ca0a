"""Lists, finds and removes environments for an operator, half-made ones included."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serving.domain.environment import SKLEARN, Environment
from serving.domain.environment_names import why_not_an_environment_name
from serving.domain.errors import EnvironmentRefused
from serving.environments.describing import describe_own_environment
from serving.environments.environment_directory import EnvironmentDirectory
from serving.environments.find_users import find_users
from serving.environments.inventory import Inventory, open_directory
from serving.settings import Settings


class EnvironmentState(StrEnum):
    """Whether hosts can run in an environment."""

    OK = "ok"
    PROBLEM = "problem"
    HALF_MADE = "half-made"
    BEING_MADE = "being made"
    HIDDEN = "hidden"


class EnvironmentRow(BaseModel):
    """One environment as it is listed.

    `origin` is ``server``, ``settings`` or ``created``. `size_bytes` is None for one that 'create' has not made.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    origin: str
    python: str
    python_version: str
    sklearn: str | None
    state: EnvironmentState
    problem: str | None = None
    size_bytes: int | None = None


def list_all(settings: Settings) -> list[EnvironmentRow]:
    """Return every environment, the server's own first. Blocks while new ones are described and sizes are counted."""
    directory = open_directory(settings.environments, settings.state.path)
    complete = Inventory(settings.environments, settings.state.path).list_environments()
    rows = [_make_row(each, directory, settings) for each in complete]
    usable = {each.name for each in rows if each.origin == "created"}
    rows += [_make_unused_row(name, directory, settings) for name in directory.list_names() if name not in usable]
    own = describe_own_environment()
    first = EnvironmentRow(
        name=own.name,
        origin="server",
        python=own.python,
        python_version=own.python_version,
        sklearn=own.libraries.get(SKLEARN),
        state=EnvironmentState.OK,
    )
    return [first, *sorted(rows, key=lambda each: each.name)]


def find_environment(name: str, settings: Settings) -> Environment:
    """Return a complete environment by its name; raises EnvironmentRefused. Blocks while it is described."""
    inventory = Inventory(settings.environments, settings.state.path)
    found = inventory.find(name)
    if found is not None:
        return found
    if name in inventory.directory.list_names():
        raise EnvironmentRefused(f"the environment '{name}' is half-made; {_say_what_to_do(name)}")
    raise EnvironmentRefused(f"there is no environment '{name}'; 'serving environment list' shows all")


def find_changes(environment: Environment, settings: Settings) -> list[str]:
    """Return what was installed or removed in a created environment by other means since it was made."""
    directory = open_directory(settings.environments, settings.state.path)
    if environment.name in settings.environments.named or not directory.is_complete(environment.name):
        return []
    then, now = directory.read_record(environment.name).libraries, environment.libraries
    return [
        f"{name}: {then.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def remove_environment(name: str, settings: Settings, *, force: bool) -> int:
    """Remove a created environment, or what is left of a creation; returns how many bytes it took. Blocks.

    From its first step on no server uses it. Raises EnvironmentRefused: it is one of the settings, there is none, it is
    being made, or processes run in it (not with `force`).
    """
    directory = open_directory(settings.environments, settings.state.path)
    path = directory.path / name
    is_made = why_not_an_environment_name(name) is None and path.is_dir()
    if name in settings.environments.named and not is_made:
        raise EnvironmentRefused(f"'{name}' is an environment of the settings: remove it there; its files stay")
    if not is_made:
        raise EnvironmentRefused(f"there is no environment '{name}' in '{directory.path}'")
    users = [] if force else find_users(path)
    if users:
        raise EnvironmentRefused(
            f"processes of a server run in '{name}' ({', '.join(map(str, users[:5]))}): its models would fail when "
            "they need a file of it. Remove these versions first, or give --force"
        )
    with directory.lock(name):
        directory.require_own(name)
        size = directory.count_bytes(name)
        directory.remove(name)
    return size


def _make_row(environment: Environment, directory: EnvironmentDirectory, settings: Settings) -> EnvironmentRow:
    is_named = environment.name in settings.environments.named
    return EnvironmentRow(
        name=environment.name,
        origin="settings" if is_named else "created",
        python=environment.python,
        python_version=environment.python_version,
        sklearn=environment.libraries.get(SKLEARN),
        state=EnvironmentState.OK if environment.problem is None else EnvironmentState.PROBLEM,
        problem=environment.problem,
        size_bytes=None if is_named else directory.count_bytes(environment.name),
    )


def _make_unused_row(name: str, directory: EnvironmentDirectory, settings: Settings) -> EnvironmentRow:
    problem = None
    if directory.is_busy(name):
        state = EnvironmentState.BEING_MADE
    elif name in settings.environments.named:
        state, problem = EnvironmentState.HIDDEN, "the settings name another environment so"
    elif directory.is_foreign(name):
        state, problem = EnvironmentState.PROBLEM, "'create' has not made it: move it away"
    else:
        state, problem = EnvironmentState.HALF_MADE, _say_what_to_do(name)
    return EnvironmentRow(
        name=name,
        origin="created",
        python=str(Path(directory.find_python(name)).absolute()),
        python_version="",
        sklearn=None,
        state=state,
        problem=problem,
        size_bytes=directory.count_bytes(name),
    )


def _say_what_to_do(name: str) -> str:
    return f"create it again, or remove what is left: serving environment remove {name}"

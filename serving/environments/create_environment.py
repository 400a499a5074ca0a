"""Makes an environment: a virtual environment with what a model needs, usable only when everything has succeeded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from serving.domain.environment import Environment
from serving.domain.environment_names import why_not_an_environment_name
from serving.domain.errors import EnvironmentRefused
from serving.environments.describing import describe_environment
from serving.environments.environment_directory import EnvironmentDirectory, EnvironmentRecord
from serving.environments.find_python import Interpreter
from serving.environments.installer import Doing, Installation, Installer

Check = Callable[[Environment], None]


def create_environment(
    directory: EnvironmentDirectory,
    name: str,
    python: Interpreter,
    installation: Installation,
    installer: Installer,
    check: Check,
    doing: Doing = lambda _: None,
) -> EnvironmentRecord:
    """Make an environment and return its record. `check` raises what is wrong with it before it is used.

    Whatever goes wrong, also Ctrl-C, nothing of it is left. If this process is killed, what is left is half-made: it
    is never used, and the next creation of this name removes it. Raises EnvironmentRefused: the name is taken, or it
    cannot be made; InstallationFailed with what the installer said last; OSError. Blocks for minutes.
    """
    require_free_name(directory, name)
    with directory.lock(name) as locked:
        if directory.is_complete(name):  # made since the look above
            require_free_name(directory, name)
        directory.require_own(name)
        try:
            directory.begin(name)
            doing(f"making a virtual environment with {python}")
            path = directory.path / name
            installer.make(path, python, doing, locked)
            installer.install(path, installation, doing, locked)
            doing("compiling it")
            installer.compile(path, doing, locked)
            doing("checking it")
            environment = describe_environment(name, directory.find_python(name))
            if environment.problem is not None:
                raise EnvironmentRefused(f"what was made cannot be used: {environment.problem}")
            check(environment)
            record = EnvironmentRecord(
                name=name,
                created_at=datetime.now(UTC),
                python_version=environment.python_version,
                installer=installer.name,
                requirements=tuple(installation.requirements),
                constraints=tuple(installation.constraints),
                libraries=dict(sorted(environment.libraries.items())),
            )
            directory.write_record(record)
        except BaseException:
            directory.remove(name)
            raise
    return record


def require_free_name(directory: EnvironmentDirectory, name: str) -> None:
    """Raise EnvironmentRefused unless an environment can be made under this name."""
    why = why_not_an_environment_name(name)
    if why is not None:
        raise EnvironmentRefused(f"{why}; choose another name")
    if directory.is_complete(name):
        raise EnvironmentRefused(
            f"the environment '{name}' exists already: choose another name, or remove it first "
            f"(serving environment remove {name})"
        )

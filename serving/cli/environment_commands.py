"""Commands for environments: create, list, check, remove."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.options import load_settings_with
from serving.cli.output import one_line, show, show_error, show_progress, show_table, silence_logs

if TYPE_CHECKING:
    from serving.domain.environment import Environment
    from serving.domain.report import CandidateReport

Name = Annotated[str, typer.Argument(metavar="NAME", help="The environment.")]
State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The server's state directory, where they are made.")
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]

NOTHING = "-"

commands = typer.Typer(
    help="Make and look after environments: Pythons of their own that models can run in.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@commands.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for it, such as sk13.")],
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            "--for", metavar="PATH", help="A model file, version or MLflow directory: installs what it needs."
        ),
    ] = None,
    requirements: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of requirements, given to the installer as it is.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="REQUIREMENT", help="Install this, too, or instead; repeat for more."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="A version such as 3.10, or a path; not given: one that fits the model."),
    ] = None,
    python_download: Annotated[
        bool, typer.Option("--python-download", help="Let uv download a Python if there is none that fits.")
    ] = False,
    allow_source: Annotated[
        bool, typer.Option("--allow-source", help="Also install packages without wheels: this runs their code now.")
    ] = False,
    no_pandas: Annotated[bool, typer.Option("--no-pandas", help="Install pandas only if the model needs it.")] = False,
    state: State = None,
) -> None:
    """Make an environment in which hosts can run.

    Give a model, a file of requirements, or single requirements. It is a virtual environment below environments.path,
    made with uv if that is installed, else with pip. It is used only if everything has succeeded, also the check.
    """
    if model is not None and requirements is not None:
        raise typer.BadParameter("give a model or a file of requirements, not both", param_hint="--for, --requirements")
    if model is None and requirements is None and not extra:
        raise typer.BadParameter(
            "say what to install: --for a model, --requirements or --with", param_hint="--for, --requirements, --with"
        )
    settings = load_settings_with(state=state)
    silence_logs()
    from serving.environments.installer import InstallationFailed, find_installer  # noqa: PLC0415  (not for --help)
    from serving.environments.inventory import open_directory  # noqa: PLC0415  (the same)
    from serving.offline.make_environment import EnvironmentOrder, make_environment  # noqa: PLC0415  (the same)

    order = EnvironmentOrder(
        name, model, requirements, extra or (), python, not no_pandas, allow_source, python_download
    )
    began = time.monotonic()
    try:
        with show_progress(f"creating {name}") as doing:
            record = make_environment(
                order, settings, find_installer(os.environ), lambda line: show(one_line(line)), doing
            )
    except InstallationFailed as error:
        for line in error.output:
            show_error(f"  {line}")
        raise
    directory = open_directory(settings.environments, settings.state.path)
    seconds = time.monotonic() - began
    size = directory.count_bytes(name) / (1 << 20)
    libraries = f"scikit-learn {record.libraries['scikit-learn']} and {len(record.libraries) - 1} more packages"
    show(f"created '{name}' in {seconds:.0f} s: Python {record.python_version}, {libraries}, {size:.0f} MB")
    show(f"it is in '{directory.path / name}'; a running server takes it up by itself")


@commands.command("list")
def list_command(*, state: State = None, as_json: Json = False) -> None:
    """List all environments, the server's own first."""
    settings = load_settings_with(state=state)
    silence_logs()
    from serving.offline.list_environments import list_all  # noqa: PLC0415  (not for --help)

    with show_progress("looking at the environments"):
        rows = list_all(settings)
    if as_json:
        show(json.dumps({"environments": [each.model_dump(mode="json") for each in rows]}, indent=2))
        return
    show_table(
        ["NAME", "FROM", "PYTHON", "SCIKIT-LEARN", "STATE", "MB", "WHERE"],
        [
            [
                each.name,
                each.origin,
                each.python_version or NOTHING,
                each.sklearn or NOTHING,
                each.state,
                NOTHING if each.size_bytes is None else f"{each.size_bytes / (1 << 20):.0f}",
                each.problem or each.python,
            ]
            for each in rows
        ],
    )


@commands.command()
def check(name: Name, *, state: State = None, as_json: Json = False) -> None:
    """Try out an environment.

    A small model is fitted there, and served by a host there as in a server.
    """
    settings = load_settings_with(state=state)
    silence_logs()
    from serving.offline.check_environment import check_environment  # noqa: PLC0415  (not for --help)
    from serving.offline.list_environments import find_changes, find_environment  # noqa: PLC0415  (the same)

    with show_progress(f"checking {name}") as doing:
        environment = find_environment(name, settings)
        report = check_environment(environment, settings, doing)
    changes = find_changes(environment, settings)
    if as_json:
        show(json.dumps(_describe_check(environment, report, changes), indent=2))
        return
    libraries = environment.libraries
    versions = ", ".join(
        f"{each} {libraries[each]}" for each in ("scikit-learn", "numpy", "pandas") if each in libraries
    )
    show(
        one_line(f"Python {environment.python_version}, {versions}; {len(libraries)} packages in {environment.python}")
    )
    for change in changes:
        show(one_line(f"changed since it was made: {change}"))
    show(one_line(f"sandbox: {report.sandbox}"))
    show("passed: a model that was fitted there passed every gate in a host there")


@commands.command()
def remove(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also while hosts of a server run in it.")] = False,
    state: State = None,
) -> None:
    """Remove an environment that 'create' has made.

    Models that run in it fail when their hosts end or need a file of it.
    """
    settings = load_settings_with(state=state)
    silence_logs()
    from serving.offline.list_environments import remove_environment  # noqa: PLC0415  (not for --help)

    size = remove_environment(name, settings, force=force)
    show(f"removed '{name}': {size / (1 << 20):.0f} MB")


def _describe_check(environment: Environment, report: CandidateReport, changes: list[str]) -> dict[str, Any]:
    return {
        "name": environment.name,
        "python": environment.python,
        "python_version": environment.python_version,
        "libraries": dict(environment.libraries),
        "changes": changes,
        "sandbox": report.sandbox.model_dump(mode="json"),
        "gates": [each.model_dump(mode="json") for each in report.gates],
    }

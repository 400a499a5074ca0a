"""Options that stand for settings, and a command whose help shows their present values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from serving.settings import Settings, SettingsError, load_settings

FLAGS = {
    "store": "store.path",
    "host": "server.host",
    "port": "server.port",
    "state": "state.path",
    "workers": "server.workers",
    "watch": "store.watch",
    "fail_fast": "server.fail_fast",
    "log_format": "log.format",
    "log_level": "log.level",
}
"""The parameter of a command, and the setting it stands for."""

Store = Annotated[Path | None, typer.Option("--store", metavar="DIR", help="The model directory.")]


def load_settings_with(file: Path | None = None, **flags: Any) -> Settings:
    """Load the settings, with the values of flags by parameter name; raises SettingsError."""
    return load_settings({FLAGS[name]: value for name, value in flags.items()}, file)


class SettingsCommand(TyperCommand):
    """A command whose ``--help`` shows the value that each setting has without its flag."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page. If the settings cannot be read, it shows why instead of their values."""
        try:
            settings = load_settings(file=ctx.params.get("settings"))
        except SettingsError as error:
            self.epilog = f"No defaults are shown: {str(error).splitlines()[0]}"
        else:
            for parameter in self.params:
                if (key := FLAGS.get(str(parameter.name))) and isinstance(parameter, typer.core.TyperOption):
                    group, _, name = key.partition(".")
                    parameter.help = (
                        f"{parameter.help}  [default: {_format_value(getattr(getattr(settings, group), name))}]"
                    )
        super().format_help(ctx, formatter)


def _format_value(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)

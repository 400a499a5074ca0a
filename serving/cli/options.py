"""The options that stand for settings, and a command whose help shows what they are right now."""

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
    "watch": "store.watch",
    "fail_fast": "server.fail_fast",
    "log_format": "log.format",
    "log_level": "log.level",
}
"""The parameter of a command, and the setting it stands for."""

Store = Annotated[Path | None, typer.Option("--store", metavar="DIR", help="The model directory.")]


def settings_with(file: Path | None = None, **flags: Any) -> Settings:
    """Load the settings with the values of flags by their parameter's name; raises SettingsError."""
    return load_settings({FLAGS[name]: value for name, value in flags.items()}, file)


class SettingsCommand(TyperCommand):
    """A command whose ``--help`` names the value each setting has when its flag is not given."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page. Settings that cannot be read are said so in place of their values."""
        try:
            settings = load_settings(file=ctx.params.get("settings"))
        except SettingsError as error:
            self.epilog = f"No defaults are shown: {str(error).splitlines()[0]}"
        else:
            for parameter in self.params:
                if (key := FLAGS.get(str(parameter.name))) and isinstance(parameter, typer.core.TyperOption):
                    group, _, name = key.partition(".")
                    parameter.help = f"{parameter.help}  [default: {_shown(getattr(getattr(settings, group), name))}]"
        super().format_help(ctx, formatter)


def _shown(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)

"""Commands that work on files: demo, publish, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import Store, settings_with


def demo(*, store: Store = None) -> None:
    """Train."""


def publish(*, store: Store = None) -> None:
    """Publish."""


def check(*, store: Store = None) -> None:
    """Check."""

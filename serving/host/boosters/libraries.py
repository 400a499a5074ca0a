"""Which of the optional libraries an object comes from, and how each is imported."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from serving.host.boosters.bare import BareBooster
from serving.host.model import LoadRefused

XGBOOST, LIGHTGBM = "xgboost", "lightgbm"
EXTRAS = (XGBOOST, LIGHTGBM)


def library_of(part: Any) -> str | None:
    """Return ``xgboost`` or ``lightgbm`` when the class of `part`, or its booster, comes from there, else None."""
    made = part.library_booster if isinstance(part, BareBooster) else part
    package = type(made).__module__.partition(".")[0]
    return package if package in EXTRAS else None


def explain_installation(library: str) -> str:
    """Say that a file needs `library`, and how to get it."""
    return f"the file needs {library}, which is not installed here: pip install 'serving[{library}]'"


def import_library(name: str) -> ModuleType:
    """Return the imported library; raises LoadRefused, with how to install it, where it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LoadRefused(explain_installation(name)) from None

"""Finds which optional library an object comes from, and imports these libraries."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from serving.host.boosters.bare import BareBooster
from serving.host.model import LoadRefused

XGBOOST, LIGHTGBM = "xgboost", "lightgbm"
EXTRAS = (XGBOOST, LIGHTGBM)


def library_of(part: Any) -> str | None:
    """Return ``xgboost`` or ``lightgbm`` if that library defines the class of `part` or of its booster, else None."""
    inner = part.library_booster if isinstance(part, BareBooster) else part
    package = type(inner).__module__.partition(".")[0]
    return package if package in EXTRAS else None


def explain_installation(library: str) -> str:
    """Return a sentence that a file needs `library`, and how to install it."""
    return f"the file needs {library}, which is not installed here: pip install 'serving[{library}]'"


def import_library(name: str) -> ModuleType:
    """Import a library; raises LoadRefused, which says how to install it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LoadRefused(explain_installation(name)) from None

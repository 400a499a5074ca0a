"""Lets an estimator be published where the server's packages are not installed: in the environment that trained it.

Imports only the standard library, because it runs before everything else here.
"""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache

from serving.host import enter

# what the gates and the settings are made of
_GATES = "serving.offline.gated_publishing"
_OLDEST_PYTHON = (3, 11)


def substitute_missing() -> None:
    """Put the substitutes of hosts in the places of the modules whose packages are missing here.

    Before Python 3.11, also add to the standard library what it lacks.
    """
    if sys.version_info < _OLDEST_PYTHON:
        enter.substitute_modules()
        return
    for name in enter.SUBSTITUTES:
        try:
            importlib.import_module(name)
        except ImportError:
            enter.substitute_module(name)


@lru_cache
def why_no_gates() -> str | None:
    """Say why neither the gates nor the settings can be had in this process; None where they can."""
    if sys.version_info < _OLDEST_PYTHON:
        return f"they need Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer"
    try:
        importlib.import_module(_GATES)
    except ImportError as error:
        return f"the package {error.name or error} is missing"
    return None

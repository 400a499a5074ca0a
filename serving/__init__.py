"""Serves the models in a directory over HTTP: drop a model file and it answers; drop a better one and it takes over."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.embed import Model, create_app, lifespan, model
    from serving.offline import publish
    from serving.settings import Settings

__version__ = "0.1.0"

__all__ = ["Model", "Settings", "__version__", "create_app", "lifespan", "model", "publish"]

_HOMES = {
    "create_app": "serving.embed",
    "lifespan": "serving.embed",
    "Model": "serving.embed",
    "model": "serving.embed",
    "publish": "serving.offline",
    "Settings": "serving.settings",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: a host process imports this package, too, and does not need FastAPI."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'serving' has no attribute '{name}'")

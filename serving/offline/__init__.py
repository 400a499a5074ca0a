"""Works without a server: publishes an estimator or a file, checks a file or a version, verifies a signed version."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serving.offline.missing_packages import substitute_missing

if TYPE_CHECKING:
    from serving.offline.file_publishing import publish_file
    from serving.offline.offline_evaluator import check, find_needs_of
    from serving.offline.publish_estimator import publish
    from serving.offline.verifying import verify
    from serving.store.publishing import Published

__all__ = ["Published", "check", "find_needs_of", "publish", "publish_file", "verify"]

_HOMES = {
    "Published": "serving.store.publishing",
    "check": "serving.offline.offline_evaluator",
    "find_needs_of": "serving.offline.offline_evaluator",
    "publish": "serving.offline.publish_estimator",
    "publish_file": "serving.offline.file_publishing",
    "verify": "serving.offline.verifying",
}

substitute_missing()


def __getattr__(name: str) -> Any:
    """Import these names on first use: where an estimator was trained, most of what they need is not installed."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'serving.offline' has no attribute '{name}'")

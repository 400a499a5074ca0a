"""What a path is, apart from predictions: who may read it, and what is only for operators."""

from __future__ import annotations

DOCS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
PAGES = DOCS - {"/openapi.json"}
METRICS = "/metrics"
NATIVE = "native"
# what the last part of a prediction's path ends in: the connection looks for it before anything else
PREDICTION_ENDS = ("/predict",)

_READING = ("GET", "HEAD")
_OF_MODEL = frozenset({"pin", "rollback", "history"})


def prediction_of(path: str) -> tuple[str, dict[str, str]] | None:
    """Return the dialect and the parameters of a prediction's path, None for any other path.

    One place for the router, the edge and the short way, which must agree.
    """
    last = path.rpartition("/")[2]
    if last == "predict":
        return _native(path.split("/"))
    return None


def _native(parts: list[str]) -> tuple[str, dict[str, str]] | None:
    match parts:
        case ["", "predict"]:
            return NATIVE, {}
        case ["", "models", model, "predict"] if model:
            return NATIVE, {"model": model}
        case ["", "models", model, "versions", version, "predict"] if model and version:
            return NATIVE, {"model": model, "version": version}
    return None


def path_of(full: str, root: str) -> str:
    """Return a path as the routes know it: without the mount point, without slashes at its end."""
    return full.removeprefix(root).rstrip("/") or "/"


def is_read(method: str, path: str) -> bool:
    """Say whether a request reads what the scope `read` is for: models, history, metrics, the documentation."""
    is_covered = path in DOCS or path in (METRICS, "/models") or path.startswith("/models/")
    return is_covered and method in _READING


def is_for_operators(path: str) -> bool:
    """Say whether a path belongs on the admin port alone: operator calls, history, metrics, the documentation."""
    match path.split("/"):
        case ["", "refresh" | "metrics"]:
            return True
        case ["", "models", _, last]:
            return last in _OF_MODEL
        case ["", "models", _, "versions", _, "release"]:
            return True
    return path in DOCS

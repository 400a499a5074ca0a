"""What a path is: a prediction of some protocol, a probe, a call that reads, or one for operators only."""

from __future__ import annotations

_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "start.js")
DOCS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", *(f"/docs/{name}" for name in _FILES)})
PAGES = DOCS - {"/openapi.json"}
PAGE, PAGE_FILES, PAGE_SESSION = "/ui", "/ui/", "/ui/session"
METRICS = "/metrics"
NATIVE = "native"
OPEN_INFERENCE = "open inference"
TENSORFLOW = {verb: f"tensorflow {verb}" for verb in ("predict", "classify", "regress")}
MLFLOW = "mlflow"
# the ends of the paths of predictions: the connection looks for them before anything else
PREDICTION_ENDS = ("/predict", "/infer", "/invocations", *(f":{verb}" for verb in TENSORFLOW))

_READING = ("GET", "HEAD")
_PROBES = (b"/health/live", b"/health/ready", b"/v2/health/live", b"/v2/health/ready", b"/health", b"/ping")
_READ = ("/", METRICS, "/events", "/history", "/models", "/v2", "/version", "/workers")
_OF_MODEL = frozenset({"pin", "rollback", "rollout", "history"})


def prediction_of(path: str) -> tuple[str, dict[str, str]] | None:
    """Return the dialect and the parameters of a prediction's path, None for any other path.

    The router, the edge and the short way all use this function, because they must agree.
    """
    last = path.rpartition("/")[2]
    if last == "predict":
        return _native(path.split("/"))
    if last == "infer":
        return _open_inference(path.split("/"))
    if last == "invocations":
        return _mlflow(path.split("/"))
    return _tensorflow(path) if ":" in last else None


def _native(parts: list[str]) -> tuple[str, dict[str, str]] | None:
    match parts:
        case ["", "predict"]:
            return NATIVE, {}
        case ["", "models", model, "predict"] if model:
            return NATIVE, {"model": model}
        case ["", "models", model, "versions", version, "predict"] if model and version:
            return NATIVE, {"model": model, "version": version}
        case ["", "models", model, "labels", label, "predict"] if model and label:
            return NATIVE, {"model": model, "label": label}
    return None


def _open_inference(parts: list[str]) -> tuple[str, dict[str, str]] | None:
    match parts:
        case ["", "v2", "models", model, "infer"] if model:
            return OPEN_INFERENCE, {"model": model}
        case ["", "v2", "models", model, "versions", version, "infer"] if model and version:
            return OPEN_INFERENCE, {"model": model, "version": version}
    return None


def _mlflow(parts: list[str]) -> tuple[str, dict[str, str]] | None:
    match parts:
        case ["", "invocations"]:
            return MLFLOW, {}
        case ["", "models", model, "invocations"] if model:
            return MLFLOW, {"model": model}
    return None


def _tensorflow(path: str) -> tuple[str, dict[str, str]] | None:
    place, _, verb = path.rpartition(":")
    dialect = TENSORFLOW.get(verb)
    if dialect is None:
        return None
    match place.split("/"):
        case ["", "v1", "models", model] if model:
            return dialect, {"model": model}
        case ["", "v1", "models", model, "versions", version] if model and version:
            return dialect, {"model": model, "version": version}
        case ["", "v1", "models", model, "labels", label] if model and label:
            return dialect, {"model": model, "label": label}
    return None


def protocol_of(path: str) -> str:
    """Return the dialect in which the clients of a path read errors."""
    found = prediction_of(path)
    if found is not None:
        return found[0]
    match path.split("/"):
        case ["", "v1", *_]:
            return TENSORFLOW["predict"]
        case ["", "v2", *_]:
            return OPEN_INFERENCE
        case ["", "ping" | "health" | "version"]:
            return MLFLOW
    return NATIVE


def path_of(full: str, root: str) -> str:
    """Return a path in the form of the routes: without the mount point, without slashes at its end."""
    return full.removeprefix(root).rstrip("/") or "/"


def is_read(method: str, path: str) -> bool:
    """Say whether a request needs the scope `read`: for models, history, metrics, the documentation."""
    is_covered = path in DOCS or path in _READ or path.startswith(("/models/", "/v1/models/", "/v2/models/"))
    return is_covered and method in _READING


def is_of_page(path: str) -> bool:
    """Say whether a path is the page, one of its files or its session; they need no token."""
    return path == PAGE or path.startswith(PAGE_FILES)


def is_probe(method: bytes, target: bytes) -> bool:
    """Say whether a request is a probe: probes are answered even when nothing else can be."""
    return method in (b"GET", b"HEAD") and target.rstrip(b"/") in _PROBES


def is_for_operators(method: str, path: str) -> bool:
    """Say whether a call belongs on the admin port only: what operators do and look at, and the documentation."""
    match path.split("/"):
        case ["", "refresh" | "accept-state-loss" | "metrics" | "events" | "history"]:
            return True
        case ["", "v2", "repository", *_]:
            return True
        case ["", "models", _, last]:
            return last in _OF_MODEL
        case ["", "models", _, "versions", _, "release"] | ["", "models", _, "labels", _]:
            return True
        case ["", "models", _, "versions", _]:
            return method not in _READING
    return path in DOCS or is_of_page(path)

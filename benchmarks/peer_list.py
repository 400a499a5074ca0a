"""The peers, each configured as its documentation recommends for one core."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sklearn import __version__ as sklearn_version

from benchmarks.peer_servers import AGAINST, INPUTS_BODY, OIP_BODY, ROWS_BODY, Peer, short_directory
from benchmarks.peers import free_port

SKLEARN = f"scikit-learn=={sklearn_version}"
UVLOOP = "uvloop==0.21.0"  # with newer ones the inference workers of MLServer 1.7.1 do not start
ADAPTIVE = {"max_batch_size": 64, "max_batch_time": 0.002}
Command = tuple[list[str], dict[str, str]]


def _mlserver(workers: int | None, batching: dict[str, float]) -> Peer:
    """MLServer with its default of one inference worker, or with `parallel_workers`; with adaptive batching or not."""
    how = ", adaptive batching 64 / 2 ms" if batching else ""
    inside = ", in one process" if workers == 0 else ""

    def command(binaries: Path, directory: Path, model: str, port: int) -> Command:
        repository = directory / "mlserver"
        shutil.rmtree(repository, ignore_errors=True)
        write_mlserver_settings(repository, port, workers)
        write_mlserver_model(repository, model, directory / f"{model}.joblib", **batching)
        return [str(binaries / "mlserver"), "start", str(repository)], {}

    return Peer(
        name=f"MLServer{inside}{how}",
        environment="mlserver",
        requirements=("mlserver==1.7.1", "mlserver-sklearn==1.7.1", UVLOOP, SKLEARN),
        command=command,
        path=lambda model: f"/v2/models/{model}/infer",
        body=OIP_BODY,
        label=lambda answer: answer["outputs"][0]["data"][0],
    )


def write_mlserver_settings(repository: Path, port: int, workers: int | None) -> None:
    """Write ``settings.json``: free ports, no debug logging, and so many inference workers, None for the default."""
    repository.mkdir(parents=True, exist_ok=True)
    ports = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    chosen = {} if workers is None else {"parallel_workers": workers}
    (repository / "settings.json").write_text(json.dumps({"debug": False, **ports, **chosen}))


def write_mlserver_model(repository: Path, name: str, file: Path, **more: float) -> None:
    """Write the ``model-settings.json`` of one model."""
    folder = repository / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": str(file)}}
    (folder / "model-settings.json").write_text(json.dumps({**settings, **more}))


def _litserve(binaries: Path, directory: Path, model: str, port: int) -> Command:
    file = directory / f"{model}.joblib"
    return [str(binaries / "python"), str(AGAINST / "litserve_server.py"), str(file), str(port)], {}


def _bentoml(binaries: Path, directory: Path, model: str, port: int) -> Command:
    home = {"BENTOML_HOME": str(directory / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [str(binaries / "bentoml"), "serve", "bentoml_service:Service", "--port", str(port)]
    return [*command, "--working-dir", str(AGAINST)], {**home, "MODEL": str(directory / f"{model}.joblib")}


def _mlflow(binaries: Path, directory: Path, model: str, port: int) -> Command:
    command = [str(binaries / "mlflow"), "models", "serve", "-m", str(directory / f"mlflow-{model}")]
    return [*command, "--env-manager", "local", "--port", str(port), "--workers", "1"], {}


def _ray(binaries: Path, directory: Path, model: str, port: int) -> Command:
    file = directory / f"{model}.joblib"
    command = [str(binaries / "python"), str(AGAINST / "ray_server.py"), str(file), str(port)]
    return [*command, str(short_directory(port))], {"RAY_USAGE_STATS_ENABLED": "0"}


MLSERVER = (_mlserver(None, {}), _mlserver(0, {}))
MLSERVER_ADAPTIVE = (_mlserver(None, ADAPTIVE), _mlserver(0, ADAPTIVE))
OTHERS = (
    Peer(
        name="LitServe",
        environment="litserve",
        requirements=("litserve==0.2.19", SKLEARN),
        command=_litserve,
        path=lambda _: "/predict",
        body=ROWS_BODY,
        label=lambda answer: answer["predictions"][0],
    ),
    Peer(
        name="BentoML",
        environment="bentoml",
        requirements=("bentoml==1.4.39", SKLEARN),
        command=_bentoml,
        path=lambda _: "/predict",
        body=ROWS_BODY,
        label=lambda answer: answer[0],
    ),
    Peer(
        name="MLflow",
        environment="mlflow",
        requirements=("mlflow==3.17.2", SKLEARN),
        command=_mlflow,
        path=lambda _: "/invocations",
        body=INPUTS_BODY,
        label=lambda answer: answer["predictions"][0],
        training=("--mlflow",),
    ),
    Peer(
        name="Ray Serve",
        environment="ray",
        requirements=("ray[serve]==2.60.0", SKLEARN),
        command=_ray,
        path=lambda _: "/predict",
        body=ROWS_BODY,
        label=lambda answer: answer["predictions"][0],
    ),
)

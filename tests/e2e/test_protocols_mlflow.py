"""MLflow's own client, and what SageMaker does, through swaps."""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version

SWAPS = 2


def test_mlflows_client_and_sagemaker_see_versions_only_go_up_through_swaps(tmp_path: Path) -> None:
    scoring = pytest.importorskip("mlflow.pyfunc.scoring_server.client")
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path, wait_ready=True) as server:
        address = urlsplit(server.url)
        client = scoring.ScoringServerClient(address.hostname, address.port)
        client.ping()
        assert client.get_version()
        frame = pd.DataFrame({"left": [0.0, 1.0], "right": [2.0, 3.0]})
        seen: list[float] = []
        stopping = threading.Event()

        def ask() -> None:
            while not stopping.is_set():
                for rows in (frame, frame.to_numpy()):
                    answer = client.invoke(rows, params={"method": "predict"}).get_predictions()
                    seen.extend(answer.iloc[:, 0])

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            until(lambda: seen, "an answer of version 1")
            for version in range(2, SWAPS + 2):
                server.drop("m", version, constant(version))
                until(lambda version=version: seen[-1] == float(version), f"an answer of version {version}")
        finally:
            stopping.set()
            asking.join(30)
        last = client.invoke(frame).get_predictions().iloc[:, 0]
        _ask_as_sagemaker(server, SWAPS + 1)
    assert seen == sorted(seen)  # one failed call would have ended the thread
    assert set(last) == {float(SWAPS + 1)}
    assert set(seen) == {float(version) for version in range(1, SWAPS + 2)}


def _ask_as_sagemaker(server: Server, version: int) -> None:
    assert _curl(server, "/ping") == b"\n"
    csv = _curl(server, "/invocations", "0,0\n1,1\n", "Content-Type: text/csv", "Accept: text/csv")
    assert csv.split() == [b"predict", *[b"%d.0" % version] * 2]
    file = io.BytesIO()
    np.save(file, np.zeros((3, 2)))
    head = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    answer = server.client.post(server.url + "/invocations", content=file.getvalue(), headers=head)
    assert np.load(io.BytesIO(answer.content), allow_pickle=False).tolist() == [float(version)] * 3
    assert answer.headers["x-model-version"] == str(version)


def _curl(server: Server, path: str, body: str | None = None, *headers: str) -> bytes:
    command = shutil.which("curl")
    if command is None:
        pytest.skip("curl is not installed")
    options = [f"-H{header}" for header in headers] + ([] if body is None else ["--data-binary", body])
    return subprocess.run([command, "-sSf", *options, server.url + path], check=True, capture_output=True).stdout

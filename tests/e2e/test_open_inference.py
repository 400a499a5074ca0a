"""The clients people have for the Open Inference Protocol, against a real server, and through swaps."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
import tritonclient.http.aio as triton_aio  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # type: ignore[import-untyped]

from tests.e2e.harness import TOKEN, Server, constant, serving, until, write_version
from tests.e2e.record import Record, Reply

ADMIN = {"Authorization": f"Bearer {TOKEN}"}
VERSIONS = 5
KSERVE = Path(sys.prefix) / "kserve" / "bin" / "python"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("open-inference")
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0] * 5, "town": ["a", "ä", "a", "b"] * 5, "new": [True, False] * 10})
    columns = make_column_transformer((OneHotEncoder(), ["town", "new"]), remainder="passthrough")
    labels = np.array(["yes", "nö"] * 10)
    write_version(directory / "store" / "mixed", 1, make_pipeline(columns, LogisticRegression()).fit(frame, labels))
    rows = np.random.default_rng(0).normal(size=(60, 4))
    write_version(directory / "store" / "numbers", 1, LogisticRegression().fit(rows, np.arange(60) % 3))
    write_version(directory / "store" / "swapped", 1, constant(1))
    with serving(directory, wait_ready=True) as server:
        yield server


@pytest.fixture
def client(live: Server) -> Iterator[Any]:
    with contextlib.closing(triton.InferenceServerClient(urlsplit(live.url).netloc)) as client:
        yield client


def tensor(name: str, values: NDArray[Any], *, is_binary: bool, kind: Any = triton.InferInput) -> Any:
    found = kind(name, list(values.shape), np_to_triton_dtype(values.dtype))
    found.set_data_from_numpy(values, binary_data=is_binary)
    return found


def outputs(*names: str, is_binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=is_binary) for name in names]


@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_numbers_and_probabilities_in_one_request(client: Any, live: Server, is_binary: bool, compression: Any) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    asked = outputs("predict", "predict_proba", is_binary=is_binary)
    found = client.infer(
        "numbers",
        [tensor("rows", rows, is_binary=is_binary)],
        outputs=asked,
        request_id="mine",
        request_compression_algorithm=compression,
    )
    native = live.client.post(
        live.url + "/models/numbers/predict", json={"instances": rows.tolist(), "method": "predict_proba"}
    ).json()
    assert np.array_equal(found.as_numpy("predict_proba"), native["predictions"])
    assert np.array_equal(found.as_numpy("predict"), np.argmax(native["predictions"], axis=1))
    assert (found.get_response()["id"], found.get_response()["model_version"]) == ("mine", "1")


@pytest.mark.parametrize("is_binary", [False, True])
def test_texts_and_bools_go_in_and_labels_come_out(client: Any, is_binary: bool) -> None:
    inputs = [
        tensor("town", np.array([["a"], ["ä"]], dtype=object), is_binary=is_binary),
        tensor("new", np.array([[True], [False]]), is_binary=is_binary),
        tensor("age", np.array([[1.0], [2.0]]), is_binary=is_binary),
    ]
    found = client.infer("mixed", inputs, outputs=outputs("predict", is_binary=is_binary)).as_numpy("predict")
    assert [text.decode() if isinstance(text, bytes) else text for text in found] == ["yes", "nö"]


def test_a_client_finds_out_what_there_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("numbers")
    assert client.is_model_ready("numbers", "1")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("mixed")
    assert [(one["name"], one["datatype"]) for one in metadata["inputs"]] == [
        *(("age", "FP64"), ("town", "BYTES"), ("new", "BOOL"))
    ]
    assert metadata["outputs"][0] == {"name": "predict", "datatype": "BYTES", "shape": [-1]}
    with pytest.raises(InferenceServerException, match="no model named 'nothing'"):
        client.get_model_metadata("nothing")


def test_statistics_grow(client: Any) -> None:
    def count() -> int:
        (stats,) = client.get_inference_statistics("numbers", "1")["model_stats"]
        return int(stats["inference_stats"]["success"]["count"])

    before = count()
    client.infer("numbers", [tensor("rows", np.zeros((1, 4)), is_binary=True)])
    assert count() == before + 1


def test_errors_reach_a_client_as_what_it_raises(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="row 0 has 3 values, the model takes 4") as refused:
        client.infer("numbers", [tensor("rows", np.zeros((1, 3)), is_binary=True)])
    assert refused.value.status() == "400"


def test_an_operator_loads_and_is_told_why_not(client: Any, live: Server) -> None:
    live.drop("loaded", 1, constant(1))
    live.wait_active("loaded", 1)
    live.drop("loaded", 2, constant(2))
    client.load_model("loaded", headers=ADMIN)
    index = {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index(headers=ADMIN)}
    assert index["loaded", "1"] == "READY"
    (live.directory / "9").mkdir()
    (live.directory / "9" / "model.joblib").write_bytes(b"nothing of the sort")
    (live.directory / "9").rename(live.store / "loaded" / "9")
    live.wait_state("loaded", 9, "REJECTED")
    with pytest.raises(InferenceServerException, match="version '9' is REJECTED"):
        client.load_model("loaded", headers=ADMIN)
    with pytest.raises(InferenceServerException, match="Bearer"):
        client.load_model("loaded")


def reply(number: int, sent_at: float, found: Any, client: str) -> Reply:
    version, value = found.get_response()["model_version"], found.as_numpy("predict").item()
    return Reply(number, sent_at, time.perf_counter() - sent_at, 200, version, value, client=client)


def ask_synchronously(netloc: str, record: Record, is_over: Callable[[], bool], *, is_binary: bool) -> None:
    with contextlib.closing(triton.InferenceServerClient(netloc)) as client:
        while not is_over():
            sent_at = time.perf_counter()
            inputs = [tensor("rows", np.zeros((1, 2)), is_binary=is_binary)]
            found = client.infer("swapped", inputs, outputs=outputs("predict", is_binary=is_binary))
            record.add(reply(0, sent_at, found, f"sync, binary: {is_binary}"))


async def ask_asynchronously(netloc: str, record: Record, is_over: Callable[[], bool]) -> None:
    async with triton_aio.InferenceServerClient(netloc) as client:

        async def one(number: int) -> None:
            while not is_over():
                sent_at = time.perf_counter()
                inputs = [tensor("rows", np.zeros((1, 2)), is_binary=number % 2 == 0, kind=triton_aio.InferInput)]
                record.add(reply(number, sent_at, await client.infer("swapped", inputs), "asyncio"))

        # one connection may be taken by another coroutine for its next request: each is a client of its own
        await asyncio.gather(*map(one, range(4)))


def test_clients_that_ask_all_the_time_notice_no_swap(live: Server) -> None:
    record, netloc = Record(), urlsplit(live.url).netloc
    is_over = threading.Event()
    failures: list[BaseException] = []

    def guarded(ask: Callable[[], None]) -> None:
        try:
            ask()
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    asks: list[Callable[[], None]] = [
        lambda: ask_synchronously(netloc, record, is_over.is_set, is_binary=False),
        lambda: ask_synchronously(netloc, record, is_over.is_set, is_binary=True),
        lambda: asyncio.run(ask_asynchronously(netloc, record, is_over.is_set)),
    ]
    threads = [threading.Thread(target=guarded, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    try:
        for version in range(1, VERSIONS + 1):
            if version > 1:
                live.drop("swapped", version, constant(version))
            until(
                lambda version=version: failures or record.last_versions() == {str(version)},
                f"answers of version {version}",
            )
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures
    record.verify()
    assert {one.version for one in record.replies} == {str(version) for version in range(1, VERSIONS + 1)}


@pytest.mark.skipif(not KSERVE.exists(), reason="'make clients' installs KServe's client, whose pins are not ours")
def test_the_kserve_client_sees_versions_only_go_up(live: Server) -> None:
    live.drop("followed", 1, constant(1))
    live.wait_active("followed", 1)
    script = Path(__file__).with_name("kserve_client.py")
    command = [KSERVE, script, live.url, "followed", str(VERSIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        seen = [asking.stdout.readline()]
        for version in range(2, VERSIONS + 1):
            live.drop("followed", version, constant(version))
            live.wait_active("followed", version)
        seen += asking.stdout.readlines()
        assert asking.wait() == 0, asking.stderr.read()
    values = [float(line) for line in seen]
    assert values == sorted(values)
    assert {values[0], values[-1]} == {1.0, float(VERSIONS)}

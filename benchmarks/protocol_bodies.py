"""One matrix of float64 as a request of every protocol and form, ready to be sent again and again."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.wire import END_OF_HEAD, request_bytes

NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"


def native(model: str, array: NDArray[np.float64]) -> bytes:
    """Return the native JSON."""
    return request_bytes(f"/models/{model}/predict", json.dumps({"instances": array.tolist()}).encode())


def npy(model: str, array: NDArray[np.float64]) -> bytes:
    """Return an array, to be answered with one."""
    file = io.BytesIO()
    np.save(file, array)
    return _request(f"/models/{model}/predict", file.getvalue(), f"Content-Type: {NPY}", f"Accept: {NPY}")


def arrow(model: str, array: NDArray[np.float64]) -> bytes:
    """Return an Arrow stream of one batch, to be answered with one; raises ImportError without pyarrow."""
    import pyarrow as pa

    sink = io.BytesIO()
    table = pa.table({f"x{place}": np.ascontiguousarray(column) for place, column in enumerate(array.T)})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return _request(f"/models/{model}/predict", sink.getvalue(), f"Content-Type: {ARROW}", f"Accept: {ARROW}")


def open_inference(path: str, array: NDArray[np.float64]) -> bytes:
    """Return the Open Inference Protocol's JSON."""
    tensor = _tensor(array) | {"data": array.ravel().tolist()}
    return request_bytes(path, json.dumps({"inputs": [tensor]}).encode())


def binary(path: str, array: NDArray[np.float64]) -> bytes:
    """Return the same with binary tensors, in both directions."""
    tensor = _tensor(array) | {"parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = ("Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(head)}")
    return _request(path, head + array.tobytes(), *lines)


def grpc(model: str, array: NDArray[np.float64]) -> bytes:
    """Return the Open Inference Protocol's message with raw contents; raises ImportError without Triton's client."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    request.inputs.add(name="predict", datatype="FP64", shape=array.shape)
    message: bytes = request.SerializeToString()
    return message


def _tensor(array: NDArray[np.float64]) -> dict[str, Any]:
    return {"name": "predict", "shape": list(array.shape), "datatype": "FP64"}


def _request(path: str, body: bytes, *lines: str) -> bytes:
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, f"Content-Length: {len(body)}"))
    return head.encode() + END_OF_HEAD + body

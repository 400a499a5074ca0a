"""The same work without a server: ``python -m benchmarks.in_process``, started by `loop` and `alone` on one core.

The loop is what the fastest honest program would do with a body: orjson parses it, NumPy makes an array, the model
predicts, orjson writes the labels. For ``onnx`` the model is a graph skl2onnx makes, computed by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson

from benchmarks.cores import on_cores
from benchmarks.percentiles import median

ENGINES = ("sklearn", "onnx")
Rows = list[list[Any]]


def loop(model: Path, body: Path, engine: str, *, seconds: float, cores: Iterable[int]) -> float:
    """Return how many bodies a second the loop gets through. Blocks."""
    return _measure("loop", model, body, engine, seconds, cores)


def alone(model: Path, body: Path, *, seconds: float, cores: Iterable[int]) -> float:
    """Return the median milliseconds scikit-learn's `predict` takes by itself for the rows of a body. Blocks."""
    return _measure("predict", model, body, "sklearn", seconds, cores)


def _measure(what: str, model: Path, body: Path, engine: str, seconds: float, cores: Iterable[int]) -> float:
    command = [sys.executable, "-m", "benchmarks.in_process", what, str(model), str(body), engine, f"{seconds:g}"]
    with on_cores(cores):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said)


# --- the process -----------------------------------------------------------------------------------------------------


def _sklearn(estimator: Any) -> tuple[Callable[[Rows], Any], Callable[[Any], Any]]:
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return np.array, estimator.predict
    import pandas as pd

    return lambda rows: pd.DataFrame(rows, columns=names), estimator.predict


def _onnx(estimator: Any) -> tuple[Callable[[Rows], Any], Callable[[Any], Any]]:
    import onnxruntime
    from skl2onnx import to_onnx

    graph = to_onnx(estimator, np.zeros((1, estimator.n_features_in_), np.float32), options={"zipmap": False})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs, name = [session.get_outputs()[0].name], session.get_inputs()[0].name
    return lambda rows: np.array(rows, np.float32), lambda batch: session.run(outputs, {name: batch})[0]


def _median_ms(work: Callable[[], object], seconds: float) -> float:
    took: list[float] = []
    ends_at = time.perf_counter() + seconds
    while (now := time.perf_counter()) < ends_at or not took:
        work()
        took.append(time.perf_counter() - now)
    return median(took) * 1000


def _per_second(work: Callable[[], object], seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() < began + seconds or not count:
        work()
        count += 1
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure as the command line says and print the number."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("loop", "predict"))
    parser.add_argument("model", type=Path)
    parser.add_argument("body", type=Path)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    estimator, body = joblib.load(options.model), options.body.read_bytes()
    to_batch, predict = (_onnx if options.engine == "onnx" else _sklearn)(estimator)
    batch = to_batch(orjson.loads(body)["instances"])

    def answer() -> bytes:
        rows = orjson.loads(body)["instances"]
        return orjson.dumps({"predictions": predict(to_batch(rows)).tolist()})

    answer()
    if options.what == "loop":
        print(_per_second(answer, options.seconds))
    else:
        print(_median_ms(lambda: predict(batch), options.seconds))


if __name__ == "__main__":
    main()

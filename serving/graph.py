"""A compiled graph in this process: rows in, answers out, computed by onnxruntime on one thread.

The host proves a graph with exactly this code and the server serves it with exactly this code. Importing this module
imports onnxruntime, which starts a thread: never in the zygote.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

# read once, by the import: from 1.29 on it would keep a database of the models it opens, and send it away
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from serving.domain.batch import Batch, Prediction, Tensor
from serving.domain.compiled import COLUMN_PREFIX, MATRIX_INPUT, NULL_TEXT, Graph
from serving.domain.errors import ModelFailed
from serving.domain.signature import Method

# a forest of many classes takes 16 bytes for each row, tree and class while it adds them up
MOST_ROWS = 4096

_FATAL_ONLY = 4


class GraphSession:
    """One graph, ready to answer the methods in `methods`. Any thread, several at once; `answer` releases the GIL.

    Making one blocks (0.3 s for a million tree nodes) and releases the GIL while it does. Raises ModelFailed when
    onnxruntime does not take the graph.
    """

    def __init__(self, graph: Graph) -> None:
        try:
            session = open_session(bytes(graph.content))
        except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
            raise ModelFailed(f"onnxruntime does not take the graph: {type(error).__name__}") from None
        self.methods: tuple[Method, ...] = tuple(graph.outputs)
        self._outputs = {method: list(names) for method, names in graph.outputs.items()}
        self._numbers = number_inputs(session)
        self._session = session
        self._run = session._sess.run  # what session.run calls after looking at names that are known here
        self._options = onnxruntime.RunOptions()  # without one, each run makes its own: 0.7 us

    def answer(self, method: Method, batch: Batch) -> Prediction:
        """Answer one batch laid out by the signature; blocks for as long as the computation takes."""
        if batch.rows > MOST_ROWS:
            parts = [self.answer(method, _slice(batch, start)) for start in range(0, batch.rows, MOST_ROWS)]
            return Prediction(tuple(map(_joined, zip(*(part.tensors for part in parts), strict=True))))
        matrix = batch.matrix
        feed = {MATRIX_INPUT: matrix} if matrix is not None else feed_of(batch, self._numbers)
        try:
            outputs = self._run(self._outputs[method], feed, self._options)
        except Exception as error:  # noqa: BLE001
            raise ModelFailed(f"the compiled form failed: {type(error).__name__}") from None
        return Prediction(tuple([_tensor(output) for output in outputs]))


def open_session(content: bytes, *, is_optimized: bool = True) -> Any:
    """Return an onnxruntime session that computes on one thread; raises what onnxruntime raises. Blocks."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.enable_cpu_mem_arena = False  # of no use to small inputs, and 1,000 sessions would have 1,000 arenas
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def number_inputs(session: Any) -> frozenset[str]:
    """Return the names of the inputs that take float64."""
    return frozenset(each.name for each in session.get_inputs() if each.type == "tensor(double)")


def _slice(batch: Batch, start: int) -> Batch:
    """Return at most `MOST_ROWS` rows from `start` on; arrays are views."""
    end = min(start + MOST_ROWS, batch.rows)
    if batch.matrix is not None:
        return Batch(end - start, matrix=batch.matrix[start:end])
    return Batch(end - start, columns=tuple(column[start:end] for column in batch.columns or ()))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    arrays = [tensor for tensor in tensors if isinstance(tensor, np.ndarray)]
    return np.concatenate(arrays) if arrays else [label for tensor in tensors for label in tensor]


def feed_of(batch: Batch, numbers: Container[str]) -> dict[str, Any]:
    """Return a batch as the inputs of a graph whose `numbers` take float64; see `serving.domain.compiled`."""
    if batch.matrix is not None:
        return {MATRIX_INPUT: batch.matrix}
    feed = {}
    for index, cells in enumerate(batch.columns or ()):
        name = f"{COLUMN_PREFIX}{index}"
        if name in numbers:  # bools that may be null, too, which come as bools or as a list
            block: Any = np.asarray(cells, dtype=np.float64).reshape(-1, 1)
        elif isinstance(cells, np.ndarray):
            block = cells.reshape(-1, 1)
        else:
            block = np.empty((len(cells), 1), dtype=object)
            block[:, 0] = [NULL_TEXT if cell is None else cell for cell in cells]
        feed[name] = block
    return feed


def _tensor(output: Any) -> Tensor:
    return output.tolist() if output.dtype.kind in "OU" else output  # type: ignore[no-any-return]

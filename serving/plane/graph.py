"""Run a compiled graph in this process: rows in, answers out, computed by onnxruntime on one thread.

The host proves a graph with exactly this code, and the server serves it with exactly this code. Importing this module
imports onnxruntime, which starts a thread, so the zygote must never import it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from serving.allocator import return_freed_memory
from serving.domain.compiled_form import COLUMN_PREFIX, MATRIX_INPUT, MOST_ROWS, NULL_TEXT, Graph
from serving.domain.errors import ModelFailed
from serving.domain.signature import Method
from serving.rows.batch import Batch, Prediction, Tensor
from serving.silence import load_onnxruntime

onnxruntime = load_onnxruntime()

_FATAL_ONLY = 4
LARGE_BYTES = 128 << 10


class GraphSession:
    """One graph, ready to answer the methods in `methods`. Any thread, several at once; `answer` releases the GIL.

    No run has more than `most_rows` rows. The constructor blocks (0.3 s for a million tree nodes) and releases the GIL
    meanwhile. It raises ModelFailed when onnxruntime does not accept the graph.
    """

    def __init__(self, graph: Graph, most_rows: int = MOST_ROWS) -> None:
        try:
            session = open_session(bytes(graph.content))
        except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
            raise ModelFailed(f"onnxruntime does not take the graph: {type(error).__name__}") from None
        self.methods: tuple[Method, ...] = tuple(graph.outputs)
        self._outputs = {method: list(names) for method, names in graph.outputs.items()}
        self._numbers = list_number_inputs(session)
        self._most_rows = most_rows
        # session.run calls this after it has checked names that are known here; the session itself keeps the bytes
        self._run = session._sess.run
        if len(graph.content) >= LARGE_BYTES:
            del session
            return_freed_memory()
        self._options = onnxruntime.RunOptions()  # without one, each run makes its own: 0.7 us

    def answer(self, method: Method, batch: Batch) -> Prediction:
        """Answer one batch in the layout of the signature; blocks during the computation."""
        if batch.rows > self._most_rows:
            return self.answer_pieces(method, batch, self._most_rows).finish()
        matrix = batch.matrix
        feed = {MATRIX_INPUT: matrix} if matrix is not None else make_feed(batch, self._numbers)
        try:
            outputs = self._run(self._outputs[method], feed, self._options)
        except Exception as error:  # noqa: BLE001
            raise ModelFailed(f"the compiled form failed: {type(error).__name__}") from None
        return Prediction(tuple([_make_tensor(output) for output in outputs]))

    def answer_pieces(self, method: Method, batch: Batch, rows: int) -> PiecewiseAnswer:
        """Return the answer to one batch as work in runs of `rows` rows; none of them has run yet."""
        return PiecewiseAnswer(self, method, batch, min(rows, self._most_rows))


class PiecewiseAnswer:
    """The unfinished answer to one batch: each `step` runs one piece. One thread at a time."""

    def __init__(self, session: GraphSession, method: Method, batch: Batch, rows: int) -> None:
        self._session, self._method, self._batch, self._rows = session, method, batch, rows
        self._done = 0
        self._tensors: list[Tensor] = []

    @property
    def prediction(self) -> Prediction:
        """The whole answer, when every piece is done."""
        return Prediction(tuple(self._tensors))

    def step(self) -> bool:
        """Run the next piece; returns whether it was the last. Blocks; raises ModelFailed."""
        start, end = self._done, min(self._done + self._rows, self._batch.rows)
        part = self._session.answer(self._method, _cut_rows(self._batch, start, end)).tensors
        if start == 0:
            is_whole = end == self._batch.rows
            self._tensors = list(part) if is_whole else [_allocate_like(tensor, self._batch.rows) for tensor in part]
        if not (start == 0 and end == self._batch.rows):
            for whole, tensor in zip(self._tensors, part, strict=True):
                whole[start:end] = tensor
        self._done = end
        return end == self._batch.rows

    def finish(self) -> Prediction:
        """Run all pieces that are left and return the whole answer."""
        while not self.step():
            pass
        return self.prediction


def open_session(content: bytes, *, is_optimized: bool = True) -> Any:
    """Return an onnxruntime session that computes on one thread; raises what onnxruntime raises. Blocks."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.enable_cpu_mem_arena = False  # small inputs do not need it, and 1,000 sessions would have 1,000 arenas
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def list_number_inputs(session: Any) -> frozenset[str]:
    """Return the names of the inputs that take float64."""
    return frozenset(each.name for each in session.get_inputs() if each.type == "tensor(double)")


def _cut_rows(batch: Batch, start: int, end: int) -> Batch:
    """Return the rows from `start` to `end`; arrays are views."""
    if start == 0 and end == batch.rows:
        return batch
    if batch.matrix is not None:
        return Batch(end - start, matrix=batch.matrix[start:end])
    return Batch(end - start, columns=tuple(column[start:end] for column in batch.columns or ()))


def _allocate_like(tensor: Tensor, rows: int) -> Tensor:
    """Return an uninitialised tensor like the first piece of an answer, with room for `rows` rows."""
    if isinstance(tensor, np.ndarray):
        return np.empty((rows, *tensor.shape[1:]), tensor.dtype)
    return [None] * rows


def make_feed(batch: Batch, numbers: Container[str]) -> dict[str, Any]:
    """Return a batch as the inputs of a graph whose `numbers` take float64; see `serving.domain.compiled_form`."""
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


def _make_tensor(output: Any) -> Tensor:
    return output.tolist() if output.dtype.kind in "OU" else output  # type: ignore[no-any-return]

"""A loaded model that is an ONNX graph, computed by onnxruntime on one thread of the CPU.

Reads the graphs of skl2onnx and similar converters: one input (rows, features) or one input for each column. The
meaning of the outputs is found by running the graph (`serving.host.onnx_outputs`). Which features take null cannot be
found that way, because a graph gives some answer to NaN too: only the publisher can declare it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Container, Dtype, Feature, ModelKind, Signature
from serving.host.input_columns import InputColumn
from serving.host.model import LoadRefused, describe_exception, one_line
from serving.host.onnx_outputs import (
    AnswerForm,
    FoundOutputs,
    GraphOutput,
    MethodOutput,
    find_methods,
    use_predict_only,
)
from serving.host.onnx_session import onnxruntime, open_session
from serving.host.output_tensors import to_prediction
from serving.host.synthetic_rows import make_batch
from serving.rows.batch import Batch, Prediction
from serving.rows.integers import find_rounded
from serving.wire.compatibility import find_disagreements

InvalidArgument = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument

_DTYPES: dict[str, tuple[Any, Dtype]] = {
    "tensor(float)": (np.float32, Dtype.NUMBER),
    "tensor(double)": (np.float64, Dtype.NUMBER),
    "tensor(float16)": (np.float16, Dtype.NUMBER),
    "tensor(int64)": (np.int64, Dtype.NUMBER),
    "tensor(int32)": (np.int32, Dtype.NUMBER),
    "tensor(bool)": (np.bool_, Dtype.BOOL),
    "tensor(string)": (np.object_, Dtype.STRING),
}

# rows to find the meaning of outputs with: ordinary made-up rows, and rows far from these, with other labels and signs
_PLAIN_ROWS, _FAR_ROWS = 8, 24
_FARTHEST = 100.0
_SEED = 20_261_129
_CLASS_ATTRIBUTES = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input of the graph: its NumPy dtype, the dtype of its features, and their number."""

    name: str
    dtype: Any
    signature_dtype: Dtype
    width: int
    is_flat: bool  # of shape (rows,) and not (rows, 1)


class OnnxModel:
    """Answers with one inference session of the file at `path`."""

    name = "ONNX model"
    engine = "onnx"

    def __init__(
        self,
        path: str,
        session: Any,
        inputs: Sequence[GraphInput],
        signature: Signature,
        found: FoundOutputs | None = None,
    ) -> None:
        self.outputs = [GraphOutput(each.name, each.type, each.shape) for each in session.get_outputs()]
        found = found or use_predict_only(self.outputs)
        self._answers = {str(method): answer for method, answer in found.answers.items()}
        self.left_out = found.left_out
        self.trained_with: Mapping[str, str] = {}
        self.path = path
        self.signature = signature
        self.inputs = inputs
        wide = [each for each in inputs for _ in range(each.width)]
        self.columns: Sequence[InputColumn] = [_make_column(each, place) for place, each in enumerate(wide)]
        self._session = session

    def answer(self, method: str, batch: Batch) -> Prediction:
        """Answer one batch; see `LoadedModel.answer`."""
        if method not in self.signature.methods:
            raise InvalidInput(f"offers {', '.join(self.signature.methods)}; not {method}")
        how = self.find_answer(method)
        return to_prediction(how.read(self.run(batch, how.places)), batch.rows)

    def find_answer(self, method: str) -> MethodOutput:
        """Return how the outputs answer a method; a ``transform`` only declared is answered like ``predict``."""
        return self._answers.get(method) or MethodOutput(self._answers["predict"].places, AnswerForm.WHOLE)

    def make_rows(self, rows: int, *, with_nulls: bool = False) -> Batch:
        """Make up rows; see `LoadedModel.make_rows`."""
        nulls = [feature.nullable for feature in self.signature.features] if with_nulls else None
        return make_batch(self.signature, self.columns, rows, nulls)

    def run(self, batch: Batch, places: Sequence[int] = ()) -> list[Any]:
        """Return the outputs at `places` for one batch, by default all outputs; raises the exceptions of `answer`."""
        names = [self.outputs[place].name for place in places] or None
        try:
            return list(self._session.run(names, self._make_feed(batch)))
        except InvalidArgument as error:
            raise InvalidInput(one_line(f"the model refused the rows: {error}")) from None
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
            raise ModelFailed(describe_exception(error)) from None

    def _make_feed(self, batch: Batch) -> dict[str, NDArray[Any]]:
        if batch.matrix is not None and len(self.inputs) == 1 and not self.inputs[0].is_flat:
            return {self.inputs[0].name: _cast_cells(batch.matrix, self.inputs[0].dtype)}
        columns = list(batch.matrix.T) if batch.matrix is not None else list(batch.columns or ())
        feed, start = {}, 0
        for each in self.inputs:
            block = np.column_stack([_cast_cells(cells, each.dtype) for cells in columns[start : start + each.width]])
            feed[each.name] = block.reshape(batch.rows) if each.is_flat else block
            start += each.width
        return feed


def load_onnx(path: str, declared: Signature | None = None) -> OnnxModel:
    """Load the graph at `path`; `declared` is the publisher's signature. Blocks; starts a thread on first use.

    Raises LoadRefused when the file is not a graph, or the graph does not take rows of features.
    """
    session = open_session(path)
    inputs = [_read_input(each, declared) for each in session.get_inputs()]
    features, container = _list_features(inputs)
    bare = Signature(features=features, methods=("predict",), container=container, is_named=len(inputs) > 1)
    found = _find_outputs(OnnxModel(path, session, inputs, bare))
    own = bare.model_copy(
        update={
            "methods": tuple(found.answers),
            "outputs": found.width,
            "kind": found.kind,
            "classes": found.classes,
        }
    )
    if declared is not None:
        undecided: dict[str, Any] = {"kind": declared.kind} if ModelKind.OTHER in (own.kind, declared.kind) else {}
        if declared.classes is None:
            undecided["classes"] = None
        if declared.methods == ("transform",) and own.methods == ("predict",):
            undecided["methods"] = declared.methods
        if not find_disagreements(declared, own.model_copy(update=undecided)):
            own = declared
    return OnnxModel(path, session, inputs, own, found)


def _read_input(each: Any, declared: Signature | None) -> GraphInput:
    if each.type not in _DTYPES:
        raise LoadRefused(f"input '{each.name}' is a {each.type}; numbers, strings and bools can be sent")
    shape = list(each.shape)
    if len(shape) not in (1, 2):
        raise LoadRefused(f"input '{each.name}' has the shape {shape}; a row is a flat list of features")
    if isinstance(shape[0], int):
        raise LoadRefused(
            f"input '{each.name}' is fixed at {shape[0]} rows: export it with an open first dimension "
            f"(torch.onnx.export: dynamic_axes={{'{each.name}': {{0: 'rows'}}}})"
        )
    width = shape[1] if len(shape) == 2 else 1
    if not isinstance(width, int):
        if declared is None:
            raise LoadRefused(f"input '{each.name}' does not say how many features it takes: publish with a signature")
        width = len(declared.features)
    return GraphInput(each.name, *_DTYPES[each.type], width, len(shape) == 1)


def _list_features(inputs: Sequence[GraphInput]) -> tuple[tuple[Feature, ...], Container]:
    if len(inputs) > 1:
        named = [
            Feature(name=each.name if each.width == 1 else f"{each.name}_{index}", dtype=each.signature_dtype)
            for each in inputs
            for index in range(each.width)
        ]
        return tuple(named), Container.DATAFRAME
    only = inputs[0]
    if only.signature_dtype is Dtype.STRING and only.width == 1:
        return (Feature(name="text", dtype=Dtype.STRING),), Container.TEXTS
    return tuple(Feature(name=f"x{index}", dtype=only.signature_dtype) for index in range(only.width)), Container.ARRAY


def _find_outputs(model: OnnxModel) -> FoundOutputs:
    """Return which methods the graph's outputs answer, found with rows that the graph accepts."""
    for batch in (
        _spread_numbers(model.make_rows(_PLAIN_ROWS + _FAR_ROWS)),
        model.make_rows(_PLAIN_ROWS),
        model.make_rows(2),
    ):
        try:
            values = model.run(batch)
        except (InvalidInput, ModelFailed):
            continue
        found = find_methods(model.outputs, values, batch.rows)
        if found.left_out and "decision_function" not in found.answers:
            found = find_methods(model.outputs, values, batch.rows, _find_two_classes(model.path))
        return found
    return use_predict_only(model.outputs)


def _find_two_classes(path: str) -> list[Any]:
    """Return the two class labels in the operators of the file, in order; empty where operators differ."""
    graph = onnx.load_model(path, load_external_data=False).graph
    listed: list[list[Any]] = [
        [text.decode("utf-8", "replace") for text in attribute.strings] or list(attribute.ints)
        for node in graph.node
        for attribute in node.attribute
        if attribute.name in _CLASS_ATTRIBUTES
    ]
    pairs = [sorted(labels) for labels in listed if labels]
    return pairs[0] if pairs and len(pairs[0]) == 2 and all(pair == pairs[0] for pair in pairs) else []


def _spread_numbers(batch: Batch) -> Batch:
    """Return the rows with the numbers of all but the first multiplied by up to 100, with either sign."""
    random = np.random.default_rng(_SEED)
    factors = np.ones(batch.rows)
    factors[_PLAIN_ROWS:] = np.rint(_FARTHEST ** random.random(batch.rows - _PLAIN_ROWS))

    def spread(cells: Any) -> Any:
        is_number = isinstance(cells, np.ndarray) and cells.dtype.kind == "f"
        return (
            cells * np.where(factors > 1, factors * random.choice((-1.0, 1.0), batch.rows), 1.0) if is_number else cells
        )

    if batch.matrix is not None:
        return Batch(batch.rows, matrix=np.column_stack([spread(column) for column in batch.matrix.T]))
    return Batch(batch.rows, columns=tuple(map(spread, batch.columns or ())))


def _make_column(source: GraphInput, place: int) -> InputColumn:
    """Return the input column of one feature: small integers for an integer input, which differ between columns."""
    is_integer = np.issubdtype(source.dtype, np.integer)
    return InputColumn(
        dtype=source.signature_dtype, values=[(place + row * 3) % 4 for row in range(7)] if is_integer else []
    )


def _cast_cells(cells: Any, dtype: Any) -> NDArray[Any]:
    if dtype is np.object_:
        return np.array(["" if cell is None else cell for cell in cells], dtype=np.object_)
    values = np.asarray(cells)
    with np.errstate(all="ignore"):
        made: NDArray[Any] = values.astype(dtype)
    if values.dtype.kind in "iu" and (made.dtype.kind == "f" or (made != values).any()):
        raise InvalidInput(f"the model takes {made.dtype}, which cannot hold {values[find_rounded(values)].flat[0]}")
    if values.dtype.kind == "f" and made.dtype.kind in "fi":
        is_lost = np.isfinite(values) & ~np.isfinite(made) if made.dtype.kind == "f" else made != values
        if is_lost.any():
            kind = "integers" if made.dtype.kind == "i" else f"numbers within {made.dtype}"
            raise InvalidInput(f"the model takes {kind}, got {values[is_lost].flat[0]}")
    return made

"""An ONNX file as a loaded model, computed by onnxruntime on one thread of the CPU.

Reads what skl2onnx and similar converters write: one input (rows, features) or one input for each column; a label, then
probabilities as a tensor, as one map per row (ZipMap) or as one tensor for each output; or a single output. What takes
null cannot be found out by trying, because a graph answers NaN with something: only the publisher can declare it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from serving.domain.batch import Batch, Prediction
from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.integers import rounded_places
from serving.domain.signature import Container, Dtype, Feature, Kind, Method, Signature
from serving.host.answers import to_prediction
from serving.host.columns import Column
from serving.host.contract import disagreements
from serving.host.model import LoadRefused, one_line, told
from serving.host.synthetic import make_batch
from serving.silence import load_onnxruntime

onnxruntime = load_onnxruntime()
InvalidArgument = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument

_FATAL_ONLY = 4
_DTYPES: dict[str, tuple[Any, Dtype]] = {
    "tensor(float)": (np.float32, Dtype.NUMBER),
    "tensor(double)": (np.float64, Dtype.NUMBER),
    "tensor(float16)": (np.float16, Dtype.NUMBER),
    "tensor(int64)": (np.int64, Dtype.NUMBER),
    "tensor(int32)": (np.int32, Dtype.NUMBER),
    "tensor(bool)": (np.bool_, Dtype.BOOL),
    "tensor(string)": (np.object_, Dtype.STRING),
}
_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the graph: what it takes, and how many features side by side."""

    name: str
    dtype: Any
    takes: Dtype
    width: int
    is_flat: bool  # of shape (rows,) and not (rows, 1)


class OnnxModel:
    """Answers with one inference session, made of the file at `path`."""

    name = "ONNX model"
    engine = "onnx"

    def __init__(self, path: str, session: Any, inputs: Sequence[Input], signature: Signature) -> None:
        self.trained_with: Mapping[str, str] = {}
        self.path = path
        self.signature = signature
        self.inputs = inputs
        wide = [each for each in inputs for _ in range(each.width)]
        self.columns: Sequence[Column] = [_column(each, place) for place, each in enumerate(wide)]
        self._session = session

    def answer(self, method: str, batch: Batch) -> Prediction:
        """Answer one batch; see `LoadedModel.answer`."""
        if method not in self.signature.methods:
            raise InvalidInput(f"offers {', '.join(self.signature.methods)}; not {method}")
        outputs = self.run(batch)
        is_first = method in ("predict", "transform")
        answer = _first(outputs[0], keep_width=method == "transform") if is_first else _scores(outputs[1:])
        return to_prediction(answer, batch.rows)

    def sample(self, rows: int, *, with_nulls: bool = False) -> Batch:
        """Make up rows; see `LoadedModel.sample`."""
        nulls = [feature.nullable for feature in self.signature.features] if with_nulls else None
        return make_batch(self.signature, self.columns, rows, nulls)

    def run(self, batch: Batch) -> list[Any]:
        """Return all outputs of the graph for one batch; raises like `answer`."""
        try:
            return list(self._session.run(None, self._feed(batch)))
        except InvalidArgument as error:
            raise InvalidInput(one_line(f"the model refused the rows: {error}")) from None
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
            raise ModelFailed(told(error)) from None

    def _feed(self, batch: Batch) -> dict[str, NDArray[Any]]:
        if batch.matrix is not None and len(self.inputs) == 1 and not self.inputs[0].is_flat:
            return {self.inputs[0].name: _cast(batch.matrix, self.inputs[0].dtype)}
        columns = list(batch.matrix.T) if batch.matrix is not None else list(batch.columns or ())
        feed, start = {}, 0
        for each in self.inputs:
            block = np.column_stack([_cast(cells, each.dtype) for cells in columns[start : start + each.width]])
            feed[each.name] = block.reshape(batch.rows) if each.is_flat else block
            start += each.width
        return feed


def load_onnx(path: str, declared: Signature | None = None) -> OnnxModel:
    """Load the graph at `path`; `declared` is what the publisher said of it. Blocks; starts a thread on first use.

    Raises LoadRefused when it is no graph, or one that does not take rows of features.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (onnxruntime has its own tree of errors)
        raise LoadRefused(one_line(f"the graph cannot be loaded ({told(error)})")) from None
    inputs = [_input(each, declared) for each in session.get_inputs()]
    features, container = _features(inputs)
    bare = Signature(features=features, methods=("predict",), container=container, is_named=len(inputs) > 1)
    own = _with_outputs(OnnxModel(path, session, inputs, bare), session.get_outputs())
    if declared is not None:
        open_to: dict[str, Any] = {"kind": declared.kind} if own.kind is Kind.OTHER else {}
        if declared.methods == ("transform",) and own.methods == ("predict",):
            open_to["methods"] = declared.methods
        if not disagreements(declared, own.model_copy(update=open_to)):
            own = declared
    return OnnxModel(path, session, inputs, own)


def _input(each: Any, declared: Signature | None) -> Input:
    if each.type not in _DTYPES:
        raise LoadRefused(f"input '{each.name}' is a {each.type}; numbers, strings and bools can be sent")
    shape = list(each.shape)
    if len(shape) not in (1, 2):
        raise LoadRefused(f"input '{each.name}' has the shape {shape}; a row is a flat list of features")
    if isinstance(shape[0], int):
        raise LoadRefused(f"input '{each.name}' is fixed at {shape[0]} rows: export it with an open first dimension")
    width = shape[1] if len(shape) == 2 else 1
    if not isinstance(width, int):
        if declared is None:
            raise LoadRefused(f"input '{each.name}' does not say how many features it takes: publish with a signature")
        width = len(declared.features)
    return Input(each.name, *_DTYPES[each.type], width, len(shape) == 1)


def _features(inputs: Sequence[Input]) -> tuple[tuple[Feature, ...], Container]:
    if len(inputs) > 1:
        named = [
            Feature(name=each.name if each.width == 1 else f"{each.name}_{index}", dtype=each.takes)
            for each in inputs
            for index in range(each.width)
        ]
        return tuple(named), Container.DATAFRAME
    only = inputs[0]
    if only.takes is Dtype.STRING and only.width == 1:
        return (Feature(name="text", dtype=Dtype.STRING),), Container.TEXTS
    return tuple(Feature(name=f"x{index}", dtype=only.takes) for index in range(only.width)), Container.ARRAY


def _with_outputs(model: OnnxModel, outputs: Sequence[Any]) -> Signature:
    """Return the signature with what the graph's outputs are; its names do not always say, so one row is answered."""
    signature = model.signature
    try:
        answers = model.run(model.sample(2))
    except (InvalidInput, ModelFailed):
        return signature
    first = np.asarray(_first(answers[0]))
    width = int(np.prod(first.shape[1:], dtype=int))
    if outputs[0].type not in _LABELS:
        kind = Kind.REGRESSOR if len(outputs) == 1 and width == 1 else Kind.OTHER
        return signature.model_copy(update={"outputs": width, "kind": kind})
    methods: tuple[Method, ...] = ("predict",)
    kind, classes = Kind.OTHER, None
    scores = _scores(answers[1:])
    if _are_probabilities(scores):
        methods, kind = ("predict", "predict_proba"), Kind.CLASSIFIER
        is_mapped = isinstance(answers[1], list) and isinstance(answers[1][0], dict)
        classes = (tuple(answers[1][0]),) if is_mapped else None
    return signature.model_copy(update={"outputs": width, "methods": methods, "kind": kind, "classes": classes})


def _first(output: Any, *, keep_width: bool = False) -> Any:
    """Return labels or values with one column as a flat array, as scikit-learn gives them."""
    is_column = isinstance(output, np.ndarray) and output.ndim == 2 and output.shape[1] == 1
    return output[:, 0] if is_column and not keep_width else output


def _scores(outputs: Sequence[Any]) -> Any:
    """Return what follows the label as (rows, classes), or one such array for each output; None when nothing does."""
    if not outputs:
        return None
    first = outputs[0]
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return np.array([list(row.values()) for row in first], dtype=np.float32)
    if isinstance(first, np.ndarray) and first.ndim == 3:
        return list(first)
    if isinstance(first, np.ndarray) and first.ndim == 1:
        return np.column_stack(cast(list[NDArray[Any]], outputs))
    return first


def _are_probabilities(scores: Any) -> bool:
    parts = scores if isinstance(scores, list) else [scores]
    return all(
        isinstance(part, np.ndarray)
        and part.ndim == 2
        and bool((part >= 0).all())
        and bool(np.allclose(part.sum(axis=1), 1, atol=1e-3))
        for part in parts
    )


def _column(source: Input, place: int) -> Column:
    """Return what is known of one feature: integers are small, and not alike in all columns of a row."""
    is_integer = np.issubdtype(source.dtype, np.integer)
    return Column(dtype=source.takes, values=[(place + row * 3) % 4 for row in range(7)] if is_integer else [])


def _cast(cells: Any, dtype: Any) -> NDArray[Any]:
    if dtype is np.object_:
        return np.array(["" if cell is None else cell for cell in cells], dtype=np.object_)
    values = np.asarray(cells)
    with np.errstate(all="ignore"):
        made: NDArray[Any] = values.astype(dtype)
    if values.dtype.kind in "iu" and (made.dtype.kind == "f" or (made != values).any()):
        raise InvalidInput(f"the model takes {made.dtype}, which cannot hold {values[rounded_places(values)].flat[0]}")
    if values.dtype.kind == "f" and made.dtype.kind in "fi":
        is_lost = np.isfinite(values) & ~np.isfinite(made) if made.dtype.kind == "f" else made != values
        if is_lost.any():
            kind = "integers" if made.dtype.kind == "i" else f"numbers within {made.dtype}"
            raise InvalidInput(f"the model takes {kind}, got {values[is_lost].flat[0]}")
    return made

"""The tensors of a model: describes its signature as tensors, and turns tensors into rows, answers into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.api.oip.tensors import BYTES, DTYPES, ReceivedTensor
from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Dtype, Method, ModelKind, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction
from serving.rows.tables import Table

MATRIX = "input"  # the name of the one tensor of models that take numbers only; a request may call it anything
ANY_SIZE = -1

_DATATYPES = {Dtype.NUMBER: "FP64", Dtype.BOOL: "BOOL", Dtype.STRING: BYTES, Dtype.ANY: BYTES}
_WIDENED = {
    kind: (name, DTYPES[name]) for kind, name in {"b": "BOOL", "i": "INT64", "u": "UINT64", "f": "FP64"}.items()
}
_LABELLED = (ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR)  # their labels are integers


class Spec(NamedTuple):
    """One tensor as the metadata of a model describe it; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(signature: Signature) -> tuple[Spec, ...]:
    """Return the tensors a model takes: one matrix if all features are numbers, else one column for each feature."""
    features = signature.features
    if all(feature.dtype is Dtype.NUMBER for feature in features):
        return (Spec(MATRIX, "FP64", (ANY_SIZE, len(features))),)
    return tuple(Spec(feature.name, _DATATYPES[feature.dtype], (ANY_SIZE, 1)) for feature in features)


def outputs_of(signature: Signature) -> tuple[Spec, ...]:
    """Return the tensors that a model answers with: one for each method, the default method first."""
    return tuple(Spec(method, *_output_of(signature, method)) for method in signature.methods)


def table_of(tensors: Sequence[ReceivedTensor], signature: Signature) -> Table:
    """Return the rows of a request: one tensor ``[rows, features]`` of any name, or one for each feature by its name.

    Raises InvalidInput. The values are checked against the signature later, when the table becomes a batch.
    """
    if not tensors:
        raise InvalidInput("'inputs' is empty: send one tensor [rows, features], or one for each feature")
    names = tuple(feature.name for feature in signature.features)
    if len(tensors) == 1 and (
        tensors[0].shape[1:] not in ((), (1,)) or tensors[0].name not in names or len(names) == 1
    ):
        return _matrix(tensors[0], len(names))
    if len(tensors) > len(names):
        raise InvalidInput(f"{len(tensors)} inputs, the model takes {len(names)}: {', '.join(names[:3])}, ...")
    rows = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape[1:] not in ((), (1,)):
            wanted = "one column for each feature when there are several inputs, [rows] or [rows, 1]"
            raise InvalidInput(f"input '{tensor.name[:60]}': the shape is {list(tensor.shape)}; expected {wanted}")
        if tensor.shape[0] != rows:
            raise InvalidInput(
                f"input '{tensor.name[:60]}' has {tensor.shape[0]} rows, '{tensors[0].name[:60]}' has {rows}"
            )
    return Table(rows, columns=tuple(tensor.values for tensor in tensors), names=tuple(each.name for each in tensors))


def tensors_of(answer: Answer, signature: Signature) -> list[ReceivedTensor]:
    """Return one tensor for each method that was asked for, named by it, in that order.

    Numbers are widened to FP64 and INT64, so that a version's dtypes are not part of the contract. Several outputs are
    one tensor: [rows, outputs, columns] if all have the same number of columns, else [rows, columns of all outputs].
    Raises ModelFailed for values that no tensor can hold.
    """
    return [_tensor(method, prediction, signature) for method, prediction in answer.outputs]


def _matrix(tensor: ReceivedTensor, width: int) -> Table:
    rows, *columns = tensor.shape
    if not columns and width != 1:
        shape = f"[1, {width}]" if rows == width else f"[rows, {width}]"
        raise InvalidInput(f"input '{tensor.name[:60]}': the shape is [{rows}]; expected {shape} for {width} features")
    count = columns[0] if columns else 1
    if not count:
        raise InvalidInput(f"input '{tensor.name[:60]}': the shape is [{rows}, 0]; expected [rows, {width}]")
    if isinstance(tensor.values, list):
        return Table(rows, columns=tuple(tensor.values[place::count] for place in range(count)))
    return Table(rows, matrix=tensor.values.reshape(rows, count))


def _tensor(method: Method, prediction: Prediction, signature: Signature) -> ReceivedTensor:
    tensors = prediction.tensors
    array: Any = tensors[0]
    if len(tensors) > 1:
        array = _joined([tensor for tensor in tensors if isinstance(tensor, np.ndarray)], prediction)
    if isinstance(array, np.ndarray):
        datatype, dtype = _WIDENED[array.dtype.kind]
        flat = array if array.ndim == 1 else array.ravel()
        return ReceivedTensor(method, datatype, array.shape, flat if flat.dtype == dtype else flat.astype(dtype))
    labels = signature.classes if method == "predict" else None
    return _of_values(method, array, None if labels is None else [label for each in labels for label in each])


def _joined(arrays: list[NDArray[Any]], prediction: Prediction) -> NDArray[Any] | list[Any]:
    if len(arrays) != len(prediction.tensors):
        return prediction.list_rows()
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays, axis=1)
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def _of_values(method: Method, rows: list[Any], labels: list[Any] | None) -> ReceivedTensor:
    """Make a tensor of labels and other plain values; values of kinds that have no common datatype become texts."""
    values = rows
    shape: tuple[int, ...] = (len(rows),)
    if rows and type(rows[0]) is list:
        width = len(rows[0])
        shape = (len(rows), width)
        if any(type(row) is not list or len(row) != width for row in rows):
            raise ModelFailed(f"{method} gave rows of different lengths, which no tensor holds")
        values = [value for row in rows for value in row]
    if any(type(value) in (list, dict) for value in values):
        raise ModelFailed(f"{method} gave objects or arrays in arrays, which no tensor holds: ask /models/NAME/predict")
    datatype = _datatype(values if labels is None else labels)
    if datatype == BYTES:
        return ReceivedTensor(method, BYTES, shape, [_as_text(value) for value in values])
    try:
        return ReceivedTensor(method, datatype, shape, np.array(values, DTYPES[datatype]))
    except (OverflowError, TypeError, ValueError):
        raise ModelFailed(f"{method} gave values that are no {datatype}") from None


def _datatype(values: Sequence[Any]) -> str:
    types = set(map(type, values))
    if types == {bool}:
        return "BOOL"
    if types == {int}:
        return "INT64"
    return "FP64" if types <= {int, float, NoneType} else BYTES


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _output_of(signature: Signature, method: Method) -> tuple[str, tuple[int, ...]]:
    classes = signature.classes
    per_row: tuple[int, ...] = () if signature.outputs == 1 else (signature.outputs,)
    if method == "predict":
        labels = [label for each in classes for label in each] if classes else [0] * (signature.kind in _LABELLED)
        return _datatype(labels) if labels else "FP64", (ANY_SIZE, *per_row)
    if method == "score_samples":
        return "FP64", (ANY_SIZE,)
    is_probability = method in ("predict_proba", "predict_log_proba")
    if not is_probability or not classes:
        is_flat = method == "decision_function" and _has_flat_decisions(signature)
        return "FP64", (ANY_SIZE,) if is_flat else (ANY_SIZE, ANY_SIZE)
    widths = [len(each) for each in classes]
    if len(set(widths)) > 1:
        return "FP64", (ANY_SIZE, sum(widths))
    return "FP64", (ANY_SIZE, widths[0]) if len(widths) == 1 else (ANY_SIZE, len(widths), widths[0])


def _has_flat_decisions(signature: Signature) -> bool:
    """Whether ``decision_function`` gives one number a row: outlier detectors and classifiers of two classes."""
    if signature.kind is ModelKind.OUTLIER_DETECTOR:
        return True
    classes = signature.classes
    return classes is not None and len(classes) == 1 and len(classes[0]) <= 2

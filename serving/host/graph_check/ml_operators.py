"""Rules of the operators of ``ai.onnx.ml`` but trees: encoders, scalers, linear models and support vectors.

Kernels trust how long the lists in their attributes are; here each is held to what the others and the input say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto

from serving.host.graph_check.operation import ML, AbstractTensor, Operation, rule
from serving.host.graph_check.sizes import ONE, Size

Outputs = Sequence[AbstractTensor]
_NUMBERS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64})
_KERNELS = frozenset({"LINEAR", "POLY", "RBF", "SIGMOID"})


def matrix(operation: Operation) -> tuple[AbstractTensor, Size, int]:
    """Return the first input, which has to be a matrix of numbers, its number of rows and of columns."""
    first = operation.tensor(0)
    operation.require(first.rank == 2 and first.dtype in _NUMBERS, "it takes a matrix of numbers")
    return first, first.shape[0], operation.width(first)


def labels(operation: Operation, name: str = "classlabels") -> tuple[int, int]:
    """Return the element type of the labels and how many there are; texts or integers, and not both."""
    texts = operation.texts(f"{name}_strings")
    numbers = operation.numbers(f"{name}_int64s" if f"{name}_int64s" in operation.attributes else f"{name}_ints")
    operation.require((texts is None) != (numbers is None), "its labels are neither texts nor integers")
    found: Any = texts if numbers is None else numbers
    operation.require(len(found) >= 1, "it has no labels")
    return TensorProto.STRING if numbers is None else TensorProto.INT64, len(found)


@rule("ArrayFeatureExtractor", domain=ML)
def extracted(operation: Operation) -> Outputs:
    """Columns at places that another tensor lists; of a flat list, as one row."""
    first, places = operation.tensor(0), operation.tensor(1)
    operation.require(first.rank >= 1, "it takes columns")
    width, count = first.shape[-1], operation.cells(places.shape)
    if places.constant is not None:
        is_within = width.is_constant and places.constant.min(initial=0) >= 0
        operation.require(is_within and places.constant.max(initial=0) < width.fixed, "a place lies beyond its columns")
    front = first.shape[:-1] if first.rank > 1 else (ONE,)
    return [AbstractTensor(first.dtype, (*front, count))]


@rule("Binarizer", domain=ML)
def binarized(operation: Operation) -> Outputs:
    """The same cells, 0 or 1."""
    first = operation.tensor(0)
    return [AbstractTensor(first.dtype, first.shape)]


@rule("Normalizer", domain=ML)
def normalized(operation: Operation) -> Outputs:
    """The same cells as float32, each row divided by its length."""
    first, _, _ = matrix(operation)
    return [AbstractTensor(TensorProto.FLOAT, first.shape)]


@rule("Scaler", domain=ML)
def scaled(operation: Operation) -> Outputs:
    """The same cells as float32, less an offset, times a scale: of one for all columns, or one for each."""
    first, _, width = matrix(operation)
    lengths = {len(found) for name in ("offset", "scale") if (found := operation.floats(name)) is not None}
    operation.require(lengths in ({1}, {width}), "its numbers are not as many as its columns")
    return [AbstractTensor(TensorProto.FLOAT, first.shape)]


@rule("Imputer", domain=ML)
def imputed(operation: Operation) -> Outputs:
    """The same cells, missing ones filled with one number for all columns, or one for each."""
    first, _, width = matrix(operation)
    floats, integers = operation.floats("imputed_value_floats"), operation.numbers("imputed_value_int64s")
    operation.require((floats is None) != (integers is None), "it fills with neither floats nor integers")
    filled: Any = floats if integers is None else integers
    operation.require(len(filled) in (1, width), "its numbers are not as many as its columns")
    operation.require(
        first.dtype == (TensorProto.FLOAT if integers is None else TensorProto.INT64), "its type is wrong"
    )
    return [AbstractTensor(first.dtype, first.shape)]


@rule("OneHotEncoder", domain=ML)
def one_hot_encoded(operation: Operation) -> Outputs:
    """One more axis with a column for each category."""
    first = operation.tensor(0)
    _, count = labels(operation, "cats")
    return [AbstractTensor(TensorProto.FLOAT, (*first.shape, Size(0, count)))]


@rule("FeatureVectorizer", domain=ML)
def joined(operation: Operation) -> Outputs:
    """Matrices side by side as float32."""
    tensors = [operation.tensor(place) for place in range(len(operation.inputs))]
    widths = operation.numbers("inputdimensions")
    operation.require(all(tensor.rank == 2 and tensor.dtype in _NUMBERS for tensor in tensors), "it takes matrices")
    operation.require(len({tensor.shape[0] for tensor in tensors}) == 1, "its matrices have not equally many rows")
    own = [operation.width(tensor) for tensor in tensors]
    operation.require(widths is not None and widths.tolist() == own, "it does not say how wide its matrices are")
    return [AbstractTensor(TensorProto.FLOAT, (tensors[0].shape[0], Size(0, sum(own))))]


@rule("LabelEncoder", domain=ML)
def encoded(operation: Operation) -> Outputs:
    """Each cell's value in a table."""
    first = operation.tensor(0)
    if operation.version < 2:
        operation.require(operation.texts("classes_strings"), "it has no table")
        return [_other_side(operation, first)]
    keys, values = _list(operation, "keys"), _list(operation, "values")
    operation.require(len(keys[1]) == len(values[1]) >= 1, "its table has not as many values as keys")
    operation.require(keys[0] == first.dtype, "its keys are of another type than its cells")
    default = operation.array("default_tensor")
    operation.require(default is None or default.size == 1, "it has more than one default")
    return [AbstractTensor(values[0], first.shape)]


@rule("CategoryMapper", domain=ML)
def mapped(operation: Operation) -> Outputs:
    """Integers for texts, or texts for integers."""
    texts, numbers = operation.texts("cats_strings"), operation.numbers("cats_int64s")
    is_table = texts is not None and numbers is not None and len(texts) == len(numbers) >= 1
    operation.require(is_table, "its table has not as many values as keys")
    return [_other_side(operation, operation.tensor(0))]


def _other_side(operation: Operation, tensor: AbstractTensor) -> AbstractTensor:
    sides: dict[int, int] = {TensorProto.STRING: TensorProto.INT64, TensorProto.INT64: TensorProto.STRING}
    operation.require(tensor.dtype in sides, "it takes texts or integers")
    return AbstractTensor(sides[tensor.dtype], tensor.shape)


def _list(operation: Operation, name: str) -> tuple[int, Any]:
    """Return the element type and the values of one side of a table, however it is written down."""
    forms = {
        "int64s": (TensorProto.INT64, operation.numbers),
        "floats": (TensorProto.FLOAT, operation.floats),
        "strings": (TensorProto.STRING, operation.texts),
    }
    named = [form for form in (*forms, "tensor") if f"{name}_{form}" in operation.attributes]
    operation.require(len(named) == 1, f"its {name} are not in one list")
    if named == ["tensor"]:
        found = operation.array(f"{name}_tensor")
        operation.require(found is not None and found.ndim == 1, f"its {name} are no list")
        return operation.attributes[f"{name}_tensor"].t.data_type, found
    dtype, read = forms[named[0]]
    return dtype, read(f"{name}_{named[0]}")


@rule("LinearClassifier", domain=ML)
def linear_labels(operation: Operation) -> Outputs:
    """A label for each row, and a score for each class."""
    first, rows, width = matrix(operation)
    dtype, count = labels(operation)
    weights, intercepts = operation.floats("coefficients"), operation.floats("intercepts")
    operation.require(weights is not None and intercepts is not None, "it lacks coefficients or intercepts")
    assert weights is not None and intercepts is not None  # noqa: PT018
    scores = len(intercepts)
    operation.require(
        scores in (1, count) and len(weights) == scores * width, "its coefficients are not as many as it needs"
    )
    operation.require(count in (scores, 2), "it has other labels than scores")
    operation.scratch = operation.cells(first.shape).scaled(4)
    return _labels_and_scores(operation, dtype, rows, count)


@rule("LinearRegressor", domain=ML)
def linear_values(operation: Operation) -> Outputs:
    """One number for each row and target."""
    first, rows, width = matrix(operation)
    targets = operation.number("targets", 1)
    weights, intercepts = operation.floats("coefficients"), operation.floats("intercepts")
    is_whole = weights is not None and targets >= 1 and len(weights) == targets * width
    operation.require(is_whole, "its coefficients are not as many as it needs")
    operation.require(
        intercepts is None or len(intercepts) in (0, targets), "its intercepts are not one for each target"
    )
    operation.scratch = operation.cells(first.shape).scaled(4)
    return [AbstractTensor(TensorProto.FLOAT, (rows, Size(0, targets)))]


@rule("SVMClassifier", domain=ML)
def support_labels(operation: Operation) -> Outputs:
    """A label for each row, and scores: one for each class, or for each pair of classes."""
    _, rows, width = matrix(operation)
    dtype, count = labels(operation)
    each = operation.numbers("vectors_per_class")
    is_known = each is not None and len(each) == count >= 2 and (each >= 0).all() and each.sum() >= 1
    operation.require(is_known, "it does not say how many vectors each class has")
    assert each is not None
    vectors, pairs = int(each.sum()), count * (count - 1) // 2
    wanted = {"support_vectors": vectors * width, "coefficients": (count - 1) * vectors, "rho": pairs}
    _require_lengths(operation, wanted)
    has_shares = "prob_a" in operation.attributes or "prob_b" in operation.attributes
    if has_shares:
        _require_lengths(operation, {"prob_a": pairs, "prob_b": pairs})
    taken = 4 * width + 4 * vectors + 8 * count + 4 * count * count + 4 * pairs
    operation.scratch = rows.scaled(taken)
    return _labels_and_scores(operation, dtype, rows, count if has_shares or count == 2 else pairs)


@rule("SVMRegressor", domain=ML)
def support_values(operation: Operation) -> Outputs:
    """One number for each row."""
    _, rows, width = matrix(operation)
    vectors = operation.number("n_supports", 0)
    operation.require(vectors >= 1, "it has no vectors")
    _require_lengths(operation, {"support_vectors": vectors * width, "coefficients": vectors, "rho": 1})
    operation.scratch = rows.scaled(4 * vectors)
    return [AbstractTensor(TensorProto.FLOAT, (rows, ONE))]


def _require_lengths(operation: Operation, wanted: dict[str, int]) -> None:
    for name, length in wanted.items():
        found = operation.floats(name)
        operation.require(found is not None and len(found) == length, f"{name} has not {length} numbers")
    parameters = operation.floats("kernel_params")
    operation.require(parameters is not None and len(parameters) == 3, "its kernel has not three parameters")
    operation.require(operation.text("kernel_type", "LINEAR") in _KERNELS, "its kernel is not known")


def _labels_and_scores(operation: Operation, dtype: int, rows: Size, scores: int) -> Outputs:
    made = [AbstractTensor(dtype, (rows,)), AbstractTensor(TensorProto.FLOAT, (rows, Size(0, scores)))]
    return made[: operation.outputs]

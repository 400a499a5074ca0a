"""The rules of the ``ai.onnx.ml`` operators except trees: encoders, scalers, linear models and support vectors.

Kernels do not check the lengths of the lists in their attributes. These rules compare each with the others and with
the input.
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


def require_matrix(operation: Operation) -> tuple[AbstractTensor, Size, int]:
    """Return the first input, which must be a matrix of numbers, with its numbers of rows and columns."""
    first = operation.get_input(0)
    operation.require(first.rank == 2 and first.dtype in _NUMBERS, "it takes a matrix of numbers")
    return first, first.shape[0], operation.get_width(first)


def require_labels(operation: Operation, name: str = "classlabels") -> tuple[int, int]:
    """Return the element type of the labels and their number; labels must be either texts or integers."""
    texts = operation.get_texts(f"{name}_strings")
    numbers = operation.get_integers(f"{name}_int64s" if f"{name}_int64s" in operation.attributes else f"{name}_ints")
    operation.require((texts is None) != (numbers is None), "its labels are neither texts nor integers")
    found: Any = texts if numbers is None else numbers
    operation.require(len(found) >= 1, "it has no labels")
    return TensorProto.STRING if numbers is None else TensorProto.INT64, len(found)


@rule("ArrayFeatureExtractor", domain=ML)
def extract_columns(operation: Operation) -> Outputs:
    """Give the columns at the places in another tensor; a flat list counts as one row."""
    first, places = operation.get_input(0), operation.get_input(1)
    operation.require(first.rank >= 1, "it takes columns")
    width, count = first.shape[-1], operation.count_cells(places.shape)
    if places.constant is not None:
        is_within = width.is_constant and places.constant.min(initial=0) >= 0
        operation.require(is_within and places.constant.max(initial=0) < width.fixed, "a place lies beyond its columns")
    front = first.shape[:-1] if first.rank > 1 else (ONE,)
    return [AbstractTensor(first.dtype, (*front, count))]


@rule("Binarizer", domain=ML)
def binarize_cells(operation: Operation) -> Outputs:
    """Give the same cells as 0 or 1."""
    first = operation.get_input(0)
    return [AbstractTensor(first.dtype, first.shape)]


@rule("Normalizer", domain=ML)
def normalize_rows(operation: Operation) -> Outputs:
    """Give the same cells as float32, each row divided by its length."""
    first, _, _ = require_matrix(operation)
    return [AbstractTensor(TensorProto.FLOAT, first.shape)]


@rule("Scaler", domain=ML)
def scale_columns(operation: Operation) -> Outputs:
    """Give the same cells as float32, minus an offset, times a scale: one for all columns, or one for each."""
    first, _, width = require_matrix(operation)
    lengths = {len(found) for name in ("offset", "scale") if (found := operation.get_floats(name)) is not None}
    operation.require(lengths in ({1}, {width}), "its numbers are not as many as its columns")
    return [AbstractTensor(TensorProto.FLOAT, first.shape)]


@rule("Imputer", domain=ML)
def fill_missing_cells(operation: Operation) -> Outputs:
    """Give the same cells, missing ones filled with one number for all columns, or one for each."""
    first, _, width = require_matrix(operation)
    floats, integers = operation.get_floats("imputed_value_floats"), operation.get_integers("imputed_value_int64s")
    operation.require((floats is None) != (integers is None), "it fills with neither floats nor integers")
    filled: Any = floats if integers is None else integers
    operation.require(len(filled) in (1, width), "its numbers are not as many as its columns")
    operation.require(
        first.dtype == (TensorProto.FLOAT if integers is None else TensorProto.INT64), "its type is wrong"
    )
    return [AbstractTensor(first.dtype, first.shape)]


@rule("OneHotEncoder", domain=ML)
def add_category_axis(operation: Operation) -> Outputs:
    """Give one more axis, with a column for each category."""
    first = operation.get_input(0)
    _, count = require_labels(operation, "cats")
    return [AbstractTensor(TensorProto.FLOAT, (*first.shape, Size(0, count)))]


@rule("FeatureVectorizer", domain=ML)
def join_matrices(operation: Operation) -> Outputs:
    """Give matrices side by side as float32."""
    tensors = [operation.get_input(place) for place in range(len(operation.inputs))]
    widths = operation.get_integers("inputdimensions")
    operation.require(all(tensor.rank == 2 and tensor.dtype in _NUMBERS for tensor in tensors), "it takes matrices")
    operation.require(len({tensor.shape[0] for tensor in tensors}) == 1, "its matrices have not equally many rows")
    own = [operation.get_width(tensor) for tensor in tensors]
    operation.require(widths is not None and widths.tolist() == own, "it does not say how wide its matrices are")
    return [AbstractTensor(TensorProto.FLOAT, (tensors[0].shape[0], Size(0, sum(own))))]


@rule("LabelEncoder", domain=ML)
def encode_labels(operation: Operation) -> Outputs:
    """Give the value of each cell in a table."""
    first = operation.get_input(0)
    if operation.version < 2:
        operation.require(operation.get_texts("classes_strings"), "it has no table")
        return [_swap_text_and_integer(operation, first)]
    keys, values = _read_table_side(operation, "keys"), _read_table_side(operation, "values")
    operation.require(len(keys[1]) == len(values[1]) >= 1, "its table has not as many values as keys")
    operation.require(keys[0] == first.dtype, "its keys are of another type than its cells")
    default = operation.get_array("default_tensor")
    operation.require(default is None or default.size == 1, "it has more than one default")
    return [AbstractTensor(values[0], first.shape)]


@rule("CategoryMapper", domain=ML)
def map_categories(operation: Operation) -> Outputs:
    """Give integers for texts, or texts for integers."""
    texts, numbers = operation.get_texts("cats_strings"), operation.get_integers("cats_int64s")
    is_table = texts is not None and numbers is not None and len(texts) == len(numbers) >= 1
    operation.require(is_table, "its table has not as many values as keys")
    return [_swap_text_and_integer(operation, operation.get_input(0))]


def _swap_text_and_integer(operation: Operation, tensor: AbstractTensor) -> AbstractTensor:
    sides: dict[int, int] = {TensorProto.STRING: TensorProto.INT64, TensorProto.INT64: TensorProto.STRING}
    operation.require(tensor.dtype in sides, "it takes texts or integers")
    return AbstractTensor(sides[tensor.dtype], tensor.shape)


def _read_table_side(operation: Operation, name: str) -> tuple[int, Any]:
    """Return the element type and the values of one side of a table, which has several notations."""
    forms = {
        "int64s": (TensorProto.INT64, operation.get_integers),
        "floats": (TensorProto.FLOAT, operation.get_floats),
        "strings": (TensorProto.STRING, operation.get_texts),
    }
    named = [form for form in (*forms, "tensor") if f"{name}_{form}" in operation.attributes]
    operation.require(len(named) == 1, f"its {name} are not in one list")
    if named == ["tensor"]:
        found = operation.get_array(f"{name}_tensor")
        operation.require(found is not None and found.ndim == 1, f"its {name} are no list")
        return operation.attributes[f"{name}_tensor"].t.data_type, found
    dtype, read = forms[named[0]]
    return dtype, read(f"{name}_{named[0]}")


@rule("LinearClassifier", domain=ML)
def classify_linearly(operation: Operation) -> Outputs:
    """Give a label for each row, and a score for each class."""
    first, rows, width = require_matrix(operation)
    dtype, count = require_labels(operation)
    weights, intercepts = operation.get_floats("coefficients"), operation.get_floats("intercepts")
    operation.require(weights is not None and intercepts is not None, "it lacks coefficients or intercepts")
    assert weights is not None and intercepts is not None  # noqa: PT018
    scores = len(intercepts)
    operation.require(
        scores in (1, count) and len(weights) == scores * width, "its coefficients are not as many as it needs"
    )
    operation.require(count in (scores, 2), "it has other labels than scores")
    operation.scratch = operation.count_cells(first.shape).scale(4)
    return _describe_labels_and_scores(operation, dtype, rows, count)


@rule("LinearRegressor", domain=ML)
def predict_linearly(operation: Operation) -> Outputs:
    """Give one number for each row and target."""
    first, rows, width = require_matrix(operation)
    targets = operation.get_integer("targets", 1)
    weights, intercepts = operation.get_floats("coefficients"), operation.get_floats("intercepts")
    is_whole = weights is not None and targets >= 1 and len(weights) == targets * width
    operation.require(is_whole, "its coefficients are not as many as it needs")
    operation.require(
        intercepts is None or len(intercepts) in (0, targets), "its intercepts are not one for each target"
    )
    operation.scratch = operation.count_cells(first.shape).scale(4)
    return [AbstractTensor(TensorProto.FLOAT, (rows, Size(0, targets)))]


@rule("SVMClassifier", domain=ML)
def classify_by_vectors(operation: Operation) -> Outputs:
    """Give a label for each row, and scores: one for each class, or one for each pair of classes."""
    _, rows, width = require_matrix(operation)
    dtype, count = require_labels(operation)
    each = operation.get_integers("vectors_per_class")
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
    operation.scratch = rows.scale(taken)
    return _describe_labels_and_scores(operation, dtype, rows, count if has_shares or count == 2 else pairs)


@rule("SVMRegressor", domain=ML)
def predict_by_vectors(operation: Operation) -> Outputs:
    """Give one number for each row."""
    _, rows, width = require_matrix(operation)
    vectors = operation.get_integer("n_supports", 0)
    operation.require(vectors >= 1, "it has no vectors")
    _require_lengths(operation, {"support_vectors": vectors * width, "coefficients": vectors, "rho": 1})
    operation.scratch = rows.scale(4 * vectors)
    return [AbstractTensor(TensorProto.FLOAT, (rows, ONE))]


def _require_lengths(operation: Operation, wanted: dict[str, int]) -> None:
    for name, length in wanted.items():
        found = operation.get_floats(name)
        operation.require(found is not None and len(found) == length, f"{name} has not {length} numbers")
    parameters = operation.get_floats("kernel_params")
    operation.require(parameters is not None and len(parameters) == 3, "its kernel has not three parameters")
    operation.require(operation.get_text("kernel_type", "LINEAR") in _KERNELS, "its kernel is not known")


def _describe_labels_and_scores(operation: Operation, dtype: int, rows: Size, scores: int) -> Outputs:
    made = [AbstractTensor(dtype, (rows,)), AbstractTensor(TensorProto.FLOAT, (rows, Size(0, scores)))]
    return made[: operation.outputs]

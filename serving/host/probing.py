"""Find out by trying what a model does not remember: dtypes, the number of outputs, which features take null."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Container, Dtype, Method, Signature
from serving.host.estimator_model import EstimatorModel
from serving.host.input_columns import InputColumn
from serving.host.input_guessing import guess_input_values
from serving.host.output_tensors import is_finite, without_gaps
from serving.host.synthetic_rows import make_batch
from serving.rows.batch import Batch

MAX_SINGLE_FEATURES = 64

_SCORES = ("predict_proba", "decision_function")


def probe(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with a signature completed by trying it on made-up rows; it is asked a few times.

    A feature takes null when rows with nulls are answered with finite numbers, or by ``transform`` with gaps of its
    own. All features that may are tried at once; when that fails, those that the model treats alike together; when code
    that is not scikit-learn's is involved, at last one by one. Nothing here looks at the clock: the same file has the
    same signature each time it is loaded.
    """
    if any(column.dtype is None for column in model.columns):
        model = _settle_dtypes(model)
    outputs = count_outputs(model)
    if outputs is None:
        model = guess_input_values(model)
        outputs = count_outputs(model)
    signature = model.signature
    if outputs is not None:
        signature = signature.model_copy(update={"outputs": outputs, "methods": _working_methods(model)})
        if signature.container not in (Container.TEXTS, Container.OBJECTS):
            signature = _with_nulls(signature, _takes_null(model.under(signature)))
    return model.under(signature)


def count_outputs(model: EstimatorModel) -> int | None:
    """Return how many values ``predict``, or what there is instead, gives per row; None if made-up rows are refused."""
    method = "predict" if "predict" in model.signature.methods else model.signature.default_method
    try:
        tensors = model.answer(method, model.sample(1)).tensors
    except (InvalidInput, ModelFailed):
        return None
    if len(tensors) > 1:
        return len(tensors)
    tensor = tensors[0]
    if isinstance(tensor, np.ndarray):
        return int(np.prod(tensor.shape[1:], dtype=int))
    return len(tensor[0]) if isinstance(tensor[0], list) else 1


def _working_methods(model: EstimatorModel) -> tuple[Method, ...]:
    """Leave out methods that cannot answer the row the default one has just answered: they are offered in vain."""
    first, *others = model.signature.methods
    row = model.sample(1)
    return (first, *(method for method in others if _predicts(model, method, row)))


def _predicts(model: EstimatorModel, method: Method, batch: Batch) -> bool:
    try:
        model.answer(method, batch)
    except (InvalidInput, ModelFailed):
        return False
    return True


def _settle_dtypes(model: EstimatorModel) -> EstimatorModel:
    """Find out for columns nobody knows whether the model takes numbers there, strings, or both.

    In an array, what takes numbers is a number: only tables commonly hold columns of several kinds.
    """
    is_table = model.signature.container is Container.DATAFRAME
    unknown = _by_branch(model.columns, lambda column: column.dtype is None)
    if _answers(model, model.sample(2)):
        for members in unknown:
            takes_strings = is_table and _answers_as(model, members, Dtype.STRING)
            model = _with_dtype(model, members, Dtype.ANY if takes_strings else Dtype.NUMBER)
        return model
    everything = [index for members in unknown for index in members]
    takes_strings = _answers_as(model, everything, Dtype.STRING)
    return _with_dtype(model, everything, Dtype.STRING if takes_strings else Dtype.ANY)


def _takes_null(model: EstimatorModel) -> list[bool]:
    is_table = model.signature.container is Container.DATAFRAME
    may = [index for index, column in enumerate(model.columns) if column.takes_null is not False]
    takes: list[int] = []
    if _answers_nulls(model, may):
        takes = may
    else:
        branches = _by_branch(model.columns, lambda column: column.takes_null is not False)
        for members in branches:
            if len(branches) > 1 and _answers_nulls(model, members):
                takes += members
            elif is_table and model.has_foreign_parts and 1 < len(members) <= MAX_SINGLE_FEATURES:
                takes += [index for index in members if _answers_nulls(model, [index])]
        takes = takes if _answers_nulls(model, takes) else []
    chosen = set(takes)
    return [index in chosen for index in range(len(model.columns))]


def _by_branch(columns: Sequence[InputColumn], is_member: Callable[[InputColumn], bool]) -> list[list[int]]:
    """Return the positions of the columns that are meant, those the model treats alike together."""
    branches: dict[int, list[int]] = {}
    for index, column in enumerate(columns):
        if is_member(column):
            branches.setdefault(column.branch, []).append(index)
    return list(branches.values())


def _answers_nulls(model: EstimatorModel, members: Iterable[int]) -> bool:
    nulls = [False] * len(model.columns)
    for index in members:
        nulls[index] = True
    return any(nulls) and all(
        _answers(model, make_batch(model.signature, model.columns, rows, nulls), may_have_gaps=True) for rows in (1, 3)
    )


def _answers(model: EstimatorModel, batch: Batch, *, may_have_gaps: bool = False) -> bool:
    """Say whether the model answers with finite numbers; scores are looked at too, because a label always is one."""
    offered = model.signature.methods
    methods = [offered[0], *[method for method in _SCORES if method in offered and method != offered[0]][:1]]
    try:
        answers = [(method, tensor) for method in methods for tensor in model.answer(method, batch).tensors]
    except (InvalidInput, ModelFailed):
        return False
    if may_have_gaps:
        answers = [(method, without_gaps(method, tensor)) for method, tensor in answers]
    return all(is_finite(tensor).all() for _, tensor in answers)


def _answers_as(model: EstimatorModel, members: Sequence[int], dtype: Dtype) -> bool:
    tried = _with_dtype(model, members, dtype)
    return _answers(tried, tried.sample(2))


def _with_dtype(model: EstimatorModel, members: Sequence[int], dtype: Dtype) -> EstimatorModel:
    features = list(model.signature.features)
    for index in members:
        features[index] = features[index].model_copy(update={"dtype": dtype})
    return model.under(model.signature.model_copy(update={"features": tuple(features)}))


def _with_nulls(signature: Signature, takes_null: Sequence[bool]) -> Signature:
    features = tuple(
        feature.model_copy(update={"nullable": takes or not feature.is_used})
        for feature, takes in zip(signature.features, takes_null, strict=True)
    )
    return signature.model_copy(update={"features": features})

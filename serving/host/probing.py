"""Completes a signature by trying the model: dtypes, the number of outputs, and which features take null."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Container, Dtype, Method, Signature
from serving.host.estimator_model import EstimatorModel
from serving.host.input_columns import InputColumn
from serving.host.input_guessing import guess_input_values
from serving.host.output_tensors import fill_gaps, is_finite
from serving.host.synthetic_rows import make_batch
from serving.rows.batch import Batch

MAX_SINGLE_FEATURES = 64

_SCORES = ("predict_proba", "decision_function")


def probe_signature(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with a signature that was completed by running the model on a few made-up rows.

    A feature takes null when the answers to rows with nulls are finite; NaN in an answer of ``transform`` counts as
    finite. First all features that may take null are tried together; when that fails, the features of each branch; and
    when code from outside scikit-learn is involved, single features. No step depends on time: the same file gets the
    same signature each time it is loaded.
    """
    if any(column.dtype is None for column in model.columns):
        model = _probe_dtypes(model)
    outputs = count_outputs(model)
    if outputs is None:
        model = guess_input_values(model)
        outputs = count_outputs(model)
    signature = model.signature
    if outputs is not None:
        signature = signature.model_copy(update={"outputs": outputs, "methods": _find_working_methods(model)})
        if signature.container not in (Container.TEXTS, Container.OBJECTS):
            signature = _set_nullable(signature, _probe_nulls(model.with_signature(signature)))
    return model.with_signature(signature)


def count_outputs(model: EstimatorModel) -> int | None:
    """Return how many values ``predict`` or else the default method gives per row; None if it refuses made-up rows."""
    method = "predict" if "predict" in model.signature.methods else model.signature.default_method
    try:
        tensors = model.answer(method, model.make_rows(1)).tensors
    except (InvalidInput, ModelFailed):
        return None
    if len(tensors) > 1:
        return len(tensors)
    tensor = tensors[0]
    if isinstance(tensor, np.ndarray):
        return int(np.prod(tensor.shape[1:], dtype=int))
    return len(tensor[0]) if isinstance(tensor[0], list) else 1


def _find_working_methods(model: EstimatorModel) -> tuple[Method, ...]:
    """Return the methods without those that fail on a row which the default method answers."""
    first, *others = model.signature.methods
    row = model.make_rows(1)
    return (first, *(method for method in others if _can_answer(model, method, row)))


def _can_answer(model: EstimatorModel, method: Method, batch: Batch) -> bool:
    try:
        model.answer(method, batch)
    except (InvalidInput, ModelFailed):
        return False
    return True


def _probe_dtypes(model: EstimatorModel) -> EstimatorModel:
    """Return `model` with dtypes for the unknown columns: whether it takes numbers there, strings, or both.

    In an array, a column that takes numbers is a number column: only tables commonly hold columns of several dtypes.
    """
    is_table = model.signature.container is Container.DATAFRAME
    unknown = _group_by_branch(model.columns, lambda column: column.dtype is None)
    if _has_finite_answers(model, model.make_rows(2)):
        for members in unknown:
            takes_strings = is_table and _has_finite_answers_with_dtype(model, members, Dtype.STRING)
            model = _set_dtype(model, members, Dtype.ANY if takes_strings else Dtype.NUMBER)
        return model
    everything = [index for members in unknown for index in members]
    takes_strings = _has_finite_answers_with_dtype(model, everything, Dtype.STRING)
    return _set_dtype(model, everything, Dtype.STRING if takes_strings else Dtype.ANY)


def _probe_nulls(model: EstimatorModel) -> list[bool]:
    is_table = model.signature.container is Container.DATAFRAME
    may = [index for index, column in enumerate(model.columns) if column.takes_null is not False]
    takes: list[int] = []
    if _has_finite_answers_with_nulls(model, may):
        takes = may
    else:
        branches = _group_by_branch(model.columns, lambda column: column.takes_null is not False)
        for members in branches:
            if len(branches) > 1 and _has_finite_answers_with_nulls(model, members):
                takes += members
            elif is_table and model.has_foreign_parts and 1 < len(members) <= MAX_SINGLE_FEATURES:
                takes += [index for index in members if _has_finite_answers_with_nulls(model, [index])]
        takes = takes if _has_finite_answers_with_nulls(model, takes) else []
    chosen = set(takes)
    return [index in chosen for index in range(len(model.columns))]


def _group_by_branch(columns: Sequence[InputColumn], is_member: Callable[[InputColumn], bool]) -> list[list[int]]:
    """Return the positions of the columns for which `is_member` is true, one list for each branch."""
    branches: dict[int, list[int]] = {}
    for index, column in enumerate(columns):
        if is_member(column):
            branches.setdefault(column.branch, []).append(index)
    return list(branches.values())


def _has_finite_answers_with_nulls(model: EstimatorModel, members: Iterable[int]) -> bool:
    nulls = [False] * len(model.columns)
    for index in members:
        nulls[index] = True
    return any(nulls) and all(
        _has_finite_answers(model, make_batch(model.signature, model.columns, rows, nulls), may_have_gaps=True)
        for rows in (1, 3)
    )


def _has_finite_answers(model: EstimatorModel, batch: Batch, *, may_have_gaps: bool = False) -> bool:
    """Say whether the model answers with finite numbers; scores are checked too, because labels are always finite."""
    offered = model.signature.methods
    methods = [offered[0], *[method for method in _SCORES if method in offered and method != offered[0]][:1]]
    try:
        answers = [(method, tensor) for method in methods for tensor in model.answer(method, batch).tensors]
    except (InvalidInput, ModelFailed):
        return False
    if may_have_gaps:
        answers = [(method, fill_gaps(method, tensor)) for method, tensor in answers]
    return all(is_finite(tensor).all() for _, tensor in answers)


def _has_finite_answers_with_dtype(model: EstimatorModel, members: Sequence[int], dtype: Dtype) -> bool:
    tried = _set_dtype(model, members, dtype)
    return _has_finite_answers(tried, tried.make_rows(2))


def _set_dtype(model: EstimatorModel, members: Sequence[int], dtype: Dtype) -> EstimatorModel:
    features = list(model.signature.features)
    for index in members:
        features[index] = features[index].model_copy(update={"dtype": dtype})
    return model.with_signature(model.signature.model_copy(update={"features": tuple(features)}))


def _set_nullable(signature: Signature, takes_null: Sequence[bool]) -> Signature:
    features = tuple(
        feature.model_copy(update={"nullable": takes or not feature.is_used})
        for feature, takes in zip(signature.features, takes_null, strict=True)
    )
    return signature.model_copy(update={"features": features})

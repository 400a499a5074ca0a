"""Gate: whether the model may answer rows of several requests together. It refuses no candidate."""

from __future__ import annotations

from time import monotonic
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.report import GateName, Verdict
from serving.host.boosters import library_of
from serving.host.comparison import relative_distances
from serving.host.estimator_model import EstimatorModel
from serving.host.gates.gate import GateContext, GateOutcome
from serving.host.model import LoadedModel
from serving.host.nested_estimators import is_from_sklearn, walk_nested_estimators
from serving.rows.batch import Batch, Prediction, Tensor

ROWS = 12
MIN_ROWS = 2
SECONDS = 0.5

# estimators of scikit-learn whose answer to a row depends on the other rows too, or on chance
_MIXES_ROWS = frozenset({"NMF", "MiniBatchNMF", "BernoulliRBM", "PatchExtractor"})


class BatchingGate:
    """The answer to a row does not depend on the rows beside it or on their order.

    Almost all estimators of scikit-learn and of the boosters compute row by row. Other code and ONNX graphs are tried.
    Without a proof requests are never merged: each one goes to the model alone.
    """

    name = GateName.BATCHING

    def check(self, context: GateContext) -> GateOutcome:
        """Check the parts of the model, or answer rows one by one and together, for about a second at most."""
        model = context.loaded_model
        unknown = why_rows_may_interact(model)
        if unknown is None:
            return Verdict.PASSED, "requests may be merged: every part is known to answer row by row"
        reason = why_rows_interact(model) or _why_answers_differ(context, model)
        if reason is not None:
            context.why_one_by_one = reason
            return Verdict.WARNED, f"requests are answered one by one, never merged: {reason}"
        asked = (
            f"{', '.join(model.signature.methods)} gave the same answers to rows alone, together and in another order"
        )
        return Verdict.PASSED, f"requests may be merged: {unknown}, but {asked}"


def why_rows_interact(model: LoadedModel) -> str | None:
    """Name a part from scikit-learn that uses more than one row for an answer, None where there is none."""
    parts = walk_nested_estimators(model.estimator) if isinstance(model, EstimatorModel) else ()
    names = (type(part).__name__ for part in parts if is_from_sklearn(part))
    return next(
        (f"{name} uses other rows, or chance, for the answer to a row" for name in names if name in _MIXES_ROWS), None
    )


def why_rows_may_interact(model: LoadedModel) -> str | None:
    """Name a part of the model that might use more than one row for an answer, None where there is none."""
    if not isinstance(model, EstimatorModel):
        return "a graph may mix rows"
    for part in walk_nested_estimators(model.estimator):
        name = type(part).__name__
        is_known = is_from_sklearn(part) or library_of(part) is not None
        if not is_known or name in _MIXES_ROWS or getattr(part, "sample_posterior", False) is True:
            return f"{name} may mix rows"
        for parameter, value in vars(part).items():
            if _is_foreign_function(value, parameter):
                return f"{name}.{parameter} is a function that may mix rows"
    return None


def _is_foreign_function(value: Any, parameter: str) -> bool:
    if parameter == "func" and value is not None:  # FunctionTransformer's
        return not (isinstance(value, np.ufunc) and value.nin == 1 and value.signature is None)
    is_function = isinstance(value, (FunctionType, MethodType)) or type(value).__name__ == "partial"
    return is_function and not str(getattr(value, "__module__", "")).startswith("sklearn.")


def _why_answers_differ(context: GateContext, model: LoadedModel) -> str | None:
    """Say which answer depended on the other rows, None where none did."""
    if context.why_unanswerable is not None:
        return context.why_unanswerable
    for batch in _make_tried_rows(context, model):
        if not _has_different_rows(batch):
            return "there are not two different rows to try"
        for method in model.signature.methods:
            try:
                reason = _why_method_differs(model, method, batch, context.request.compile.tolerance)
            except (InvalidInput, ModelFailed) as error:
                return f"{method} does not answer the rows it was tried with: {error}"
            if reason is not None:
                return reason
    return None


def _make_tried_rows(context: GateContext, model: LoadedModel) -> list[Batch]:
    """Return made-up rows, and rows with nulls where the model takes them; golden rows if it refuses made-up rows."""
    batches = [model.make_rows(ROWS)]
    if any(feature.nullable for feature in model.signature.features):
        batches.append(model.make_rows(ROWS, with_nulls=True))
    if context.takes_example:
        return [
            _pick_rows(context.pick_rows(len(context.example_rows)), np.arange(min(ROWS, len(context.example_rows))))
        ]
    if context.golden is not None:
        try:
            model.answer(model.signature.default_method, batches[0])
        except (InvalidInput, ModelFailed):
            golden = context.pick_rows(len(context.golden.instances))
            return [_pick_rows(golden, np.arange(min(ROWS, golden.rows)))]
    return batches


def _why_method_differs(model: LoadedModel, method: str, batch: Batch, tolerance: float) -> str | None:
    order = np.arange(batch.rows)
    begin = monotonic()
    seconds = SECONDS / len(model.signature.methods)
    together = model.answer(method, batch)
    if monotonic() - begin < seconds:
        turned = model.answer(method, _pick_rows(batch, order[::-1]))
        if (row := _find_first_difference(together, _pick_answers(turned, order[::-1]), tolerance)) is not None:
            return f"{method} gives another answer to row {row} when the rows are in another order"
    for row in order.tolist():
        alone = model.answer(method, _pick_rows(batch, order[row : row + 1]))
        if _find_first_difference(_pick_answers(together, order[row : row + 1]), alone, tolerance) is not None:
            return f"{method} gives another answer to row {row} when it is alone"
        if row + 1 >= MIN_ROWS and monotonic() - begin > seconds:
            break
    return None


def _pick_rows(batch: Batch, places: Any) -> Batch:
    """Return the rows of a batch at `places`, in this order."""
    if batch.matrix is not None:
        return Batch(len(places), matrix=np.ascontiguousarray(batch.matrix[places]))
    columns = batch.columns or ()
    taken = [
        column[places] if isinstance(column, np.ndarray) else [column[place] for place in places] for column in columns
    ]
    return Batch(len(places), columns=tuple(taken))


def _pick_answers(prediction: Prediction, places: Any) -> Prediction:
    parts = [
        part[places] if isinstance(part, np.ndarray) else [part[place] for place in places]
        for part in prediction.tensors
    ]
    return Prediction(tuple(parts))


def _has_different_rows(batch: Batch) -> bool:
    if batch.matrix is not None:
        return any(not np.array_equal(batch.matrix[0], row, equal_nan=True) for row in batch.matrix[1:])
    columns = batch.columns or ()
    return any(repr(column[0]) != repr(cell) for column in columns for cell in column[1:])  # NaN equals NaN


def _find_first_difference(wanted: Prediction, given: Prediction, tolerance: float) -> int | None:
    """Return the first row whose answers differ by more than the tolerance of compiled forms, None where none does."""
    if len(wanted.tensors) != len(given.tensors):
        return 0
    for mine, theirs in zip(wanted.tensors, given.tensors, strict=True):
        differ = _find_differing_rows(mine, theirs, tolerance)
        if differ.any():
            return int(differ.argmax())
    return None


def _find_differing_rows(wanted: Tensor, given: Tensor, tolerance: float) -> Any:
    if not isinstance(wanted, np.ndarray) or not isinstance(given, np.ndarray):
        return np.array([repr(mine) != repr(theirs) for mine, theirs in zip(wanted, given, strict=True)])
    if wanted.shape != given.shape or wanted.dtype != given.dtype:
        return np.ones(len(wanted), dtype=np.bool_)
    differ = wanted != given if wanted.dtype.kind != "f" else relative_distances(wanted, given) > tolerance
    return differ.reshape(len(wanted), -1).any(axis=1)

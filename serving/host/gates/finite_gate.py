"""Gate: every method answers with finite numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.manifest import GOLDEN_NAME
from serving.domain.report import GateName, Verdict
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused
from serving.host.model import LoadedModel
from serving.host.output_tensors import fill_gaps, is_finite
from serving.rows.batch import Batch, Tensor

ROWS = 8
MAX_GOLDEN_ROWS = 256
ADVICE = f"publish it with rows that it takes ('golden' of serving.publish, or {GOLDEN_NAME})"

_MAY_BE_MINUS_INFINITY = ("predict_log_proba", "score_samples")


class FiniteGate:
    """Every method of the signature gives finite answers to golden rows, or else to made-up rows.

    Made-up rows are only a guess at the rows that the model takes. If some answers are not finite, that is a warning;
    if none is, the model is broken and refused. If the model refuses all rows, nothing is known of its answers, so it
    must not replace a version that answers: it is refused, unless these bytes were accepted before.
    """

    name = GateName.FINITE

    def check(self, context: GateContext) -> GateOutcome:
        """Answer the rows with every method; made-up rows also with null for every nullable value."""
        model = context.loaded_model
        golden = context.golden
        if golden is not None:
            batch = context.pick_rows(min(len(golden.instances), MAX_GOLDEN_ROWS))
            notes = [_find_not_finite(model, method, batch, "golden") for method in model.signature.methods]
            if any(notes):
                raise GateRefused("; ".join(filter(None, notes)))
            return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {batch.rows} golden rows"
        batch = model.make_rows(ROWS)
        try:
            model.answer(model.signature.default_method, batch)
        except InvalidInput as error:
            if _try_example(context):
                return _judge_example(context)
            context.why_unanswerable = f"the model refuses made-up rows ({error})"
            if not context.request.was_accepted:
                raise GateRefused(f"no row was answered: {context.why_unanswerable}; {ADVICE}") from None
            return Verdict.WARNED, f"{context.why_unanswerable}: add {GOLDEN_NAME} to have its answers checked"
        notes = [_find_not_finite(model, method, batch, "made-up") for method in model.signature.methods]
        tried = f"{ROWS} made-up rows"
        nullable = [feature.name for feature in model.signature.features if feature.nullable]
        if nullable:
            nulls = model.make_rows(ROWS, with_nulls=True)
            notes += [_find_not_finite_with_nulls(model, method, nulls, nullable) for method in model.signature.methods]
            tried += f" and {ROWS} with nulls"
        if any(notes):
            return Verdict.WARNED, "; ".join(filter(None, notes))
        return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {tried}"


def _try_example(context: GateContext) -> bool:
    """Say whether the model answers the rows of MLflow's input example, and note it in `context`."""
    context.takes_example = bool(context.example_rows)
    try:
        if context.example_rows:
            context.loaded_model.answer(
                context.loaded_model.signature.default_method, context.pick_rows(len(context.example_rows))
            )
    except (InvalidInput, ModelFailed):
        context.takes_example = False
    return context.takes_example


def _judge_example(context: GateContext) -> GateOutcome:
    model, batch = context.loaded_model, context.pick_rows(len(context.example_rows))
    notes = [_find_not_finite(model, method, batch, "example") for method in model.signature.methods]
    if any(notes):
        return Verdict.WARNED, "; ".join(filter(None, notes))
    return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {batch.rows} rows of MLflow's input example"


def _find_not_finite(
    model: LoadedModel, method: str, batch: Batch, source: str, *, has_nulls: bool = False
) -> str | None:
    """Return which answers are not finite, None if all are finite; raises GateRefused if none is."""
    try:
        tensors = model.answer(method, batch).tensors
    except (InvalidInput, ModelFailed) as error:
        raise GateRefused(f"{method} does not answer {source} rows: {error}") from None
    if has_nulls:
        tensors = tuple(fill_gaps(method, tensor) for tensor in tensors)
    bad = ~np.logical_and.reduce([_is_acceptable(tensor, method) for tensor in tensors])
    if not bad.any():
        return None
    if bad.all():
        raise GateRefused(f"{method} is not finite (NaN or infinity) for any of {len(bad)} {source} rows")
    return f"{method} is not finite for {bad.sum()} of {len(bad)} {source} rows, first for row {bad.argmax()}"


def _find_not_finite_with_nulls(model: LoadedModel, method: str, batch: Batch, nullable: list[str]) -> str | None:
    try:
        return _find_not_finite(model, method, batch, "null", has_nulls=True)
    except GateRefused as error:
        names = ", ".join(f"'{name}'" for name in nullable[:3]) + (", ..." if len(nullable) > 3 else "")
        raise GateRefused(f"the signature says that {names} may be null, but {error}") from None


def _is_acceptable(tensor: Tensor, method: str) -> NDArray[np.bool_]:
    if method in _MAY_BE_MINUS_INFINITY and isinstance(tensor, np.ndarray) and tensor.dtype.kind == "f":
        tensor = np.where(np.isneginf(tensor), 0, tensor)
    return is_finite(tensor)

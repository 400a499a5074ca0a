"""Gate: every method answers with numbers that are numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.manifest import GOLDEN_NAME
from serving.domain.report import GateName, Verdict
from serving.host.gates.gate import Context, Outcome, Refused
from serving.host.model import LoadedModel
from serving.host.output_tensors import fill_gaps, is_finite
from serving.rows.batch import Batch, Tensor

ROWS = 8
MAX_GOLDEN_ROWS = 256
ADVICE = f"publish it with rows that it takes ('golden' of serving.publish, or {GOLDEN_NAME})"

_MAY_BE_MINUS_INFINITY = ("predict_log_proba", "score_samples")


class Finite:
    """Golden rows, or else made-up ones, get finite answers from every method of the signature.

    Made-up rows are only a guess at what the model takes. When it answers some with a number that is not finite, that
    is a warning; when no answer at all is finite, the model is broken. When it refuses all of them nothing is known of
    its answers, so it must not take over from a version that answers: it is refused, unless these bytes were accepted
    before.
    """

    name = GateName.FINITE

    def check(self, context: Context) -> Outcome:
        """Answer the rows with every method; on made-up ones also with every nullable value left out."""
        model = context.loaded
        golden = context.golden
        if golden is not None:
            batch = context.rows(min(len(golden.instances), MAX_GOLDEN_ROWS))
            notes = [_look(model, method, batch, "golden") for method in model.signature.methods]
            if any(notes):
                raise Refused("; ".join(filter(None, notes)))
            return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {batch.rows} golden rows"
        batch = model.make_rows(ROWS)
        try:
            model.answer(model.signature.default_method, batch)
        except InvalidInput as error:
            if _takes_example(context):
                return _look_at_example(context)
            context.unanswerable = f"made-up rows are not for this model ({error})"
            if not context.request.was_accepted:
                raise Refused(f"no row was answered: {context.unanswerable}; {ADVICE}") from None
            return Verdict.WARNED, f"{context.unanswerable}: add {GOLDEN_NAME} to have its answers checked"
        notes = [_look(model, method, batch, "made-up") for method in model.signature.methods]
        tried = f"{ROWS} made-up rows"
        nullable = [feature.name for feature in model.signature.features if feature.nullable]
        if nullable:
            nulls = model.make_rows(ROWS, with_nulls=True)
            notes += [_look_at_nulls(model, method, nulls, nullable) for method in model.signature.methods]
            tried += f" and {ROWS} with nulls"
        if any(notes):
            return Verdict.WARNED, "; ".join(filter(None, notes))
        return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {tried}"


def _takes_example(context: Context) -> bool:
    """Say whether the model answers the rows of MLflow's input example, and note it."""
    context.takes_example = bool(context.example)
    try:
        if context.example:
            context.loaded.answer(context.loaded.signature.default_method, context.rows(len(context.example)))
    except (InvalidInput, ModelFailed):
        context.takes_example = False
    return context.takes_example


def _look_at_example(context: Context) -> Outcome:
    model, batch = context.loaded, context.rows(len(context.example))
    notes = [_look(model, method, batch, "example") for method in model.signature.methods]
    if any(notes):
        return Verdict.WARNED, "; ".join(filter(None, notes))
    return Verdict.PASSED, f"{', '.join(model.signature.methods)} finite on {batch.rows} rows of MLflow's input example"


def _look(model: LoadedModel, method: str, batch: Batch, source: str, *, has_nulls: bool = False) -> str | None:
    """Return what is not finite in the answers, None when all is; raises Refused when nothing is finite."""
    try:
        tensors = model.answer(method, batch).tensors
    except (InvalidInput, ModelFailed) as error:
        raise Refused(f"{method} does not answer {source} rows: {error}") from None
    if has_nulls:
        tensors = tuple(fill_gaps(method, tensor) for tensor in tensors)
    bad = ~np.logical_and.reduce([_is_right(tensor, method) for tensor in tensors])
    if not bad.any():
        return None
    if bad.all():
        raise Refused(f"{method} is not finite (NaN or infinity) for any of {len(bad)} {source} rows")
    return f"{method} is not finite for {bad.sum()} of {len(bad)} {source} rows, first for row {bad.argmax()}"


def _look_at_nulls(model: LoadedModel, method: str, batch: Batch, nullable: list[str]) -> str | None:
    try:
        return _look(model, method, batch, "null", has_nulls=True)
    except Refused as error:
        names = ", ".join(f"'{name}'" for name in nullable[:3]) + (", ..." if len(nullable) > 3 else "")
        raise Refused(f"the signature says that {names} may be null, but {error}") from None


def _is_right(tensor: Tensor, method: str) -> NDArray[np.bool_]:
    if method in _MAY_BE_MINUS_INFINITY and isinstance(tensor, np.ndarray) and tensor.dtype.kind == "f":
        tensor = np.where(np.isneginf(tensor), 0, tensor)
    return is_finite(tensor)

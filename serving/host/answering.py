"""Answer requests with a model: one alone, or several as one batch whose answer is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from serving.domain.errors import InvalidInput, ModelFailed
from serving.host.model import LoadedModel, describe_exception
from serving.rows.batch import Batch, why_not_an_answer
from serving.rows.batch_merging import merge_batches, split_prediction
from serving.wire.frames import Buffer, FrameKind
from serving.wire.payloads import encode_answer, encode_detail


class FrameAnswer(NamedTuple):
    """What a frame says that answers a request."""

    kind: FrameKind
    header: bytes
    buffers: Sequence[Buffer] = ()


def answer_alone(model: LoadedModel, method: str, batch: Batch) -> FrameAnswer:
    """Answer one batch; what the model raises becomes a REFUSAL or FAILURE. Blocks."""
    try:
        return _encode(*encode_answer(model.answer(method, batch), batch.rows))
    except InvalidInput as error:
        return FrameAnswer(FrameKind.REFUSAL, encode_detail(str(error)))
    except (ModelFailed, MemoryError, TypeError) as error:
        return fail(error)


def fail(error: Exception) -> FrameAnswer:
    """Return the answer that says how a model, or this process, has failed."""
    detail = str(error) if isinstance(error, ModelFailed) else describe_exception(error)
    return FrameAnswer(FrameKind.FAILURE, encode_detail(detail))


def answer_together(model: LoadedModel, method: str, batches: Sequence[Batch]) -> list[FrameAnswer] | None:
    """Answer batches of one layout as one; None when that fails: then the fault may be in any of them. Blocks."""
    rows = [batch.rows for batch in batches]
    try:
        prediction = model.answer(method, merge_batches(batches))
        if why_not_an_answer(prediction.tensors, sum(rows)) is not None:
            return None
        parts = zip(split_prediction(prediction, rows), rows, strict=True)
        return [_encode(*encode_answer(part, count)) for part, count in parts]
    except (InvalidInput, ModelFailed, MemoryError, TypeError, ValueError):
        return None


def _encode(header: bytes, buffers: Sequence[Buffer]) -> FrameAnswer:
    return FrameAnswer(FrameKind.PREDICTION, header, buffers)

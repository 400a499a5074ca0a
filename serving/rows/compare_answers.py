"""Compares what two versions answer to the same rows, output by output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.domain.answer_pair import MOST_DIFFERENCE, MOST_OUTPUTS, AnswerPair, OutputPair
from serving.domain.signature import Method, ModelKind, Signature
from serving.rows.batch import Prediction, Tensor

Outputs = Sequence[tuple[Method, Prediction]]
"""What each method that was asked for has given, in the order they were asked for."""

_LABELLED = (ModelKind.CLASSIFIER, ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR)


def compare_answers(new: Outputs, old: Outputs, signature: Signature) -> AnswerPair:
    """Compare the answers of two versions to the same rows. `signature` is the old one's. Computes only; any thread.

    The side that has a number that is not finite where the other one has a finite one has answered badly. Each column
    of ``predict`` is an output of its own, as their units may differ; each array of another method is one.
    """
    is_new_bad = is_old_bad = False
    outputs = []
    for method, place, after, before in islice(_pair_outputs(new, old), MOST_OUTPUTS):
        is_label = method == "predict" and signature.kind in _LABELLED
        if is_label or not _are_numbers(after, before):
            outputs.append(OutputPair(method, place, len(before), _count_differing(after, before)))
            continue
        pair, has_new_lost, has_old_lost = _compare_numbers(method, place, after, before)
        outputs.append(pair)
        is_new_bad, is_old_bad = is_new_bad or has_new_lost, is_old_bad or has_old_lost
    return AnswerPair(is_new_bad, is_old_bad, tuple(outputs))


def _pair_outputs(new: Outputs, old: Outputs) -> Iterator[tuple[Method, int, Tensor, Tensor]]:
    for (new_method, after), (method, before) in zip(new, old, strict=True):
        old_outputs = _list_outputs(method, before)
        new_outputs = _list_outputs(new_method, after)
        if new_method != method or len(new_outputs) != len(old_outputs):  # nothing is as it was
            new_outputs = [[None] * len(each) for each in old_outputs]
        first = 0 if len(old_outputs) == 1 else 1
        for place, (one, other) in enumerate(zip(new_outputs, old_outputs, strict=True), first):
            yield method, place, one, other


def _list_outputs(method: Method, prediction: Prediction) -> list[Tensor]:
    tensors = prediction.tensors
    only = tensors[0]
    if len(tensors) == 1 and method == "predict" and isinstance(only, np.ndarray) and only.ndim > 1:
        return list(only.reshape(len(only), -1).T)
    return list(tensors)


def _are_numbers(new: Tensor, old: Tensor) -> bool:
    return (
        isinstance(new, np.ndarray)
        and isinstance(old, np.ndarray)
        and new.shape == old.shape
        and new.dtype.kind in "iuf"
        and old.dtype.kind in "iuf"
    )


def _count_differing(new: Tensor, old: Tensor) -> int:
    if isinstance(new, np.ndarray) and isinstance(old, np.ndarray):
        if new.shape != old.shape:
            return len(old)
        differs: Any = new != old
        if new.dtype.kind == old.dtype.kind == "f":
            differs &= ~(np.isnan(new) & np.isnan(old))
        return int(np.count_nonzero(differs.any(axis=tuple(range(1, differs.ndim)))))
    after, before = _plain(new), _plain(old)
    return sum(one != other for one, other in zip(after, before, strict=True))


def _plain(tensor: Tensor) -> list[Any]:
    return tensor.tolist() if isinstance(tensor, np.ndarray) else tensor


def _compare_numbers(method: Method, place: int, new: Any, old: Any) -> tuple[OutputPair, bool, bool]:
    """Return the comparison, and whether the new and the old answer lack a number that the other one has."""
    rows = len(old)
    after: NDArray[np.float64] = new.reshape(rows, -1).astype(np.float64, copy=False)
    before: NDArray[np.float64] = old.reshape(rows, -1).astype(np.float64, copy=False)
    has_after, has_before = np.isfinite(after), np.isfinite(before)
    is_lost, is_found = has_before & ~has_after, has_after & ~has_before
    differing = int(np.count_nonzero((is_lost | is_found).any(axis=1)))
    total = worst = 0.0
    if before.size:
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.where(has_after & has_before, np.minimum(np.abs(after - before), MOST_DIFFERENCE), 0.0)
            total = min(float(apart.mean(axis=1).sum()), MOST_DIFFERENCE)
        worst = float(apart.max())
    return OutputPair(method, place, rows, differing, total, worst), bool(is_lost.any()), bool(is_found.any())

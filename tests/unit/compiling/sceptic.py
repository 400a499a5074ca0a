"""A sceptic: gives estimator and compiled form the same adversarial rows, which are not those of the proof.

Numbers of every size of float64, from 5e-324 to 1.7e308: alone, in whole rows and mixed in one row, exactly and one ulp
to each side, within the guard of the proof. All rows that the guard accepts must be answered alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling.convert import convert_estimator
from serving.compiling.prove import prove_graphs
from serving.compiling.prover import CANCELLED
from serving.domain.compiled_form import Guard
from serving.domain.errors import InvalidInput, ServingError
from serving.domain.signature import Dtype, ModelKind
from serving.host.estimator_model import EstimatorModel
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.signature_of_estimator import examine_estimator
from serving.plane.graph import GraphSession
from serving.rows.batch import Batch

TOLERANCE = 1e-5
EPS = float(np.finfo(np.float64).eps)
ENORMOUS = 1e9  # below that, no answer is excused
SIZES = np.array(
    [0.0, 5e-324, 1e-323, 1e-320, 1e-310, 2.2250738585072014e-308, EPS, 10 * EPS, 3.4028234663852886e38, 1.7e308]
    + [10.0**power for power in (-300, -200, -162, -161, -155, -154, -150, -100, -50, -45, -40, -38, -35, -30, -25)]
    + [10.0**power for power in range(-20, 21)]
    + [10.0**power for power in (25, 30, 38, 50, 100, 150, 154, 155, 200, 300)]
)
_LABELLED = (ModelKind.CLASSIFIER, ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR)


@dataclass
class Finding:
    """The result for one estimator: why it has no compiled form, or how many answers were compared and which differ.

    `unsteady` counts rows whose answers differ by no more than the estimator's own do when the row is asked alone, or
    when its numbers, enormous ones among them, are changed by one ulp: sums that cancel out.
    """

    name: str
    reason: str | None = None
    rows: int = 0
    answers: int = 0
    unsteady: int = 0
    differences: list[str] = field(default_factory=list)


def compare_on_hard_rows(name: str, fit: Callable[[], Any], rows: int = 2000, seed: int = 0) -> Finding:
    """Fit, compile and prove as a host does, then compare the answers to `rows` hard rows. Blocks for seconds."""
    with warnings.catch_warnings(action="ignore"):
        model = examine_estimator(fit())
        if any(feature.dtype is not Dtype.NUMBER for feature in model.signature.features):
            return Finding(name, "takes more than numbers")
        try:
            bounded = bound_graphs([convert_estimator(model)], model.signature)
            proof = prove_graphs(model, list(bounded.graphs), TOLERANCE, [], bounded.bounds.rows)
        except ServingError as error:
            return Finding(name, str(error))
        asked = make_hard_rows(model, proof.guard, rows, seed)
        return _compare_answers(Finding(name, rows=len(asked)), model, GraphSession(bounded.graphs[0]), asked)


def make_hard_rows(model: EstimatorModel, guard: Guard, rows: int, seed: int) -> NDArray[np.float64]:
    """Return rows of numbers of every size within `guard`: mixed, equal, one among plausible ones, similar sizes."""
    random = np.random.default_rng(seed)
    width, count = len(model.signature.features), rows // 4
    low = np.array([0.25 if column.low is None else column.low for column in model.columns])
    high = np.array([1.75 if column.high is None else column.high for column in model.columns])
    plausible = low + (high - low) * random.uniform(-0.25, 1.25, (count, width))
    most = np.inf if guard.largest is None else guard.largest
    sizes = SIZES[most >= SIZES]

    def vary_sizes(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        way = random.integers(0, 4, numbers.shape)
        signed = numbers * random.choice([1.0, -1.0], numbers.shape)
        signed = np.where(way == 0, signed * random.uniform(0.1, 1, numbers.shape), signed)
        beside = np.nextafter(signed, np.where(way == 1, np.inf, -np.inf))
        return np.where((way == 1) | (way == 2), beside, signed)

    alone = plausible.copy()
    alone[np.arange(count), random.integers(0, width, count)] = vary_sizes(random.choice(sizes, count))
    places = random.integers(0, len(sizes), (count, 1)) + random.integers(0, 6, (count, width))
    made = np.concatenate(
        [
            vary_sizes(random.choice(sizes, (count, width))),
            vary_sizes(np.repeat(random.choice(sizes, (count, 1)), width, axis=1)),
            vary_sizes(np.sort(sizes)[np.minimum(places, len(sizes) - 1)]),
            alone,
        ]
    )
    made = np.clip(made, -most if guard.smallest is None else guard.smallest, most)
    for at, known in guard.known.items():
        made[:, at] = random.choice(np.array(known, dtype=np.float64), len(made))
    return np.ascontiguousarray(made)


def _compare_answers(
    finding: Finding, model: EstimatorModel, session: GraphSession, rows: NDArray[np.float64]
) -> Finding:
    batch = Batch(len(rows), matrix=rows)
    ordinary = model.make_rows(64)
    sizes = np.abs(rows).max(axis=1)
    least = np.where(sizes <= 1e-8, CANCELLED * sizes, np.inf)  # tiny rows are held to the scale of each
    for method in model.signature.methods:
        try:
            wanted = model.answer(method, batch).tensors
        except InvalidInput as error:
            finding.differences.append(f"{method}: the estimator refuses rows that the guard lets through: {error}")
            continue
        plain, given = model.answer(method, ordinary).tensors, session.answer(method, batch).tensors
        for place, (its, mine, usual) in enumerate(zip(wanted, given, plain, strict=True)):
            theirs, ours = np.asarray(its), np.asarray(mine)
            finding.answers += theirs.size
            is_label = theirs.dtype.kind != "f" or (method == "predict" and model.signature.kind in _LABELLED)
            by_row = least if method == "transform" else None
            is_wrong = theirs != ours if is_label else _is_beyond(theirs, ours, np.asarray(usual), by_row)
            for row in np.flatnonzero(is_wrong.reshape(len(rows), -1).any(axis=1)).tolist():
                if np.abs(rows[row]).max() >= ENORMOUS:
                    others = _answer_nearly_same_rows(model, method, place, rows[row])
                    if _is_among(ours[row], theirs[row], others, is_label=is_label):
                        finding.unsteady += 1
                        continue
                told = f"{ours[row].tolist()} for {theirs[row].tolist()}"
                finding.differences.append(f"{method} of {rows[row].tolist()}: {told}")
    return finding


def _answer_nearly_same_rows(model: EstimatorModel, method: Any, place: int, row: NDArray[np.float64]) -> NDArray[Any]:
    """Return the estimator's answers to the row alone, and to 16 copies with each number changed by an ulp or not."""
    toward = np.random.default_rng(0).choice([-np.inf, np.inf], (16, len(row)))
    moved = np.where(np.random.default_rng(1).random(toward.shape) < 0.7, np.nextafter(row, toward), row)
    asked = (Batch(len(each), matrix=np.ascontiguousarray(each)) for each in (row[None], moved))
    return np.concatenate([np.asarray(model.answer(method, batch).tensors[place]) for batch in asked])


def _is_among(given: Any, wanted: Any, others: NDArray[Any], *, is_label: bool) -> bool:
    if is_label:
        return bool((np.asarray(others) == given).reshape(len(others), -1).all(axis=1).any())
    with np.errstate(all="ignore"):
        return bool((np.abs(given - wanted) <= 4 * np.abs(others - wanted).max(axis=0)).all())


def _is_beyond(wanted: Any, given: Any, usual: Any, by_row: Any) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        is_same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
        size = np.where(np.isfinite(wanted), np.abs(wanted), 0.0)
        scale: Any = min(1.0, float(np.abs(usual[np.isfinite(usual)]).max(initial=0.0)) or 1.0)
        if by_row is not None and wanted.ndim == 2:
            own = size.max(axis=1, keepdims=True, initial=1e-290)
            scale = np.minimum(scale, np.maximum(own, by_row[:, None]))
        return ~is_same & ~(np.abs(wanted - given) <= TOLERANCE * np.maximum(size, scale))

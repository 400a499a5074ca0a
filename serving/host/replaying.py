"""Lets a candidate answer recent rows, piece by piece and within a time, and compares with what was answered to them.

What is found out is said in counts, names of columns and kinds of errors: the rows belong to clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.domain.signature import Container, ModelKind
from serving.domain.text import one_line
from serving.host.answer_differences import AnswerDifferences, is_lost
from serving.host.model import LoadedModel
from serving.rows.parsing import rows_to_batch
from serving.rows.plain_answers import list_plain_answers
from serving.rows.row_problems import find_wrong_feature

SECONDS = 10.0
SLOW_SECONDS = 0.1  # a row that takes longer is answered alone
MOST_TRIED = 100  # columns that are tried to find the one at fault
MOST_TRIED_SECONDS = 1.0
MOST_NAME_CHARACTERS = 60

_LABELLED = (ModelKind.CLASSIFIER, ModelKind.CLUSTERER, ModelKind.OUTLIER_DETECTOR)


class RowFailure(NamedTuple):
    """Why a row was not answered: a few words, without anything of the row but the name of a column."""

    kind: str
    method: str


@dataclass
class ReplayFindings:
    """What came of recent rows. `rows` counts those that were tried, `failed` those that were not answered as before.

    `first` is the first failure. `differences` are by method.
    """

    rows: int = 0
    failed: int = 0
    first: RowFailure | None = None
    differences: dict[str, AnswerDifferences] = field(default_factory=dict)


def replay_rows(model: LoadedModel, recent: RecentRows, seconds: float = SECONDS) -> ReplayFindings:
    """Let the model answer the rows with every method that answered them before. Blocks, for `seconds` and one piece.

    Rows that have their turn after that are left out. A piece that fails is answered row by row.
    """
    found = ReplayFindings()
    ends_at = monotonic() + seconds
    is_slow = False
    good: list[Any] = []  # a row that was answered, if there is one
    for piece in recent.pieces:
        size = 1 if is_slow or not found.rows else len(piece.rows)
        for start in range(0, len(piece.rows), size):
            began = monotonic()
            if began > ends_at:
                return found
            part = AnsweredRows(
                piece.rows[start : start + size],
                {method: values[start : start + size] for method, values in piece.answers.items()},
            )
            _replay_part(model, part, found, good, ends_at)
            is_slow = (monotonic() - began) / len(part.rows) > SLOW_SECONDS
    return found


def _replay_part(
    model: LoadedModel, part: AnsweredRows, found: ReplayFindings, good: list[Any], ends_at: float
) -> None:
    outcomes = _answer(model, part.rows, part.answers)
    if isinstance(outcomes, RowFailure) and len(part.rows) > 1:
        for place, row in enumerate(part.rows):
            if monotonic() > ends_at:
                return
            answers = {method: values[place : place + 1] for method, values in part.answers.items()}
            _replay_part(model, AnsweredRows([row], answers), found, good, ends_at)
        return
    found.rows += len(part.rows)
    if isinstance(outcomes, RowFailure):
        _note_failure(model, part.rows[0], outcomes, found, good)
        return
    good[:] = part.rows[:1]
    lost: dict[int, str] = {}
    for method, values in part.answers.items():
        differences = found.differences.setdefault(method, AnswerDifferences())
        is_label = method == "predict" and model.signature.kind in _LABELLED
        for place, (wanted, given) in enumerate(zip(values, outcomes[method], strict=True)):
            if is_lost(wanted, given):
                lost.setdefault(place, method)
            elif wanted is not None:
                differences.add(wanted, given, is_label=is_label)
    found.failed += len(lost)
    if lost and found.first is None:
        found.first = RowFailure("a value that is not finite, or null", next(iter(lost.values())))


def _answer(model: LoadedModel, rows: Sequence[Any], methods: Any) -> dict[str, list[Any]] | RowFailure:
    """Return the answers of each method that the model offers, or why there are none."""
    try:
        batch = rows_to_batch(model.signature, list(rows))
    except InvalidInput:
        return RowFailure("it does not take them", "")
    answers: dict[str, list[Any]] = {}
    for method in methods:
        try:
            answers[method] = list_plain_answers(model.answer(method, batch))
        except (InvalidInput, ModelFailed) as error:
            return RowFailure(_describe(error), method)
    return answers


def _describe(error: InvalidInput | ModelFailed) -> str:
    """Name the kind of an error: its text may have values of the row."""
    cause = error.__context__
    what = "it refuses them" if isinstance(error, InvalidInput) else "it fails"
    if cause is None or isinstance(cause, (InvalidInput, ModelFailed)):
        return what
    return f"{what} ({one_line(type(cause).__name__, MOST_NAME_CHARACTERS)})"


def _note_failure(model: LoadedModel, row: Any, failure: RowFailure, found: ReplayFindings, good: list[Any]) -> None:
    found.failed += 1
    if found.first is not None:
        return
    name = None
    if failure.method:
        name = _find_column(model, row, failure.method, good[0]) if good else None
    elif isinstance(row, list):
        name = find_wrong_feature(model.signature, row)
    where = "" if name is None else f", by column {one_line(name, MOST_NAME_CHARACTERS)!r}"
    found.first = RowFailure(failure.kind + where, failure.method)


def _find_column(model: LoadedModel, row: Any, method: str, good: Any) -> str | None:
    """Return a column without whose value the row is answered: with the value of another row, which is answered."""
    features = model.signature.features
    if model.signature.container is Container.OBJECTS or len(row) != len(features):
        return None
    ends_at = monotonic() + MOST_TRIED_SECONDS
    for place, feature in enumerate(features[:MOST_TRIED]):
        if monotonic() > ends_at:
            break
        changed = [good[place] if at == place else cell for at, cell in enumerate(row)]
        if row[place] != good[place] and not isinstance(_answer(model, [changed], [method]), RowFailure):
            return feature.name
    return None

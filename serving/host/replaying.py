"""Lets a candidate answer recent rows, piece by piece and within a time, and compares with what was answered to them.

What is found out is said in counts, names of columns and kinds of errors: the rows belong to clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    return _Replay(model, seconds).answer_all(recent)


class _Replay:
    """One replay under way: what was found, a row that was answered, and the first that was not."""

    def __init__(self, model: LoadedModel, seconds: float) -> None:
        self._model = model
        self._ends_at = monotonic() + seconds
        self._found = ReplayFindings()
        self._answered: Any = None
        self._failed: Any = None

    def answer_all(self, recent: RecentRows) -> ReplayFindings:
        """Answer all rows for which there is time."""
        self._answer_pieces(recent)
        found = self._found
        if found.first is not None and self._failed is not None:
            name = self._find_column(found.first)
            where = "" if name is None else f", by column {one_line(name, MOST_NAME_CHARACTERS)!r}"
            found.first = found.first._replace(kind=found.first.kind + where)
        return found

    def _answer_pieces(self, recent: RecentRows) -> None:
        is_slow = False
        for piece in recent.pieces:
            size = 1 if is_slow or not self._found.rows else len(piece.rows)
            for start in range(0, len(piece.rows), size):
                began = monotonic()
                if began > self._ends_at:
                    return
                part = AnsweredRows(
                    piece.rows[start : start + size],
                    {method: values[start : start + size] for method, values in piece.answers.items()},
                )
                self._answer_part(part)
                is_slow = (monotonic() - began) / len(part.rows) > SLOW_SECONDS

    def _answer_part(self, part: AnsweredRows) -> None:
        outcomes = _answer(self._model, part.rows, part.answers)
        if not isinstance(outcomes, RowFailure):
            self._compare(part, outcomes)
        elif len(part.rows) == 1:
            self._found.rows += 1
            self._failed = part.rows[0] if self._found.first is None else self._failed
            self._note_failures(1, outcomes)
        else:
            for place, row in enumerate(part.rows):
                if monotonic() > self._ends_at:
                    return
                answers = {method: values[place : place + 1] for method, values in part.answers.items()}
                self._answer_part(AnsweredRows([row], answers))

    def _compare(self, part: AnsweredRows, outcomes: dict[str, list[Any]]) -> None:
        self._found.rows += len(part.rows)
        self._answered = part.rows[0]
        lost: dict[int, str] = {}
        for method, values in part.answers.items():
            differences = self._found.differences.setdefault(method, AnswerDifferences())
            is_label = method == "predict" and self._model.signature.kind in _LABELLED
            for place, (wanted, given) in enumerate(zip(values, outcomes[method], strict=True)):
                if is_lost(wanted, given):
                    lost.setdefault(place, method)
                elif wanted is not None:
                    differences.add(wanted, given, is_label=is_label)
        if lost:
            self._note_failures(len(lost), RowFailure("a value that is not finite, or null", next(iter(lost.values()))))

    def _note_failures(self, count: int, failure: RowFailure) -> None:
        self._found.failed += count
        if self._found.first is None:
            self._found.first = failure

    def _find_column(self, failure: RowFailure) -> str | None:
        """Return the column at fault, if the first row that failed is answered with another row's value in it."""
        model, row, other = self._model, self._failed, self._answered
        features = model.signature.features
        if model.signature.container is Container.OBJECTS or len(row) != len(features):
            return None
        if not failure.method:
            return find_wrong_feature(model.signature, row)
        ends_at = monotonic() + MOST_TRIED_SECONDS
        for place, feature in enumerate(features[:MOST_TRIED] if other is not None else ()):
            if monotonic() > ends_at:
                break
            changed = [other[place] if at == place else cell for at, cell in enumerate(row)]
            if row[place] != other[place] and not isinstance(_answer(model, [changed], [failure.method]), RowFailure):
                return feature.name
        return None


def _answer(model: LoadedModel, rows: Sequence[Any], methods: Iterable[str]) -> dict[str, list[Any]] | RowFailure:
    """Return the answers of each method, or why there are none."""
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

"""Gate replay: recent rows are answered as the active version does, or a reason is named without their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.domain.report import GateResult, Verdict
from serving.domain.signature import Signature
from serving.host import replaying
from serving.host.signature_of_estimator import signature_of
from serving.wire.recent_rows_document import encode_recent_rows
from tests.unit.host.candidates import ROWS, MakeCandidate

LINE = LinearRegression().fit(ROWS, ROWS @ [1.0, 2.0, 3.0])
TOWNS = pd.DataFrame({"size": np.arange(90.0), "town": np.resize(["Lima", "Oslo", "Rome"], 90)})


class Clock:
    """The clock of replays: it stands still, so that what they have time for does not depend on this machine."""

    now = 0.0


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "monotonic", lambda: Clock.now)


def towns(handle_unknown: str = "error", known: int = 3) -> Any:
    frame = TOWNS[TOWNS.town.isin(["Lima", "Oslo", "Rome"][:known])]
    encode = make_column_transformer((OneHotEncoder(handle_unknown=handle_unknown), ["town"]), remainder="passthrough")
    return make_pipeline(encode, LogisticRegression(max_iter=5000)).fit(frame, frame["size"] > 45)


def document(rows: list[Any], **answers: list[Any]) -> str:
    """Return the rows in pieces of 1, 4 and what is left, as the plane has them."""
    pieces, start = [], 0
    for count in (1, 4, len(rows)):
        part = {method: values[start : start + count] for method, values in answers.items()}
        if rows[start : start + count]:
            pieces.append(AnsweredRows(rows[start : start + count], part))
        start += count
    return encode_recent_rows(RecentRows("1", tuple(pieces)))


def replay(candidate: MakeCandidate, estimator: Any, recent: str | None, **options: Any) -> GateResult:
    active = options.pop("active", None) or signature_of(estimator)
    made = candidate(estimator)
    outcome = made.evaluate(recent_rows=recent, active_signature=active, active_version="1", **options)
    return outcome["replay"]


def test_without_recent_rows_nothing_is_replayed(candidate: MakeCandidate) -> None:
    result = replay(candidate, LINE, None)
    assert (result.verdict, result.evidence) == (Verdict.SKIPPED, "there are no recent rows of an active version")


def test_the_same_answers_are_said_to_be_that(candidate: MakeCandidate) -> None:
    result = replay(candidate, LINE, document(ROWS.tolist(), predict=LINE.predict(ROWS).tolist()))
    assert result.verdict is Verdict.PASSED
    assert result.evidence.startswith("answers 60 recent rows, as the active version 1 does; predict: ")


def test_other_numbers_are_evidence(candidate: MakeCandidate) -> None:
    wanted = LINE.predict(ROWS)
    wanted[0] += 2
    result = replay(candidate, LINE, document(ROWS.tolist(), predict=wanted.tolist()))
    assert result.verdict is Verdict.PASSED
    assert result.evidence.endswith("predict: numbers differ by 2 at most, 0.03333 on average")


def test_other_labels_are_evidence_unless_a_setting_says_how_many_may_differ(
    candidate: MakeCandidate, yes_or_no: Any
) -> None:
    labels = yes_or_no.predict(ROWS).tolist()
    labels[:6] = ["yes" if label == "no" else "no" for label in labels[:6]]
    recent = document(ROWS.tolist(), predict=labels, predict_proba=yes_or_no.predict_proba(ROWS).tolist())
    result = replay(candidate, yes_or_no, recent)
    assert result.verdict is Verdict.PASSED
    assert "predict: another label for 6 of 60 rows (10.00%); predict_proba: " in result.evidence
    assert replay(candidate, yes_or_no, recent, max_disagreement=0.1).verdict is Verdict.PASSED
    refused = replay(candidate, yes_or_no, recent, max_disagreement=0.09)
    assert refused.verdict is Verdict.REFUSED
    assert refused.evidence == (
        "predict: another label for 6 of 60 rows (10.00%), compared with the active version 1; "
        "at most 9.00% may (gates.max_disagreement)"
    )


def test_a_category_that_the_candidate_does_not_know_refuses_it_and_names_the_column(candidate: MakeCandidate) -> None:
    old, new = towns(), towns(known=2)
    recent = document(TOWNS.to_numpy().tolist(), predict=old.predict(TOWNS).tolist())
    result = replay(candidate, new, recent, active=signature_of(old))
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == (
        "30 of 90 recent rows, which the active version 1 answers, are not answered as well; "
        "the first by predict: it refuses them (ValueError), by column 'town'"
    )
    assert "Rome" not in result.evidence
    turned = document(TOWNS.to_numpy().tolist()[::-1], predict=old.predict(TOWNS).tolist()[::-1])
    assert replay(candidate, new, turned, active=signature_of(old)).evidence == result.evidence, "it comes first"
    assert replay(candidate, towns("ignore", 2), recent, active=signature_of(old)).verdict is Verdict.PASSED


def test_rows_that_do_not_fit_the_signature_refuse_it(candidate: MakeCandidate) -> None:
    rows = [*ROWS.tolist(), [1.0, "secret", 2.0]]
    result = replay(candidate, LINE, document(rows, predict=[*LINE.predict(ROWS).tolist(), 0.0]))
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == (
        "1 of 61 recent rows, which the active version 1 answers, are not answered as well; "
        "the first: it does not take them, by column 'x1'"
    )


class FailsOnLarge(RegressorMixin, BaseEstimator):
    """Answers numbers up to 100 and fails, or gives NaN, beyond."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error = error

    def fit(self, rows: Any, _labels: Any = None) -> FailsOnLarge:
        self.n_features_in_ = rows.shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        rows = np.asarray(rows)
        if self.error is not None and rows.max() > 100:
            raise self.error(f"row with {rows.max()}")
        return np.where(rows.max(axis=1) > 100, np.nan, 1.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, "a value that is not finite, or null"),
        (KeyError, "it fails (KeyError), by column 'x2'"),
        (ValueError, "it refuses them (ValueError), by column 'x2'"),
    ],
)
def test_a_candidate_that_passes_made_up_rows_and_not_recent_ones_is_refused(
    error: type[BaseException] | None, kind: str, candidate: MakeCandidate
) -> None:
    rows = ROWS.tolist() + [[0.0, 0.0, 123456.0]] * 3
    result = replay(candidate, FailsOnLarge(error).fit(ROWS), document(rows, predict=[1.0] * len(rows)))
    assert result.verdict is Verdict.REFUSED
    assert result.evidence == (
        "3 of 63 recent rows, which the active version 1 answers, are not answered as well; "
        f"the first by predict: {kind}"
    )


def test_what_the_active_version_did_not_answer_with_a_number_either_is_no_reason(candidate: MakeCandidate) -> None:
    rows = [*ROWS.tolist(), [0.0, 0.0, 123456.0]]
    result = replay(candidate, FailsOnLarge().fit(ROWS), document(rows, predict=[1.0] * 60 + [None]))
    assert result.verdict is Verdict.PASSED


def test_what_is_declared_breaking_is_not_replayed(candidate: MakeCandidate) -> None:
    made = candidate(LINE)
    made.write_manifest(breaking=True)
    other = signature_of(LinearRegression().fit(ROWS[:, :2], ROWS[:, 0]))
    outcome = made.evaluate(
        recent_rows=document([[1.0, 2.0]], predict=[1.0]), active_signature=other, active_version="1"
    )
    assert outcome["replay"].verdict is Verdict.SKIPPED
    assert outcome["replay"].evidence.startswith("declared breaking")


def test_a_column_that_the_active_version_does_not_use_has_no_recent_values(candidate: MakeCandidate) -> None:
    own = signature_of(LINE)
    first = own.features[0].model_copy(update={"is_used": False})
    active = Signature.model_validate({**own.model_dump(), "features": (first, *own.features[1:])})
    result = replay(candidate, LINE, document([[None, 1.0, 2.0]], predict=[8.0]), active=active)
    assert result.verdict is Verdict.SKIPPED
    assert "does not use 'x0'" in result.evidence


class Slow(ClassifierMixin, BaseEstimator):
    """Lets the clock of the replay go on by a second for each call."""

    def fit(self, rows: Any, labels: Any) -> Slow:
        self.n_features_in_, self.classes_ = rows.shape[1], np.unique(labels)
        return self

    def predict(self, rows: Any) -> Any:
        Clock.now += 1.0
        return np.full(len(rows), self.classes_[0])


def test_a_slow_candidate_answers_as_many_rows_as_there_is_time_for(candidate: MakeCandidate) -> None:
    slow = Slow().fit(ROWS, ROWS[:, 0] > 0)
    result = replay(candidate, slow, document(ROWS.tolist(), predict=[False] * 60))
    assert result.verdict is Verdict.PASSED
    assert result.evidence.startswith("answers 11 of 60 recent rows")


def test_no_gate_after_it_has_the_rows(candidate: MakeCandidate, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.host.gates.compile_gate import CompileGate

    seen: list[Any] = []

    def check(_: Any, context: Any) -> Any:
        seen.append(context.recent_rows)
        return Verdict.SKIPPED, "not now"

    monkeypatch.setattr(CompileGate, "check", check)
    replay(candidate, LINE, document(ROWS.tolist(), predict=LINE.predict(ROWS).tolist()))
    assert seen == [None]

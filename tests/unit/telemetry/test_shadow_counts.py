"""What came of copies is counted in the row of a split, summed over workers, and reported by output."""

from __future__ import annotations

import os
import sys

import pytest

from serving.domain.answer_pair import MOST_DIFFERENCE, AnswerPair, OutputPair
from serving.domain.rollout import OutputDifference, ShadowReport
from serving.telemetry.count_sheet import NUMBERS, CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.shadow_counts import SHADOW_NUMBERS
from serving.telemetry.split_counts import SHADOW, SplitCounts, SplitRow
from serving.telemetry.summed_traffic import SummedTraffic

LABELS = OutputPair("predict", 0, 4, 1)
NUMBER = OutputPair("predict_proba", 2, 4, 0, 2.0, 1.5)


def answered(*outputs: OutputPair) -> AnswerPair:
    return AnswerPair(False, False, outputs)


def test_a_split_reports_pairs_drops_failures_and_differences() -> None:
    counts = SplitCounts()
    counts.count_pair("iris", 1, None, answered(LABELS, NUMBER))
    counts.count_pair("iris", 1, None, answered(LABELS, NUMBER._replace(total=6.0, worst=3.0)))
    counts.count_pair("iris", 1, None, AnswerPair(True, False))
    counts.count_pair("iris", 1, None, AnswerPair(False, True))
    counts.count_pair("iris", 1, None, AnswerPair(True, True))
    counts.count_dropped("iris", 1, 1)
    found = counts.read()["iris", 1].answers
    assert found[:4] == (5, 2, 5, 2)
    assert counts.read().get(("iris", 1), SplitRow()).shadow.to_report() == ShadowReport(
        pairs=5,
        dropped=1,
        failed_new=1,
        failed_old=1,
        differences=(
            OutputDifference(output="predict", rows=8, differing=2),
            OutputDifference(output="predict_proba[1]", rows=8, differing=0, mean=1.0, worst=3.0),
        ),
    )


def test_a_row_has_room_for_ten_outputs_and_counts_no_others() -> None:
    assert SHADOW + SHADOW_NUMBERS <= NUMBERS
    counts = SplitCounts()
    counts.count_pair("iris", 1, None, answered(*(OutputPair("predict", place, 1, 1) for place in range(1, 15))))
    differences = counts.read().get(("iris", 1), SplitRow()).shadow.to_report().differences
    assert [one.output for one in differences] == [f"predict[{place}]" for place in range(10)]


def test_of_one_key_one_bad_pair_in_a_second_is_evidence() -> None:
    now = 7.0
    counts = SplitCounts(now=lambda: now)
    for key in (b"a", b"a", b"b", None, None):
        counts.count_pair("iris", 1, key, AnswerPair(True, True))
    counts.count_pair("iris", 1, b"a", answered(LABELS))
    found = counts.read()["iris", 1].answers
    assert found[:4] == (5, 4, 5, 4)
    assert counts.read().get(("iris", 1), SplitRow()).shadow.pairs == 6
    now = 8.0
    counts.count_pair("iris", 1, b"a", AnswerPair(True, False))
    assert counts.read()["iris", 1].answers[:4] == (6, 5, 6, 4)


def test_a_copy_of_an_earlier_split_counts_no_more() -> None:
    counts = SplitCounts()
    counts.count_pair("iris", 2, None, answered(LABELS))
    counts.count_pair("iris", 1, None, answered(LABELS))
    counts.count_dropped("iris", 1, 1)
    assert counts.read().get(("iris", 2), SplitRow()).shadow[:2] == (1, 0)
    assert counts.read().get(("iris", 1), SplitRow()).shadow[:2] == (0, 0)


def test_differences_beyond_what_is_finite_keep_the_row_readable() -> None:
    counts = SplitCounts()
    huge = NUMBER._replace(total=MOST_DIFFERENCE, worst=MOST_DIFFERENCE)
    for _ in range(3):
        counts.count_pair("iris", 1, None, answered(huge))
    (only,) = counts.read().get(("iris", 1), SplitRow()).shadow.to_report().differences
    assert (only.mean, only.worst) == (MOST_DIFFERENCE / 12, MOST_DIFFERENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")
def test_workers_are_summed_dead_ones_included_and_of_the_worst_the_worst_counts() -> None:
    summed = SummedTraffic()
    sheets = [CountSheet.create(16) for _ in range(2)]
    workers = [Metrics("0", CountSheet(os.dup(sheet.fd), 16)) for sheet in sheets]
    for index, sheet in enumerate(sheets):
        summed.add(index, sheet)
    workers[0].count_pair("iris", 1, None, answered(LABELS, NUMBER))
    workers[1].count_pair("iris", 1, None, answered(NUMBER._replace(total=6.0, worst=3.0), LABELS))
    workers[1].count_dropped("iris", 1, 1)
    before = summed.read_splits()["iris", 1]
    summed.absorb(sheets[0])
    between = summed.read_splits()["iris", 1]
    summed.absorb(sheets[1])
    for found, shadow in (
        before,
        between,
        summed.read_splits()["iris", 1],
    ):
        assert found[:4] == (2, 0, 2, 0)
        assert shadow.to_report() == ShadowReport(
            pairs=2,
            dropped=1,
            differences=(
                OutputDifference(output="predict", rows=8, differing=2),
                OutputDifference(output="predict_proba[1]", rows=8, mean=1.0, worst=3.0),
            ),
        )

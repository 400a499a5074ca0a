"""A sheet shows whole records only, keeps the counts of a killed process, and never makes counting fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from serving.telemetry.count_sheet import MAX_KEY_BYTES, NUMBERS, CountSheet
from serving.telemetry.traffic import Traffic, TrafficCollector, statuses_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")

COUNTING = """
import sys
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
metrics = Metrics("0", CountSheet(int(sys.argv[1])))
count = 0
while True:
    metrics.traffic("iris", str(count % 3)).record(200, 2, 0.5)
    count += 1
    if count % 1000 == 0:
        print(count, flush=True)
        metrics.forget("iris", "2")
"""


@pytest.fixture
def sheet() -> Iterator[CountSheet]:
    made = CountSheet.create(4)
    yield made
    os.close(made.fd)


def test_a_record_is_seen_with_its_key_and_numbers_in_another_mapping(sheet: CountSheet) -> None:
    taken = sheet.take(("traffic", "iris", "3"))
    assert taken is not None
    taken[1][5] = 2.5
    found = CountSheet(os.dup(sheet.fd), 4).read()
    assert [(record.key, record.numbers[5]) for record in found] == [(("traffic", "iris", "3"), 2.5)]


def test_the_longest_names_find_room(sheet: CountSheet) -> None:
    assert sheet.take(("traffic", "m" * 100, "v" * 100)) is not None


def test_a_sheet_cannot_be_resized(sheet: CountSheet) -> None:
    for size in (0, 1 << 30):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(sheet.fd, size)


def test_a_record_taken_again_begins_at_0_with_another_serial_number(sheet: CountSheet) -> None:
    first = sheet.take(("traffic", "iris", "1"))
    assert first is not None
    first[1][0] = 9
    before = sheet.read()[0].serial
    sheet.hide(first[0])
    assert sheet.read() == []
    sheet.release(first[0])
    again = sheet.take(("traffic", "iris", "1"))
    assert again is not None
    assert again[0] == first[0]
    assert sheet.read()[0].serial != before
    assert not any(sheet.read()[0].numbers)


@pytest.mark.parametrize("where", [0, 4, 8, 20], ids=["check", "length", "first-of-key", "in-key"])
def test_a_record_whose_key_is_torn_is_not_seen(sheet: CountSheet, where: int) -> None:
    sheet.take(("traffic", "iris", "1"))
    sheet._bytes[where] ^= 1
    assert sheet.read() == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_numbers_that_cannot_be_counts_are_not_seen(sheet: CountSheet, number: float) -> None:
    taken = sheet.take(("traffic", "iris", "1"))
    assert taken is not None
    taken[1][0] = number
    assert sheet.read() == []


def test_a_sheet_full_of_noise_has_nothing_to_say(sheet: CountSheet) -> None:
    sheet._views[-1][:] = os.urandom(len(sheet._views[-1]))
    assert sheet.read() == []


def test_a_full_sheet_counts_in_private_memory_and_says_so_once(sheet: CountSheet) -> None:
    counts = TrafficCollector(sheet)
    with capture_logs() as lines:
        for version in range(7):
            counts.of("iris", str(version)).record(200, 1, 0.1)
    assert [line["event"] for line in lines] == ["counts_not_shared"]
    assert counts.of("iris", "6").rows == 1
    assert len(sheet.read()) == 4
    assert sheet.take(("k" * MAX_KEY_BYTES,)) is None


def test_both_kinds_of_rows_count_alike(sheet: CountSheet) -> None:
    shared, private = TrafficCollector(sheet).of("iris", "1"), Traffic()
    for status in range(200, 240):
        for traffic in (shared, private):
            traffic.record(status, 3, (status - 199) / 3)
    assert (shared.rows, shared.seconds, shared.buckets) == (private.rows, private.seconds, private.buckets)
    assert shared.statuses == private.statuses
    assert sum(shared.statuses.values()) == 40
    assert shared.statuses[0] == 18  # the 22 first have a place of their own
    assert statuses_of(sheet.read()[0].numbers) == shared.statuses


def test_a_request_that_ends_after_its_version_was_forgotten_counts_for_no_other(sheet: CountSheet) -> None:
    counts = TrafficCollector(sheet)
    old = counts.of("iris", "1")
    counts.forget("iris", "1")
    old.record(200, 1, 0.1)
    assert sheet.read() == []
    others = [counts.of("iris", str(version)) for version in range(2, 6)]
    old.record(200, 1, 0.1)
    assert sorted(record.key[2] for record in sheet.read()) == ["2", "3", "4", "5"]
    assert not any(other.rows for other in others)
    assert not any(any(record.numbers) for record in sheet.read())


def test_a_killed_process_leaves_all_its_counts() -> None:
    sheet = CountSheet.create()
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(sheet.fd)], pass_fds=[sheet.fd], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(20)][-1]
            sheet.read()  # while it counts
            process.send_signal(signal.SIGKILL)
        found = {record.key[2]: record for record in sheet.read()}
        for version in ("0", "1"):
            rows = found[version].numbers[16]
            assert rows >= 2 * (said // 3)
            assert abs(sum(statuses_of(found[version].numbers).values()) * 2 - rows) <= 2
            assert abs(sum(found[version].numbers[:16]) * 2 - rows) <= 2
        assert len(found["0"].numbers) == NUMBERS
        sheet.close()
        sheet = CountSheet.create()
    sheet.close()

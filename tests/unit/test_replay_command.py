"""``serving replay``: waits for a busy server, stops where nothing can be asked, and says in one line what it found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from serving.cli import replay_command
from serving.cli.client import CallFailed, ServerClient
from serving.cli.replay_command import _ask, _iterate_requests, _why_skipped
from serving.cli.replay_output import describe_tally, dump_tally
from serving.recording.compare_with_record import ReplayTally
from serving.recording.read_records import RecordedRequest

REQUEST = RecordedRequest("id", "iris", "3", "predict", 0.25, [{"a": 1.0}, {"a": 2.0}], [1.0, 2.0], ())


class Server:
    """Answers with what it is given, one after another; a number is the status of a refusal."""

    url = "http://server"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []

    def post(self, *parts: str, body: dict[str, Any], request_id: str) -> Any:
        self.asked.append((*parts, body, request_id))
        answer = self.answers.pop(0)
        if answer is None or isinstance(answer, int):
            raise CallFailed(f"refused with {answer}", answer)
        return answer


def ask(*answers: Any) -> tuple[Any, Server]:
    server = Server(*answers)
    return _ask(cast("ServerClient", server), "iris", "4", REQUEST, 7), server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_command, "WAITS_SECONDS", (0.0, 0.0))


def test_the_rows_are_asked_with_their_method_and_an_id_that_says_what_they_are() -> None:
    reply, server = ask({"predictions": [1.0, 2.0]})
    assert reply.answers == [1.0, 2.0]
    (*path, body, identity) = server.asked[0]
    assert path == ["models", "iris", "versions", "4", "predict"]
    assert body == {"instances": REQUEST.rows, "method": "predict"}
    assert identity.startswith("replay-")
    assert identity.endswith("-7")


def test_a_busy_server_is_asked_again_and_then_it_has_refused() -> None:
    reply, server = ask(503, 429, {"predictions": [1.0, 2.0]})
    assert (reply.answers, len(server.asked)) == ([1.0, 2.0], 3)
    reply, server = ask(503, 503, 503)
    assert (reply.answers, reply.refusal, len(server.asked)) == (None, "refused with 503", 3)


@pytest.mark.parametrize("status", [400, 422, 500, 504])
def test_rows_that_are_refused_are_counted_and_not_asked_again(status: int) -> None:
    reply, server = ask(status)
    assert (reply.answers, reply.refusal, len(server.asked)) == (None, f"refused with {status}", 1)


@pytest.mark.parametrize("status", [None, 401, 403, 404])
def test_without_server_access_or_version_nothing_else_is_asked(status: int | None) -> None:
    with pytest.raises(CallFailed):
        ask(status)


@pytest.mark.parametrize("answer", [{}, [], "a", {"predictions": [1.0]}])
def test_a_server_that_answers_something_else_is_none(answer: Any) -> None:
    with pytest.raises(CallFailed, match="something else"):
        ask(answer)


def test_what_is_passed_over_and_why() -> None:
    assert _why_skipped(REQUEST, "iris") is None
    assert _why_skipped(REQUEST, "wine") == "recorded of another model, iris"
    assert _why_skipped(REQUEST._replace(left_out=("a", "b")), "iris") == "values were left out: a, b"
    assert _why_skipped(REQUEST._replace(request_id="replay-1-2"), "iris") == "recorded of an earlier replay"
    assert _why_skipped(REQUEST._replace(request_id=None), "iris") is None


def test_files_that_a_server_has_removed_since_are_counted(tmp_path: Path) -> None:
    tally = make_tally(equal=1)
    assert not list(_iterate_requests([tmp_path / "1.jsonl", tmp_path / "2.jsonl"], "iris", None, tally))
    assert tally.removed_files == dump_tally(tally, "iris", "4")["removed_files"] == 2
    assert "removed      2 files, before they were read: a server keeps record.keep_mb" in describe_tally(tally, "a/1")


def make_tally(**counts: Any) -> ReplayTally:
    tally = ReplayTally(1e-5, **counts)
    if tally.equal + tally.differing:
        tally.recorded_seconds, tally.replayed_seconds = [0.001, 0.002], [0.003, 0.004]
    return tally


@pytest.mark.parametrize(
    ("tally", "verdict"),
    [
        (make_tally(equal=1000), "iris/4 answers all 1,000 rows as recorded, within 1e-05"),
        (make_tally(equal=1), "iris/4 answers 1 row as recorded, within 1e-05"),
        (make_tally(equal=8, differing=2), "iris/4 answers 2 of 10 rows differently, within 1e-05"),
        (
            make_tally(equal=8, refused=Counter(no=2)),
            "iris/4 refuses 2 of 10 rows; the others are answered as recorded, within 1e-05",
        ),
        (
            make_tally(equal=7, differing=1, refused=Counter(no=2)),
            "iris/4 answers 1 of 10 rows differently and refuses 2, within 1e-05",
        ),
        (
            make_tally(skipped=Counter(other=3)),
            "iris/4 was asked nothing: there is no record to compare with",
        ),
    ],
)
def test_the_verdict_is_the_first_line(tally: ReplayTally, verdict: str) -> None:
    lines = describe_tally(tally, "iris/4")
    assert lines[0] == verdict
    found = dump_tally(tally, "iris", "4")
    assert (found["verdict"], found["is_same"]) == (verdict, "as recorded" in verdict and not tally.refused)
    assert found["rows"] == tally.asked


def test_changes_and_reasons_are_listed_most_frequent_first() -> None:
    changes = Counter({("no", "yes"): 1, ("yes", "no"): 5})
    tally = make_tally(differing=6, changes=changes, refused=Counter({"too\x1b[1m old": 1}), skipped=Counter(other=2))
    lines = describe_tally(tally, "iris/4")
    assert lines[2:] == [
        "labels       6 changed",
        "             5 from yes to no",
        "             1 from no to yes",
        "refused      1 row",
        "             1: too?[1m old",
        "passed over  2 rows",
        "             2: other",
        "latency      p50 3.00 ms, p99 4.00 ms, max 4.00 ms (as measured here, over the network)",
        "             p50 1.00 ms, p99 2.00 ms, max 2.00 ms (as recorded in the server)",
    ]

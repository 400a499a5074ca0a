"""`GET /events` of several workers: nothing is missed when they die, drain, or all are killed with the supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.event_follower import EventFollower, list_numbers, wait_same
from tests.e2e.harness import TOKEN, Server, linear, serving, until, write_version
from tests.e2e.test_worker_deaths import list_workers, wait_workers

CLIENTS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("event-workers")
    for version in (1, 2):
        write_version(directory / "store" / "m", version, linear())
    more = {"SERVING_SERVER__WORKERS": "2", "SERVING_SERVER__DRAIN_SECONDS": "600"}
    with serving(directory, wait_ready=True, **more) as server:
        server.wait_active("m", 2)
        yield server


def wait_all_serving(server: Server) -> list[dict[str, Any]]:
    """Wait until both workers serve, and return them."""
    return wait_workers(server, lambda workers: all(one["state"] == "serving" for one in workers))


def replace_worker(server: Server, worker: dict[str, Any], number: signal.Signals) -> None:
    """Send a signal to a worker, and wait until its successor serves."""
    os.kill(worker["pid"], number)
    until(lambda: worker["pid"] not in [one["pid"] for one in list_workers(server)], "the end of a worker", 60)
    wait_all_serving(server)


def pin_in_turns(server: Server, turns: int) -> None:
    for turn in range(turns):
        headers = {"Authorization": f"Bearer {TOKEN}", "Connection": "close"}  # the next one may be of a killed worker
        path = server.url + "/models/m/pin"
        response = server.client.post(path, json={"version": str(1 + turn % 2)}, headers=headers)
        assert response.status_code == 200, response.text


def test_nothing_is_missed_or_told_twice_when_workers_die_or_drain(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(EventFollower(server)) for _ in range(CLIENTS)]
        first = max(list_numbers(server, 0))
        for number in (signal.SIGKILL, signal.SIGTERM):
            for worker in wait_all_serving(server):
                pin_in_turns(server, 4)
                replace_worker(server, worker, number)
        pin_in_turns(server, 3)
        wait_same(server, followers, first)
        assert not [gap for one in followers for gap in one.data_of("gap")]
    ends = [end for follower in followers for end in follower.ends]
    assert None in ends  # where a worker drained
    assert any(ends)  # where one was killed


def count_of(events: list[Any]) -> int:
    """Return how many requests the last event of each version has, together."""
    last = {one["version"]: one["requests"] for traffic in events for one in traffic["versions"]}
    return sum(last.values())


def test_counts_and_workers_are_those_of_all_workers(server: Server) -> None:
    wait_all_serving(server)
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(EventFollower(server)) for _ in range(CLIENTS)]
        until(lambda: all(one.data_of("traffic") for one in followers), "the first counts")
        before = count_of(followers[0].data_of("traffic"))
        assert [len(one.data_of("traffic")[0]["bounds"]) for one in followers] == [15] * CLIENTS
        for _ in range(20):
            answer = server.client.post(
                f"{server.url}/models/m/predict", json={"input": [1.0, 2.0]}, headers={"Connection": "close"}
            )
            assert answer.status_code == 200
        for follower in followers:
            until(lambda one=follower: count_of(one.data_of("traffic")) == before + 20, "the counts of all workers")
            until(
                lambda one=follower: sum(each["requests"] for each in one.data_of("workers")[-1]["workers"]) >= 20,
                "the requests of each worker",
            )
            assert [one["index"] for one in follower.data_of("workers")[-1]["workers"]] == [0, 1]


def test_an_id_holds_when_all_are_killed(server: Server) -> None:
    """The supervisor is killed, and all others end with it; the next one knows what the last one has told."""
    wait_all_serving(server)
    with EventFollower(server) as follower:
        first = max(list_numbers(server, 0))
        pin_in_turns(server, 5)
        server.kill()
        server.start(wait_ready=True)
        pin_in_turns(server, 2)
        expected = wait_same(server, [follower], first)
    begin = follower.told[0].id
    assert begin is not None
    answer = server.client.get(server.url + "/events", params={"since": begin}, headers={"Accept": "application/json"})
    numbers = [event["data"]["id"] for event in answer.json()["events"] if event["event"] == "history"]
    assert numbers[: len(expected)] == expected


def test_a_stop_waits_for_no_stream_of_any_worker(server: Server) -> None:
    """The last test of this server: it drains for 600 seconds where something is under way."""
    wait_all_serving(server)
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(EventFollower(server)) for _ in range(CLIENTS)]
        assert server.stop(60.0) == 0
        until(lambda: all(one.ends for one in followers), "the ends of the streams")
        assert [one.ends[0] for one in followers] == [None] * CLIENTS

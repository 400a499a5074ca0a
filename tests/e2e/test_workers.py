"""Several workers: every core answers, and in real time no client ever goes back to an older version."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import MATERIAL, Server, constant, serving, until, write_version
from tests.e2e.real_time import WHILE_WAITING, Clients, Seen, find_going_back

SWAPS = [4, pytest.param(15, marks=pytest.mark.soak)]


def answering(value: float) -> LinearRegression:
    """Return a model of two features that answers `value` to zeros; scikit-learn's own, so it is compiled."""
    return LinearRegression().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [value, value + 1, value + 2])


def workers_of(server: Server) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = server.get("/workers")["workers"]
    return workers


def wait_all_serving(server: Server) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]] | None:
        try:
            workers = workers_of(server)
        except httpx.TransportError:  # the connection was the killed worker's
            return None
        return workers if all(one["state"] == "serving" for one in workers) else None

    return until(found, "all workers serving")


def count_answers(server: Server, model: str) -> int:
    """Return how many answers of a model were counted by all workers."""
    text = server.client.get(server.url + "/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    mine = {"model": model, "status": "200"}
    return int(
        sum(one.value for one in samples if one.name == "serving_requests_total" and mine.items() <= one.labels.items())
    )


def assert_sound(clients: Clients) -> None:
    """Every answer is its version's own, and nobody went back."""
    assert find_going_back(clients.seen) == []
    wrong = [one for one in clients.seen if one.status == 200 and abs((one.value or 0) - one.version) > 1e-6]
    assert wrong == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("workers")
    write_version(directory / "store" / "m", 1, answering(1))
    write_version(directory / "store" / "hosted", 1, constant(1))
    with serving(directory, wait_ready=True, SERVING_SERVER__WORKERS="3") as running:
        running.wait_active("m", 1)
        running.wait_active("hosted", 1)
        yield running


def test_one_that_goes_back_is_found() -> None:
    old, new = Seen(0.0, 1.0, 200, 1, 1.0), Seen(0.5, 2.0, 200, 2, 2.0)
    during, after = Seen(1.9, 3.0, 200, 1, 1.0), Seen(2.1, 3.0, 200, 1, 1.0)
    assert find_going_back([old, new, during]) == []
    assert find_going_back([after, new, old]) == [(after, 2)]


@pytest.mark.parametrize("swaps", SWAPS)
@pytest.mark.parametrize(("model", "make"), [("m", answering), ("hosted", constant)], ids=["compiled", "hosted"])
def test_no_client_goes_back_and_no_request_fails_over_swaps(model: str, make: Any, swaps: int, server: Server) -> None:
    first = int(server.active(model) or 0)
    with Clients(server.url, model) as clients:
        for version in range(first, first + swaps + 1):
            if version > first:
                server.drop(model, version, make(version))
            until(lambda now=version: any(one.version == now for one in clients.seen), f"an answer of {version}", 60)
    assert clients.failures() == []
    assert_sound(clients)
    assert {one.version for one in clients.seen} >= set(range(first, first + swaps + 1))


def test_a_label_moves_on_all_workers_at_one_instant(server: Server) -> None:
    for version in range(1, 6):
        server.drop("labelled", version, answering(version))
    server.wait_active("labelled", 5)
    place = "/models/labelled/labels/best"
    assert server.operate("PUT", place, {"version": "1"}).status_code == 200
    body = {"instances": [[0.0, 0.0]]}
    until(lambda: server.client.post(f"{server.url}{place}/predict", json=body).status_code == 200, "a first answer")
    with Clients(server.url, "labelled/labels/best") as clients:
        for version in range(2, 5):
            assert server.operate("PUT", place, {"version": str(version)}).status_code == 200
            until(lambda now=version: any(one.version == now for one in clients.seen), f"an answer of {version}")
    assert clients.failures() == []
    assert_sound(clients)
    assert {one.version for one in clients.seen} == {1, 2, 3, 4}


def test_a_killed_worker_loses_its_own_requests_only_and_no_count(server: Server) -> None:
    before = {one["index"]: one["pid"] for one in wait_all_serving(server)}
    counted = count_answers(server, "m")
    with Clients(server.url, "m", pause_seconds=WHILE_WAITING) as clients:
        os.kill(before[1], signal.SIGKILL)
        after = until(
            lambda: (found := wait_all_serving(server))[1]["pid"] != before[1] and found, "another worker in its place"
        )
        asked = len(clients.seen)
        until(lambda: len(clients.seen) > asked + 200, "traffic going on")
    assert [one["pid"] for one in after if one["index"] != 1] == [before[0], before[2]]
    assert after[1]["restarts"] == 1
    failures = clients.failures()
    assert {one.status for one in failures} <= {0}
    assert len(failures) <= clients.count
    assert_sound(clients)
    answered = sum(one.status == 200 for one in clients.seen)
    assert answered <= count_answers(server, "m") - counted <= answered + len(failures)


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, answering(1))
    with serving(tmp_path, wait_ready=True, imports_anew=True, SERVING_SERVER__WORKERS="2") as server:
        assert server.process is not None
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) >= 4, "nursery, two workers, zygote"
        server.kill()
        until(lambda: not any(child.is_running() for child in children), "the end of every child")


def test_clients_go_back_when_workers_only_hear_of_a_commit(tmp_path: Path) -> None:
    """The checker sees what the word is there to prevent."""
    write_version(tmp_path / "store" / "m", 1, answering(1))
    entry = (MATERIAL / "messages_only.py",)
    settings = {"SERVING_SERVER__WORKERS": "3"}
    running = serving(tmp_path, wait_ready=True, entry=entry, imports_anew=False, **settings)
    with running as server, Clients(server.url, "m") as clients:
        version = 1
        while not find_going_back(clients.seen):
            version += 1
            assert version < 60, "nobody went back"
            server.drop("m", version, answering(version))
            server.wait_active("m", version)

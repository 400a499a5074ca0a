"""`GET /events` of a real server: what is told of a version, and what is not missed when the server is killed."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.domain.status import HistoryEntry
from serving.lifecycle.history import History
from tests.e2e.event_follower import EventFollower, list_numbers, wait_same
from tests.e2e.harness import Server, connect, linear, serving, until, write_version
from tests.e2e.test_shared_control import Application, running

CLIENTS = 3
KILLS = 2
OLD_ENTRIES = 3_000  # with REASON more bytes than a connection holds that its client does not read
REASON = "because " * 500
APPLICATION = """
from fastapi import FastAPI
import serving

models = serving.create_app()
app = FastAPI(lifespan=lambda _: models.router.lifespan_context(models))
app.mount("/ml", models)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("events")
    for version in (1, 2):
        write_version(directory / "store" / "m", version, linear())
    with serving(directory, wait_ready=True) as server:
        server.wait_active("m", 2)
        yield server


def pin(server: Server, version: int) -> None:
    response = server.operate("POST", "/models/m/pin", {"version": str(version)})
    assert response.status_code == 200, response.text


def test_a_dropped_version_is_followed_to_its_end(server: Server) -> None:
    with EventFollower(server) as follower:
        begin = follower.told[0].data
        assert begin["models"] == ["m"]
        server.drop("n", 1, linear())
        server.wait_active("n", 1)
        until(
            lambda: any(
                one["event"] == "transition" and one["after"] == "ACTIVE" for one in follower.data_of("history")
            )
        )

        def is_told() -> bool:
            shown = {**server.get("/models/active")["models"][1], "rollout": None}
            return bool(shown["active"]) and follower.data_of("model")[-1] == shown

        def told() -> list[Any]:
            return [{**entry} for entry in follower.data_of("history") if entry["model"] == "n"]

        until(is_told, "the model's event")
        until(lambda: told() == server.get("/history?model=n")["history"][::-1], "all entries of the model")
        assert told()[0]["after"] == "STAGING"
        for _ in range(3):
            assert server.predict("n").status_code == 200
        until(
            lambda: any(
                (one["model"], one["requests"]) == ("n", 3)
                for traffic in follower.data_of("traffic")
                for one in traffic["versions"]
            ),
            "the counts",
        )
        assert follower.headers is not None
        assert follower.headers["x-accel-buffering"] == "no"
        assert follower.headers.get_list("cache-control") == ["no-store"]
        assert follower.headers["transfer-encoding"] == "chunked"
    assert follower.streams == 1


def test_nothing_is_missed_or_told_twice_when_the_server_is_killed(server: Server) -> None:
    """Several clients follow while a model is pinned again and again, and the server dies in between."""
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(EventFollower(server)) for _ in range(CLIENTS)]
        first = max(list_numbers(server, 0))
        for kill in range(KILLS):
            for turn in range(10):
                pin(server, 1 + turn % 2)
            server.kill()
            server.start()
            until(lambda streams=kill + 2: min(one.streams for one in followers) == streams, "the clients being back")
        server.wait_ready()
        pin(server, 1)
        pin(server, 2)
        assert server.operate("DELETE", "/models/m/pin").status_code == 200
        expected = wait_same(server, followers, first)
    assert len(expected) > 20 * KILLS
    for follower in followers:
        assert follower.data_of("gap") == []
        assert len(follower.data_of("start")) == follower.streams == 1 + KILLS


def test_an_answer_over_http_1_0_ends_and_closes(server: Server) -> None:
    with contextlib.closing(connect(server.url)) as sock:
        sock.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"event: start\n")
    assert body.endswith(b"}\n\n")


def test_a_connection_goes_on_after_it_has_polled(server: Server) -> None:
    accept = {"Accept": "application/json"}
    start, *events = server.client.get(server.url + "/events", headers=accept).json()["events"]
    assert {event["event"] for event in events} == {"model", "service", "workers", "traffic"}
    pin(server, 1)
    later = server.client.get(server.url + "/events", params={"since": start["id"]}, headers=accept).json()["events"]
    assert "pin" in [event["data"]["event"] for event in later if event["event"] == "history"]


def test_a_stop_waits_for_no_stream(tmp_path: Path) -> None:
    with serving(tmp_path, SERVING_SERVER__DRAIN_SECONDS="600") as server:
        with EventFollower(server) as first, EventFollower(server) as second:
            assert server.stop(60.0) == 0
            until(lambda: first.ends and second.ends, "the ends of the streams")
            assert (first.ends[0], second.ends[0]) == (None, None)  # a whole answer, and no reset
        assert not [line for line in server.log() if line["level"] == "error" and line["event"] != "request"]


def test_a_client_that_reads_nothing_is_closed_while_another_goes_on(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, linear())
    history = History(tmp_path / "server-state", "basis", 10 * OLD_ENTRIES)
    history.start()
    for number in range(OLD_ENTRIES):
        entry = HistoryEntry(
            at=datetime.now(UTC), version="1", actor="somebody", event="pin", reason=f"{REASON}{number}"
        )
        history.events.note(entry, "m")
    history.flush()
    begin = (history.events.newest or "").partition("-")[0] + "-0"
    history.close()
    limits = {"SERVING_SERVER__IDLE_SECONDS": "6", "SERVING_SERVER__MAX_STREAMS": "2"}
    with serving(tmp_path, wait_ready=True, **limits) as server, EventFollower(server, since=begin) as follower:
        with contextlib.closing(connect(server.url)) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.sendall(f"GET /events?since={begin} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

            assert stuck.recv(64).startswith(b"HTTP/1.1 200 ")
            refused = refusal(server)
            assert refused is not None
            assert refused.headers["retry-after"] == "1"
            assert "2 streams" in refused.json()["detail"]
            until(lambda: refusal(server) is None, "room again")
        until(lambda: len(follower.numbers) >= OLD_ENTRIES, "the whole history")
        pin(server, 1)
        until(lambda: follower.numbers[-1] == server.get("/history?limit=1")["history"][0]["id"], "the newest entry")
        numbers = follower.numbers
        assert numbers == list(range(1, numbers[-1] + 1))
        assert follower.streams == 1


def refusal(server: Server) -> httpx.Response | None:
    """Ask for a stream; return the answer if it is refused."""
    with server.client.stream("GET", server.url + "/events") as answer:
        if answer.status_code == 200:
            return None
        answer.read()
        return answer


class Mounted(Application):
    """An application with everything below a mount point, in two processes."""

    app = ("application:app",)
    processes = 2


def test_an_application_of_somebody_s_own_streams_below_a_mount_point_and_stops(tmp_path: Path) -> None:
    """The process that has control is killed while two clients follow, and versions come before and after that."""
    (tmp_path / "application.py").write_text(APPLICATION)
    write_version(tmp_path / "store" / "m", 1, linear())
    with running(tmp_path, Mounted) as server, contextlib.ExitStack() as stack:
        followers = [stack.enter_context(EventFollower(server, "/ml/events")) for _ in range(2)]

        def drop(version: int) -> None:
            write_version(server.store / "m", version, linear())
            until(lambda: all(version_told(one) == str(version) for one in followers), f"version {version}", 60)

        until(lambda: all(version_told(one) == "1" for one in followers), "version 1", 60)
        drop(2)
        server.control().kill()
        drop(3)
        until(lambda: all(one.data_of("history")[-1]["version"] == "2" for one in followers), "the standby's entry")
        numbers = followers[0].numbers
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert followers[1].numbers[-len(numbers) :] == numbers[-len(followers[1].numbers) :]
        assert [one.streams for one in followers] == [1, 1]
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        until(lambda: all(one.ends for one in followers), "the ends of the streams")
        assert [one.ends[0] for one in followers] == [None, None]
    assert "Traceback" not in server.log_path.read_text()


def version_told(follower: EventFollower) -> str | None:
    """Return which version answers, as the last event has it."""
    active = follower.data_of("model")[-1]["active"] if follower.data_of("model") else None
    return active["version"] if active else None

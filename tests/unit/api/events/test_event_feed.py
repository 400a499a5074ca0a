"""What clients of `GET /events` are told: the whole state, then each change once, made once for all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any

import pytest

from serving.api.events import counted_state, event_feed, event_stream, shown_state, stream_client
from serving.api.services import services_of
from serving.domain.errors import StateUnavailable, Unavailable
from serving.domain.event_page import EventPage
from serving.domain.status import ModelStatus, StoreStatus, WorkerState, WorkerStatus
from serving.domain.upload import UploadState, UploadStatus
from serving.telemetry.traffic import LATENCY_BOUNDS, VersionTraffic
from tests.fakes import ADMIN, LOG, NOON, call, make_app, make_client, make_model_status, make_rollout_status, run
from tests.unit.api.events.follower import Client, Story, following, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than users need."""
    monkeypatch.setattr(event_feed, "LOOK_SECONDS", 0.002)
    monkeypatch.setattr(event_feed, "RETRY_SECONDS", 0.01)
    for module in (event_feed, counted_state):
        monkeypatch.setattr(module, "READ_SECONDS", 0.01)


def models_of(*models: ModelStatus) -> Any:
    return MappingProxyType({model.name: model for model in models})


def test_a_client_is_told_the_whole_state_and_then_what_changes() -> None:
    async def scenario() -> None:
        story = Story()
        async with following(story.app) as client:
            assert [kind for kind, _, _ in client.events] == ["start", "model", "service", "workers", "traffic"]
            assert client.text.startswith("retry: 2000\n\n")
            start, model, service = (data for _, _, data in client.events[:3])
            assert (start["models"], start["ui"]) == (["iris"], "admin")
            assert client.events[0][1] == f"{LOG}-250"
            async with make_client(story.app) as http:
                (listed,) = (await http.get("/models/active")).json()["models"]
            assert model == {**listed, "rollout": None}
            assert (service["ready"], service["reason"], service["generation"]) == (True, None, 0)
            rollout = make_model_status().model_copy(update={"rollout": make_rollout_status()})
            story.publish(models=models_of(rollout, make_model_status("wine")))
            await until(lambda: len(client.data_of("model")) == 3)
            assert [one["name"] for one in client.data_of("model")] == ["iris", "iris", "wine"]
            assert client.data_of("model")[1]["rollout"]["share"] == 10.0
            story.publish(models=models_of(rollout), store=StoreStatus(reason="not mounted"))
            await until(lambda: client.data_of("removed") and len(client.data_of("service")) == 2)
            assert client.data_of("removed") == [{"name": "wine"}]
            assert client.data_of("service")[1]["store"]["reason"] == "not mounted"
            story.publish(is_stopping=True)
            await until(lambda: len(client.data_of("service")) == 3)
            assert client.data_of("service")[2]["ready"] is False
            story.happen("a mark")
            await until(lambda: client.numbers)
            assert len(client.data_of("model")) == 3

    run(scenario())


def test_what_is_not_shown_is_no_change() -> None:
    async def scenario() -> None:
        story = Story()
        async with following(story.app) as client:
            unseen = make_model_status().model_copy(update={"versions": ()})
            story.publish(models=models_of(unseen))
            story.publish(store=story.state.status.store.model_copy())
            story.happen("a mark")
            await until(lambda: client.numbers)
            assert [kind for kind, _, _ in client.events[5:]] == ["history"]

    run(scenario())


def test_uploads_are_told_at_the_start_and_as_they_go_on() -> None:
    async def scenario() -> None:
        story = Story()
        upload = UploadStatus(
            id="a", model="iris", version="4", file="m.joblib", state=UploadState.RECEIVING, actor="x", at=NOON
        )
        story.publish(uploads=(upload,))
        async with following(story.app) as client:
            assert client.data_of("upload") == [upload.model_dump(mode="json")]
            published = upload.model_copy(update={"state": UploadState.PUBLISHED})
            other = upload.model_copy(update={"id": "b"})
            story.publish(uploads=(published, other))
            await until(lambda: len(client.data_of("upload")) == 3)
            assert client.data_of("upload")[1:] == [one.model_dump(mode="json") for one in (published, other)]
            story.publish(uploads=(other,))
            story.happen("a mark")
            await until(lambda: client.numbers)
            assert len(client.data_of("upload")) == 3

    run(scenario())


def test_an_event_is_made_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    describe = shown_state.describe_model

    def count(model: ModelStatus) -> Any:
        made.append(model.name)
        return describe(model)

    monkeypatch.setattr(shown_state, "describe_model", count)

    async def scenario() -> None:
        story = Story()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(following(story.app)) for _ in range(5)]
            story.publish(models=models_of(make_model_status(active=None)))
            await until(lambda: all(len(one.data_of("model")) == 2 for one in clients))
        assert made == ["iris", "iris"]

    run(scenario())


@pytest.mark.parametrize("how", ["header", "query", "both"])
def test_a_client_that_comes_back_gets_every_entry_after_its_last_one_once(how: str) -> None:
    async def scenario() -> None:
        story = Story()
        query = "" if how == "header" else f"since={LOG}-{247 if how == 'query' else 1}"
        headers = {} if how == "query" else {"last_event_id": f"{LOG}-247"}
        async with following(story.app, query, **headers) as client:
            assert client.events[0][1] is None
            await until(lambda: client.numbers == [248, 249, 250])
            story.happen("one more", "and another")
            await until(lambda: len(client.numbers) == 5)
            assert client.numbers == [248, 249, 250, 251, 252]
            history = [(event_id, data) for kind, event_id, data in client.events if kind == "history"]
            assert history[3][0] == f"{LOG}-251"
            assert (history[3][1]["reason"], history[3][1]["model"]) == ("one more", "iris")

    run(scenario())


def test_nothing_is_missed_or_doubled_between_what_was_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are written before, while and after each page is read, for clients that have seen different parts."""
    monkeypatch.setattr(event_feed, "PAGE_ENTRIES", 7)

    async def scenario() -> None:
        story = Story()
        read = story.operator.events_after

        async def read_slowly(event_id: str | None, limit: int) -> EventPage:
            story.happen("before")
            await asyncio.sleep(0)
            page = await read(event_id, limit)
            if len(story.operator.entries) < 400:
                story.happen("after")
            await asyncio.sleep(0.001)
            return page

        async with following(story.app) as first, AsyncExitStack() as stack:
            story.operator.events_after = read_slowly  # type: ignore[method-assign]
            late = [
                await stack.enter_async_context(following(story.app, f"since={LOG}-{seen}")) for seen in (200, 230, 249)
            ]
            await until(lambda: len(story.operator.entries) >= 400)
            story.operator.events_after = read  # type: ignore[method-assign]
            story.happen("the last")
            last = story.operator.entries[0].id
            for client, seen in zip((first, *late), (250, 200, 230, 249), strict=True):
                await until(lambda client=client: client.numbers and client.numbers[-1] >= last)
                assert client.numbers == list(range(seen + 1, last + 1))

    run(scenario())


@pytest.mark.parametrize("seen", ["deadbeef-3", "nonsense", "-", f"{LOG}-", f"{LOG}-x"])
def test_a_client_with_an_id_of_another_history_is_told_of_the_gap(seen: str) -> None:
    async def scenario() -> None:
        story = Story()
        async with following(story.app, f"since={seen}") as client:
            await until(lambda: len(client.numbers) == 250)
            (gap,) = [event for event in client.events if event[0] == "gap"]
            assert gap == ("gap", f"{LOG}-0", {"reason": "the history was lost"})
            assert client.numbers == list(range(1, 251))

    run(scenario())


def test_a_history_that_cannot_be_read_for_a_while_is_told_later() -> None:
    async def scenario() -> None:
        story = Story()
        async with following(story.app) as first:
            story.operator.error = StateUnavailable("the disk is gone")
            async with following(story.app, f"since={LOG}-249") as late:
                story.happen("unread")
                await until(lambda: len(story.operator.calls) > 4)
                assert (first.numbers, late.numbers) == ([], [])
                story.operator.error = None
                await until(lambda: first.numbers == [251] and late.numbers == [250, 251])

    run(scenario())


def test_a_late_client_is_woken_where_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next try after a failure, and when all are told what it has read by itself."""
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 100.0)

    async def scenario() -> None:
        story = Story()
        story.operator.error = StateUnavailable("the disk is gone")
        async with following(story.app, f"since={LOG}-249") as late:
            await until(lambda: len(story.operator.calls) > 2)
            story.operator.error = None
            await until(lambda: late.numbers == [250])
        story.write("on disk, and not published yet")
        async with following(story.app, f"since={LOG}-249") as ahead:
            await until(lambda: ahead.numbers == [250, 251])
            story.happen()
            await until(lambda: story.feed.clients.copy().pop().has_caught_up)
            story.happen("one more")
            await until(lambda: ahead.numbers == [250, 251, 252])

    run(scenario())


def test_a_history_of_which_nothing_is_known_at_first_is_a_gap() -> None:
    async def scenario() -> None:
        story = Story()
        story.publish(newest_event=None)
        async with following(story.app) as client:
            assert client.events[0][:2] == ("start", None)
            story.happen("the state can be read")
            await until(lambda: client.data_of("gap"))
            assert story.operator.calls[-1][:2] == ("events_after", None)

    run(scenario())


# --- slow, gone, too many, stopping -----------------------------------------------------------------------------------


def test_a_slow_client_is_ended_while_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_client, "MOST_WAITING_BYTES", 5000)

    async def scenario() -> None:
        story = Story()
        async with following(story.app) as slow, following(story.app) as quick:
            slow.may_read.clear()
            for number in range(60):
                story.happen("x" * 100)
                await until(lambda number=number: len(quick.numbers) == number + 1)
            slow.may_read.set()
            await until(lambda: slow.has_ended)
            assert not quick.has_ended
            *_, last = slow.numbers
            assert slow.numbers == list(range(251, last + 1))
            assert last < 310
            async with following(story.app, last_event_id=f"{LOG}-{last}") as again:
                await until(lambda: again.numbers and again.numbers[-1] == 310)
                assert again.numbers == list(range(last + 1, 311))

    run(scenario())


def test_a_client_that_reads_nothing_is_given_up() -> None:
    async def scenario() -> None:
        story = Story(server={"idle_seconds": 0.05, "max_streams": 1})
        async with following(story.app) as stuck:
            stuck.may_read.clear()
            story.happen("unread")
            await until(lambda: not story.feed.clients)
            async with following(story.app) as other:
                assert other.status == 200

    run(scenario())


def test_a_client_that_goes_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        story = Story()
        before = asyncio.all_tasks()
        async with following(story.app) as first:
            async with following(story.app):
                assert len(story.feed.clients) == 2
            await until(lambda: len(story.feed.clients) == 1)
            story.happen("for the other one")
            await until(lambda: first.numbers == [251])
        await until(lambda: asyncio.all_tasks() == before)
        assert not story.feed.clients
        asked = len(story.operator.calls)
        story.happen("for nobody")
        async with following(story.app, f"since={LOG}-251") as again:
            await until(lambda: again.numbers == [252])
        assert len(story.operator.calls) == asked + 1

    run(scenario())


def test_there_are_only_so_many_streams() -> None:
    async def scenario() -> None:
        story = Story(server={"max_streams": 2})
        async with following(story.app), following(story.app):
            async with following(story.app) as third:
                assert (third.status, third.headers["retry-after"]) == (503, "1")
                assert "2 streams" in third.text
            async with make_client(story.app) as http:
                polled = await http.get("/events", headers={"accept": "application/json"})
                assert polled.status_code == 200
        async with following(story.app) as again:
            assert again.status == 200

    run(scenario())


def test_a_stop_ends_all_streams_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        story = Story()
        is_stopping = False
        story.feed._is_stopping = lambda: is_stopping
        async with following(story.app) as client:
            is_stopping = True
            await until(lambda: client.has_ended)
        async with following(story.app) as late:
            assert late.status == 503
            assert "stopping" in late.text

    run(scenario())


def test_a_failure_ends_the_streams_and_the_next_client_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        story = Story()

        def fail(*_: object) -> list[Any]:
            raise RuntimeError("a bug")

        async with following(story.app) as stuck, following(story.app) as other:
            stuck.may_read.clear()
            story.happen("unread")
            with monkeypatch.context() as patched:
                patched.setattr(story.feed._shown, "update", fail)
                await until(lambda: other.has_ended)
            assert not stuck.has_ended
            async with following(story.app) as again:
                story.happen("seen")
                await until(lambda: again.numbers == [252])
            stuck.may_read.set()
            await until(lambda: stuck.has_ended)

    run(scenario())


def test_a_comment_comes_while_nothing_happens_and_a_stream_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.01)

    async def scenario() -> None:
        story = Story()
        async with following(story.app) as client:
            await until(lambda: client.text.endswith("\n\n:\n\n:\n\n"))
        monkeypatch.setattr(event_stream, "MOST_SECONDS", 0.0)
        async with following(story.app) as short:
            await until(lambda: short.has_ended)

    run(scenario())


# --- counts -----------------------------------------------------------------------------------------------------------


class FakeCounts:
    """Counts that a test sets; `error` is raised by every call when it is set."""

    def __init__(self, story: Story) -> None:
        self.counts: Any = services_of(story.app).counts
        self.workers: tuple[WorkerStatus, ...] = ()
        self.readings = 0
        self.error: Exception | None = None
        story.feed._counted = counted_state.CountedState(self)  # type: ignore[arg-type]
        self.traffic = services_of(story.app).metrics.traffic

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        self.readings += 1
        if self.error is not None:
            raise self.error
        return self.workers

    async def list_traffic(self) -> list[VersionTraffic]:
        found: list[VersionTraffic] = await self.counts.list_traffic()
        return found


def test_counts_are_told_of_the_versions_that_have_new_ones() -> None:
    async def scenario() -> None:
        story = Story()
        counts = FakeCounts(story)
        for status in (200, 200, 404, 429, 500, 503):
            counts.traffic("iris", "3").record(status, 2, 0.003)
        counts.traffic("wine", "1").record(200, 1, 60.0)
        counts.traffic("", "").record(404, 0, 0.001)
        async with following(story.app) as client:
            (first,) = client.data_of("traffic")
            assert first["bounds"] == list(LATENCY_BOUNDS)
            iris, wine = first["versions"]
            assert iris == {
                "model": "iris",
                "version": "3",
                "requests": 6,
                "refused": 2,
                "failed": 2,
                "rows": 12,
                "seconds": pytest.approx(0.018),
                "buckets": [0, 0, 0, 6, *[0] * 12],
            }
            assert (wine["model"], wine["buckets"][-1]) == ("wine", 1)
            readings = counts.readings
            await until(lambda: counts.readings > readings + 3)
            assert len(client.data_of("traffic")) == 1
            counts.traffic("wine", "1").record(200, 1, 0.003)
            await until(lambda: len(client.data_of("traffic")) == 2)
            second = client.data_of("traffic")[1]
            assert [(one["model"], one["requests"]) for one in second["versions"]] == [("wine", 2)]
            assert "bounds" not in second
            counts.workers = (WorkerStatus(index=0, state=WorkerState.SERVING),)
            await until(lambda: len(client.data_of("workers")) == 2)
            assert client.data_of("workers")[0] == {"workers": []}
            assert client.data_of("workers")[1]["workers"][0]["state"] == "serving"

    run(scenario())


def test_counts_that_cannot_be_read_hold_nothing_up_and_come_later() -> None:
    async def scenario() -> None:
        story = Story()
        counts = FakeCounts(story)
        counts.error = Unavailable("control is gone")
        async with following(story.app) as client:
            assert [kind for kind, _, _ in client.events] == ["start", "model", "service"]
            counts.error = None
            await until(lambda: client.data_of("traffic"))
            assert client.data_of("traffic")[0]["bounds"]
            assert client.data_of("workers") == [{"workers": []}]

    run(scenario())


def test_counts_are_read_once_for_many_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_state, "READ_SECONDS", 60.0)

    async def scenario() -> None:
        story = Story()
        counts = FakeCounts(story)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(following(story.app)) for _ in range(5)]
            assert all(client.data_of("traffic") for client in clients)
        async with make_client(story.app) as http:
            await http.get("/events", headers={"accept": "application/json"})
        assert counts.readings == 1

    run(scenario())


# --- other forms ------------------------------------------------------------------------------------------------------


def test_the_same_events_come_as_one_document() -> None:
    async def scenario() -> None:
        story = Story()
        async with following(story.app) as client, make_client(story.app) as http:
            answer = await http.get("/events", headers={"accept": "application/json"})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            events = answer.json()["events"]
            told = [(one["event"], one.get("id"), one["data"]) for one in events]
            assert told[1:4] == client.events[1:4]
            assert told[0][:2] == ("start", f"{LOG}-250")
            assert [kind for kind, _, _ in told] == ["start", "model", "service", "workers", "traffic"]
            resumed = (await http.get(f"/events?since={LOG}-248", headers={"accept": "application/json"})).json()
            assert "id" not in resumed["events"][0]
            assert [one["id"] for one in resumed["events"][-2:]] == [f"{LOG}-249", f"{LOG}-250"]
            story.operator.error = StateUnavailable("the disk is gone")
            without = (await http.get(f"/events?since={LOG}-248", headers={"accept": "application/json"})).json()
            assert [one["event"] for one in without["events"]] == [kind for kind, _, _ in told]

    run(scenario())


def test_over_http_1_0_the_answer_ends() -> None:
    async def scenario() -> None:
        story = Story()
        client = Client()
        scope = {"type": "http", "http_version": "1.0", "method": "GET", "path": "/events", "headers": []}
        scope |= {"query_string": f"since={LOG}-249".encode(), "client": None}
        await story.app(scope, client.receive, client.send)
        assert client.has_ended
        assert int(client.headers["content-length"]) == len(client.text)
        assert client.numbers == [250]

    run(scenario())


def test_headers_keep_proxies_from_holding_it_back() -> None:
    async def scenario() -> None:
        async with following(Story().app) as client:
            assert client.headers["content-type"].startswith("text/event-stream")
            assert client.headers["cache-control"] == "no-store"
            assert client.headers["x-accel-buffering"] == "no"
            assert "content-length" not in client.headers

    run(scenario())


@pytest.mark.parametrize("path", ["/events", "/history"])
def test_it_needs_the_scope_read_and_is_on_the_admin_port(path: str) -> None:
    json = {"accept": "application/json"}
    app = make_app(security={"read_token": "reads", "admin_token": "correct-horse"})
    assert call(app, "GET", path, headers=json).status_code == 401
    for token in ({"authorization": "Bearer reads"}, ADMIN):
        assert call(app, "GET", path, headers={**json, **token}).status_code == 200
    assert call(make_app(server={"admin_port": 0}), "GET", path, headers=json).status_code == 404


def test_the_history_of_all_models_has_filters() -> None:
    app = make_app()
    answer = call(app, "GET", "/history", params={"limit": 2}).json()
    assert [entry["id"] for entry in answer["history"]] == [250, 249]
    assert (answer["history"][0]["model"], answer["before"]) == ("iris", 249)
    everything = {"model": "m", "version": "1", "event": "pin", "actor": "a", "state": "ACTIVE", "before": 9}
    times = {"since": "2026-11-20T12:00:00Z", "until": "2026-11-21T00:00:00+02:00"}
    call(app, "GET", "/history", params={**everything, **times})
    (_, query) = services_of(app).operator.calls[-1]  # type: ignore[attr-defined]
    assert {name: getattr(query, name) for name in ("model", "version", "event", "actor", "state")} == {
        name: everything[name] for name in ("model", "version", "event", "actor", "state")
    }
    assert (query.limit, query.before_id) == (100, 9)
    assert (query.since.isoformat(), query.until.isoformat()) == (
        "2026-11-20T12:00:00+00:00",
        "2026-11-21T00:00:00+02:00",
    )
    for wrong in ({"state": "HAPPY"}, {"since": "yesterday"}, {"limit": 0}, {"before": 0}):
        assert call(app, "GET", "/history", params=wrong).status_code == 422

"""What the page computes, computed in the browser: rates, percentiles, texts, addresses, sentences, filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.browsing import Page

Call = Callable[..., Any]
BOUNDS = [0.01, 0.1, 1.0]


@pytest.fixture(scope="module")
def call(browser: Any, server: Any) -> Any:
    """``call(module, body, argument)``: what a function with the module as `m` and the argument as `a` returns."""
    page: Page = browser.new_page()
    page.goto(f"{server.url}/ui/")

    def run(module: str, body: str, argument: Any = None) -> Any:
        source = f"async (a) => {{ const m = await import('{server.url}/ui/{module}'); {body} }}"
        return page.evaluate(source, argument)

    run.address = f"{server.url}/ui"  # type: ignore[attr-defined]
    yield run
    page.close()


def count(requests: int, failed: int = 0, buckets: tuple[int, ...] = (0, 0, 0, 0)) -> dict[str, Any]:
    return {"requests": requests, "refused": 0, "failed": failed, "rows": 0, "seconds": 0, "buckets": list(buckets)}


def find_rates(call: Call, samples: list[tuple[float, dict[str, Any]]], now: float) -> dict[str, Any]:
    body = """
        const window = new m.CountWindow();
        for (const [at, counts] of a.samples) window.add(at, counts);
        return m.ratesOf([window], a.now, a.bounds);
    """
    found: dict[str, Any] = call("traffic_rates.js", body, {"samples": samples, "now": now, "bounds": BOUNDS})
    return found


def test_a_rate_is_a_difference_over_the_last_ten_seconds(call: Call) -> None:
    samples = [(float(second), count(100 + 5 * second)) for second in range(0, 31, 2)]
    assert find_rates(call, samples, 30.5)["requestsPerSecond"] == 5


def test_one_sample_is_not_enough_for_a_rate(call: Call) -> None:
    assert find_rates(call, [(0, count(100))], 1.0)["requestsPerSecond"] is None


def test_a_rate_falls_to_nothing_when_nothing_is_counted_any_more(call: Call) -> None:
    samples = [(0.0, count(0)), (2.0, count(20))]
    assert find_rates(call, samples, 9.0)["requestsPerSecond"] == pytest.approx(20 / 9)
    assert find_rates(call, samples, 13.0) == {
        "requestsPerSecond": 0,
        "p99Seconds": None,
        "isP99Beyond": False,
        "failedPerSecond": 0,
        "refusedPerSecond": 0,
    }


def test_the_first_requests_after_a_pause_are_not_spread_over_it(call: Call) -> None:
    samples = [(0.0, count(0)), (600.0, count(50))]
    assert find_rates(call, samples, 600.0)["requestsPerSecond"] == 5


def test_a_server_that_begins_anew_gives_no_negative_rate(call: Call) -> None:
    samples = [(0.0, count(1000)), (2.0, count(1010)), (4.0, count(3)), (6.0, count(7, failed=4))]
    found = find_rates(call, samples, 6.0)
    assert (found["requestsPerSecond"], found["failedPerSecond"]) == (2, 2)


def test_a_percentile_is_within_its_bucket(call: Call) -> None:
    find = "return m.percentile(a.buckets, a.bounds, 0.99)"
    for buckets, low, high in (([100, 0, 0, 0], 0, 0.01), ([98, 1, 1, 0], 0.01, 0.1), ([0, 0, 5, 0], 0.1, 1.0)):
        found = call("traffic_rates.js", find, {"buckets": buckets, "bounds": BOUNDS})
        assert low < found <= high, buckets
    assert call("traffic_rates.js", find, {"buckets": [0, 0, 0, 9], "bounds": BOUNDS}) == float("inf")
    assert call("traffic_rates.js", find, {"buckets": [0, 0, 0, 0], "bounds": BOUNDS}) is None


def test_latencies_beyond_the_last_bound_are_longer_than_that(call: Call) -> None:
    samples = [(0.0, count(0)), (2.0, count(10, buckets=(0, 0, 0, 10)))]
    found = find_rates(call, samples, 2.0)
    assert (found["p99Seconds"], found["isP99Beyond"]) == (1.0, True)
    assert call("format.js", "return m.formatP99(a)", found) == "> 1 s"


@pytest.mark.parametrize(
    ("function", "argument", "text"),
    [
        ("formatRate", 0, "0"),
        ("formatRate", 0.04, "< 0.1"),
        ("formatRate", 3.14, "3.1"),
        ("formatRate", 12345.6, "12,346"),
        ("formatRate", None, "–"),
        ("formatSeconds", 0.00042, "420 µs"),
        ("formatSeconds", 0.0123, "12.3 ms"),
        ("formatSeconds", 0.9999, "1 s"),
        ("formatSeconds", 1.5, "1.5 s"),
        ("formatSeconds", 600, "10 min"),
        ("formatSeconds", 90_000, "25 h"),
        ("formatBytes", 999, "999 B"),
        ("formatBytes", 168_624, "169 kB"),
        ("formatBytes", 999_900, "1 MB"),
        ("formatPercent", 12.5, "12.5 %"),
        ("formatDigest", "sha256:0123456789abcdef", "0123456789ab"),
        ("formatTime", None, "–"),
    ],
)
def test_numbers_are_written_for_people(call: Call, function: str, argument: Any, text: str) -> None:
    assert call("format.js", f"return m.{function}(a)", argument) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "just now"), (42, "42 s ago"), (61, "1 min ago"), (200, "3 min ago"), (-60, "in 60 s")]
)
def test_times_say_how_long_ago_they_were(call: Call, seconds: float, text: str) -> None:
    now = "2026-11-30T12:00:00Z"
    body = "const now = +new Date(a.now); return m.formatAgo(new Date(now - a.seconds * 1000).toISOString(), now)"
    assert call("format.js", body, {"now": now, "seconds": seconds}) == text


@pytest.mark.parametrize("name", ["iris", "a/b", "100%", "ä ö?#", "<b>"])
def test_an_address_leads_back_to_its_view(call: Call, name: str) -> None:
    body = "const p = m.parseHash(m.hashOf('models', a, {x: '1&2', y: ''})); return [p.view, p.name, String(p.query)]"
    assert call("router.js", body, name) == ["models", name, "x=1%262"]


def test_a_broken_address_is_taken_as_it_is(call: Call) -> None:
    assert call("router.js", "return m.parseHash('#/models/%E0%A4').name") == "%E0%A4"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"event": "transition", "before": "READY", "after": "ACTIVE", "actor": "system"}, ["", "became active", None]),
        ({"event": "transition", "before": "ACTIVE", "after": "READY", "actor": "system"}, ["", "stands by", None]),
        ({"event": "pin", "before": None, "after": None, "actor": "admin@::1"}, ["Pinned", "", "admin@::1"]),
        ({"event": "upload", "before": None, "after": None, "actor": "admin@::1"}, ["Uploaded", "", "admin@::1"]),
        ({"event": "new", "before": None, "after": None, "actor": "system"}, ["new:", "", None]),
    ],
)
def test_an_entry_of_the_history_is_a_sentence(call: Call, entry: dict[str, Any], words: list[str | None]) -> None:
    body = "const s = m.sentenceOf(a); return [s.before, s.after, s.actor]"
    assert call("parts/history_sentence.js", body, {"model": "iris", "version": "2", **entry}) == words


def test_an_entry_beside_others_of_its_model_names_only_the_version(call: Call) -> None:
    body = "return a.map((entry) => m.sentenceOf(entry, {isOfModel: true}).name)"
    entry = {"event": "unload", "before": None, "after": None, "actor": "admin", "model": "iris"}
    entries = [{**entry, "version": "2"}, {**entry, "version": None}]
    assert call("parts/history_sentence.js", body, entries) == ["2", "iris"]


def test_a_timeline_follows_the_zone_and_forgets_entries_whose_numbers_begin_again(call: Call) -> None:
    body = """
        const zone = await import(new URL("../time_zone.js", a.module).href);
        const pages = [[{...a.entry, id: 900}, {...a.entry, id: 2}], [{...a.entry, id: 2, version: "8"}]];
        const api = {pathOf: () => "", getJson: async () => ({history: pages.shift(), before: null})};
        const timeline = m.createTimeline("iris", api);
        const texts = () => [...timeline.element.querySelectorAll(".event-title")].map((one) => one.textContent);
        await timeline.load();
        const seen = [texts(), timeline.element.querySelector("p").textContent];
        await timeline.reload();
        timeline.add({...a.entry, id: 2, version: "9"});
        zone.toggleZone();
        seen.push(texts(), timeline.element.querySelector("p").textContent);
        timeline.dispose();
        zone.toggleZone();
        return [...seen, timeline.element.querySelector("p").textContent];
    """
    entry = {"event": "pin", "before": None, "after": None, "actor": "admin", "model": "iris", "version": "7"}
    entry |= {"at": "2026-11-30T12:00:00Z", "reason": None, "duration_seconds": None}
    module = f"{call.address}/parts/timeline.js"  # type: ignore[attr-defined]
    titles, local, after, utc, later = call("parts/timeline.js", body, {"entry": entry, "module": module})
    assert titles == ["Pinned 7", "Pinned 7"]
    assert after == ["Pinned 8"], "what has the same number is another entry now"
    assert local != utc == later == "Times are in UTC."


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"model": "iris", "state": "ACTIVE"}, True),
        ({"model": "iri"}, False),
        ({"state": "READY"}, False),
        ({"since": "2026-11-30T12:00:00Z", "until": "2026-11-30T12:00:01Z"}, True),
        ({"until": "2026-11-30T12:00:00Z"}, False),
    ],
)
def test_entries_that_come_later_are_filtered_as_the_server_does(
    call: Call, filters: dict[str, str], passes: bool
) -> None:
    entry = {
        "id": 1,
        "model": "iris",
        "version": "2",
        "before": "READY",
        "after": "ACTIVE",
        "actor": "system",
        "event": "transition",
        "at": "2026-11-30T12:00:00Z",
    }
    body = "return m.passesFilters(a.entry, a.filters)"
    assert call("parts/history_filters.js", body, {"entry": entry, "filters": filters}) is passes


@pytest.mark.parametrize(
    "attributes",
    ["{onclick: 'alert(1)'}", "{href: 'javascript:alert(1)'}", "{href: ' javascript:alert(1)'}", "{href: 'data:x,y'}"],
)
def test_no_element_gets_a_script(call: Call, attributes: str) -> None:
    body = f"try {{ m.h('a', {attributes}); return 'made' }} catch (error) {{ return error.name }}"
    assert call("dom.js", body) == "TypeError"


@pytest.mark.parametrize("link", ["#/models/iris", "../docs", "https://example.org/x", "models/iris", "/x"])
def test_links_of_the_page_are_made(call: Call, link: str) -> None:
    assert call("dom.js", "return m.h('a', {href: a}).getAttribute('href')", link) == link


@pytest.mark.parametrize(
    ("word", "quoted"), [("iris", "iris"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$(x)", "'$(x)'")]
)
def test_a_command_has_its_words_quoted(call: Call, word: str, quoted: str) -> None:
    assert call("parts/command_line.js", "return m.servingCommand('pin', a)", word) == f"serving pin {quoted}"

"""Every query of the dashboard, of its variables and of the alerts is asked of a real Prometheus.

It scrapes a server of two workers to which happens what the panels are about: traffic, refusals, failures, swaps, a
version that is refused, one that hangs, a rollout under way, one that ended, a shadow, hosts and a worker that die.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from peculiar import HangsWhileLoading, Suicidal

from tests.container.prometheus_process import START_SECONDS, Prometheus, free_port, needs, run_prometheus
from tests.e2e.harness import NO_TLS, Server, constant, linear, serving, until, write_version
from tests.e2e.test_workers import wait_all_serving, workers_of

pytestmark = [pytest.mark.container, needs("prometheus")]

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "serving.json").read_text())
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
SECONDS = 60.0
PAUSE_SECONDS = 0.2  # between rounds of requests: some for every scrape, and the machine is free for what is seen
NEVER = "3600"


class Query(NamedTuple):
    """One query of a panel."""

    name: str
    expr: str


def expand(expr: str) -> str:
    """Put in what Grafana would for "all" and for a short time."""
    for variable in VARIABLES:
        expr = expr.replace(f"${variable['name']}", variable["allValue"])
    return expr.replace("$__rate_interval", "10s").replace("$__range", "60s")


QUERIES = [
    *(Query(f"{panel['title']}: {one['refId']}", one["expr"]) for panel in PANELS for one in panel["targets"]),
    *(Query(f"annotation {one['name']}", one["expr"]) for one in DASHBOARD["annotations"]["list"] if "expr" in one),
]


class Callers:
    """Ask each model again and again, rightly and wrongly, until told to stop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join(60)

    def _ask(self) -> None:
        right, wrong, deadly = [[0.0, 0.0]], [[0.0]], [[13.0, 0.0]]
        rounds = 0
        while not self._is_stopping.wait(PAUSE_SECONDS):
            asked = [("swapped", right), ("canary", right), ("shadow", right), ("ended", right)] * 3
            asked += [("swapped", wrong), ("missing", right)]
            if rounds % 4 == 0:
                asked.append(("dies", deadly))
            rounds += 1
            # a connection for each round, so that both workers are asked; one of them is killed
            with suppress(httpx.TransportError), httpx.Client(base_url=self._server.url, verify=NO_TLS) as client:
                for model, rows in asked:
                    client.post(f"/models/{model}/predict", json={"instances": rows}, timeout=20.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers, with a first version of each model."""
    directory = tmp_path_factory.mktemp("dashboard")
    for model in ("swapped", "canary", "ended"):
        write_version(directory / "store" / model, 1, constant(1))
    write_version(directory / "store" / "shadow", 1, linear())
    write_version(directory / "store" / "dies", 1, constant(1, Suicidal))
    settings = {
        "SERVING_SERVER__WORKERS": "2",
        "SERVING_ROLLOUT__STEP_SECONDS": NEVER,
        "SERVING_RECORD__SAMPLE": "1",
        "SERVING_TRACES__ENDPOINT": f"http://127.0.0.1:{free_port()}/v1/traces",  # where nobody listens
        "SERVING_TRACES__SAMPLE": "0.2",
    }
    for model in ("canary", "shadow", "ended"):
        strategy = "shadow" if model == "shadow" else "canary"
        settings[f"SERVING_MODELS__{model.upper()}__ROLLOUT__STRATEGY"] = strategy
    with serving(directory, wait_ready=True, **settings) as running:
        for model in ("swapped", "canary", "ended", "shadow", "dies"):
            running.wait_active(model, 1)
        yield running


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after all of it has happened, and while requests go on; its alerts do not wait."""
    rules = {"groups": [{**group, "rules": [dict(rule) for rule in group["rules"]]} for group in RULES["groups"]]}
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    config = DEPLOY / "prometheus.yml"
    with Callers(server), run_prometheus(config, server.url, tmp_path_factory.mktemp("prometheus"), rules) as running:
        assert running.wait_for('up{job="serving"} == 1', START_SECONDS), running.log.read_text()
        for model in ("canary", "ended"):
            server.drop(model, 2, constant(2))
            server.wait_state(model, 2, "CANARY")
        server.drop("shadow", 2, linear())
        server.wait_state("shadow", 2, "SHADOW")
        assert server.operate("POST", "/models/ended/rollout", {"action": "rollback"}).status_code == 200
        for version in (2, 3):  # the first one is unloaded, then
            server.drop("swapped", version, constant(version))
            server.wait_active("swapped", version)
        broken = server.store / "swapped" / "4"
        broken.mkdir()
        (broken / "model.joblib").write_bytes(b"no model")
        server.wait_state("swapped", 4, "REJECTED")
        server.drop("hangs", 1, constant(1, HangsWhileLoading))
        server.wait_state("hangs", 1, "LOADING")
        os.kill(workers_of(server)[0]["pid"], signal.SIGKILL)
        wait_all_serving(server)
        yield running


def find_metrics(text: str) -> set[str]:
    """Return the metrics that a text names; a histogram is one."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bserving_\w+", text)}


def find_series(prometheus: Prometheus, expr: str) -> list[dict[str, Any]]:
    """Return the series of the last seconds that have a finite number."""
    now = float(prometheus.ask("query", query="time()")["result"][1])
    found = prometheus.ask("query_range", query=expr, start=now - 20, end=now, step=1)["result"]
    return [one for one in found if any(math.isfinite(float(value)) for _, value in one["values"])]


@pytest.mark.parametrize("query", QUERIES, ids=[one.name for one in QUERIES])
def test_a_query_of_the_dashboard_has_data(prometheus: Prometheus, query: Query) -> None:
    expr = expand(query.expr)
    assert "$" not in expr
    until(lambda: find_series(prometheus, expr), f"data of {expr}", SECONDS, every=0.5)


@pytest.mark.parametrize("variable", VARIABLES, ids=[one["name"] for one in VARIABLES])
def test_a_variable_has_values(prometheus: Prometheus, server: Server, variable: dict[str, Any]) -> None:
    query = re.fullmatch(r"label_values\((?P<match>.+), (?P<label>\w+)\)", variable["query"]["query"])
    assert query is not None
    found = prometheus.ask(f"label/{query['label']}/values", **{"match[]": expand(query["match"])})
    expected = {"instance": server.url.removeprefix("http://"), "model": "swapped", "version": "3"}
    assert expected[variable["name"]] in found


def test_a_variable_chooses(prometheus: Prometheus) -> None:
    """Panels follow the variables: one model, or one version, shows less than all."""
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(re.findall(r"\$(instance|model|version)", target["expr"]))
            assert "instance" in labels, target["expr"]
    only = QUERIES[[query.name for query in QUERIES].index("Requests: A")].expr.replace("$model", "canary")
    assert {one["metric"]["model"] for one in find_series(prometheus, expand(only))} == {"canary"}


def test_rules_are_evaluated_without_errors(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = until(evaluated, "an evaluation of all rules")
    assert {rule["name"] for rule in rules} == {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_alerts_say_what_is_wrong_here(prometheus: Prometheus) -> None:
    """They do not wait here; those about what has not happened are quiet."""

    def firing() -> dict[tuple[str, str], str] | None:
        alerts = [one for one in prometheus.ask("alerts")["alerts"] if one["state"] == "firing"]
        found = {(one["labels"]["alertname"], one["labels"].get("model", "")): one for one in alerts}
        return found if ("ServingFailures", "dies") in found else None

    found = until(firing, "an alert for failures", SECONDS)
    assert "humanize" not in (summary := found["ServingFailures", "dies"]["annotations"]["summary"])
    assert "% of the predictions of model dies fail" in summary
    assert not [one for one in found.values() if "error expanding" in one["annotations"]["summary"]]
    quiet = {"ServingScrapeDown", "ServingNotReady", "ServingStoreUnavailable", "ServingStateHeld"}
    assert not quiet & {name for name, _ in found}


# What is there for others: dates of births that OpenMetrics wants, and what is in no panel.
NOT_SHOWN = {"serving_process_virtual_memory_bytes"}


def read_metrics(prometheus: Prometheus) -> set[str]:
    """Return the metrics that Prometheus has seen so far."""
    names = find_metrics(" ".join(prometheus.ask("label/__name__/values")))
    return {name for name in names if not name.endswith("_created")}


def test_every_metric_is_shown_and_written_about(prometheus: Prometheus, root: Path) -> None:
    queries = [query.expr for query in QUERIES] + [one["query"]["query"] for one in VARIABLES]
    shown = find_metrics(" ".join(queries))
    exposed = until(lambda: shown <= (seen := read_metrics(prometheus)) and seen, f"{shown} being seen", SECONDS)
    assert exposed - shown == NOT_SHOWN
    written = find_metrics((root / "docs" / "operations.md").read_text())
    assert {name for name in exposed - written if not name.startswith("serving_process_")} == set()


def test_names_in_alerts_exist(prometheus: Prometheus) -> None:
    named = find_metrics(" ".join(rule["expr"] for group in RULES["groups"] for rule in group["rules"]))
    until(lambda: named <= read_metrics(prometheus), f"{named} being seen", SECONDS)


def test_the_dashboard_is_whole() -> None:
    """Panels have names, words and places of their own."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert {one["datasource"]["uid"] for one in [panel, *panel["targets"]]} == {"${datasource}"}
    assert [one["title"] for one in DASHBOARD["panels"] if one["type"] == "row"] == [
        "What serves",
        "Traffic",
        "Latency",
        "Errors and refusals",
        "Candidates and gates",
        "Rollouts and shadow",
        "Hosts and workers",
        "Memory and processor",
        "Edge limits",
        "Records and traces",
    ]

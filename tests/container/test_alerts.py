"""Each alert fires when it should and not before, by Prometheus's own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.container.prometheus_process import needs

pytestmark = pytest.mark.container

RULES = Path(__file__).parents[2] / "deploy" / "alerts.yml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
ON = '{job="serving", instance="a:8000"'
M = ON + ', model="m"'
Series = dict[str, str]


class Case(NamedTuple):
    """What is scraped each minute: `fires` sets the alert off by minute `at`, and not before; `quiet` never does."""

    fires: Series
    quiet: Series
    at: int


def gauge(name: str, good: int, bad: int, at: int, labels: str = ON) -> Case:
    """Return a case in which a gauge goes from `good` to `bad` at minute 10, and the alert waits until minute `at`."""
    series = f"serving_{name}{labels}}}"
    return Case({series: f"{good}x9 {bad}x60"}, {series: f"{good}x9 {bad}x0 {good}x60"}, at)


def latency(name: str, slow: int, fast: int, bound: str = "2.5") -> Series:
    """Return a histogram in which each minute `fast` requests took up to 10 ms, and `slow` more up to `bound`."""
    bucket = f"serving_request_duration_seconds_bucket{M}"
    return {
        f'{bucket}, le="0.01"}}': f"0+{fast}{name}",
        f'{bucket}, le="{bound}"}}': f"0+{fast + slow}{name}",
        f'{bucket}, le="+Inf"}}': f"0+{fast + slow}{name}",
    }


def requests(failed: str) -> Series:
    total = f"serving_requests_total{M}"
    return {
        f'{total}, status="200"}}': "0+1000x60",
        f'{total}, status="503"}}': failed,
        f'{total}, status="422"}}': "0+900x60",
    }


REJECTS = f'serving_candidate_rejects_total{M}, gate="golden"}}'
ROLLOUTS = f"serving_rollouts_total{M}"
RESTARTS = f"serving_host_restarts_total{M}}}"
WORKER_RESTARTS = f'serving_worker_restarts_total{ON}, worker="1"}}'
FALLBACKS = f"serving_shortcut_fallbacks_total{ON}"
UP = {f"up{ON}}}": "1x100"}
DAY = 24 * 60
HOUR = "x60"


def first(series: str, other: str) -> Case:
    """Return a case in which a counter appears, with 1, while the server is up; in the quiet one another does."""
    return Case({series: "_x29 1x60", **UP}, {other: "_x29 1x60", **UP}, 30)


def next_one(series: str) -> Case:
    """Return a case in which a counter grows; in the quiet one it is as old as all that Prometheus knows."""
    return Case({series: "1x29 2x60", **UP}, {series: "1x100", **UP}, 30)


CASES: dict[str, Case] = {
    "ServingScrapeDown": Case({f"up{ON}}}": "1x9 0x60"}, {f"up{ON}}}": "1x9 0 1x60"}, 11),
    "ServingNotReady": gauge("ready", 1, 0, 12),
    "ServingNoActiveVersion": gauge("model_has_active", 1, 0, 15, M),
    # one in ten; one in two thousand
    "ServingFailures": Case(requests("0x9 0+200x60"), requests("0x9 0+1x60"), 16),
    "ServingSlow": Case(latency(HOUR, 5, 95), latency(HOUR, 0, 100), 11),
    # a day of one, then of the other kind
    "ServingSlowerThanBefore": Case(
        {
            **{name: f"0+100x{DAY + 60}" for name in latency("", 0, 0, "0.25") if "0.01" not in name},
            f'serving_request_duration_seconds_bucket{M}, le="0.01"}}': f"0+100x{DAY} {100 * DAY}+50x60",
        },
        latency(f"x{DAY + 60}", 5, 95, "0.25"),
        DAY + 16,
    ),
    "ServingHostRestarts": Case({RESTARTS: "1x9 4x60"}, {RESTARTS: "1x9 2x60"}, 10),
    "ServingVersionRefused": first(REJECTS, "serving_swaps_total" + M + "}"),
    "ServingCandidateStuck": gauge("versions", 0, 1, 40, f'{M}, state="VALIDATING"'),
    "ServingVersionFails": gauge("versions", 0, 1, 25, f'{M}, state="FAILED"'),
    "ServingDecisionNotFollowed": gauge("model_problem", 0, 1, 20, M),
    "ServingRolledBack": first(f'{ROLLOUTS}, end="rolled-back"}}', f'{ROLLOUTS}, end="promoted"}}'),
    "ServingStoreUnavailable": gauge("store_available", 1, 0, 12),
    "ServingStateHeld": gauge("state_held", 0, 1, 11),
    "ServingStateNotWritten": gauge("state_problem", 0, 1, 11),
    "ServingWorkersMissing": Case(
        {f"serving_workers{ON}}}": "4x9 3x60", f"serving_workers_wanted{ON}}}": "4x70"},
        {f"serving_workers{ON}}}": "4x9 3 4x60", f"serving_workers_wanted{ON}}}": "4x70"},
        12,
    ),
    "ServingWorkerRestarts": Case({WORKER_RESTARTS: "0x9 4x60"}, {WORKER_RESTARTS: "0x9 1x60"}, 10),
    "ServingRecordsLost": Case(
        {f"serving_record_dropped_total{ON}}}": "0x9 5x60"}, {f"serving_records_total{ON}}}": "0+9x60"}, 10
    ),
    "ServingShortWayBug": first(f'{FALLBACKS}, problem="internal"}}', f'{FALLBACKS}, problem="invalid-input"}}'),
}
# The second way in which an alert may fire.
MORE: dict[str, Case] = {
    "ServingScrapeDown": Case({}, {f"up{ON}}}": "1x70"}, 1),
    "ServingVersionRefused": next_one(REJECTS),
    "ServingRolledBack": next_one(f'{ROLLOUTS}, end="rolled-back"}}'),
    "ServingStateNotWritten": Case(
        {f"serving_state_errors_total{ON}}}": "0x9 1x60"}, {f"serving_state_errors_total{ON}}}": "5x70"}, 11
    ),
    "ServingRecordsLost": Case(
        {f"serving_record_failures_total{ON}}}": "0x9 1x60"}, {f"serving_record_failures_total{ON}}}": "3x70"}, 10
    ),
    "ServingShortWayBug": next_one(f'{FALLBACKS}, problem="internal"}}'),
}


def expand(values: str) -> str:
    """Write ``1x9``, a value and nine more of it, and ``_x9``, as many without any, as promtool wants them."""
    values = re.sub(r"_x(\d+)", lambda found: f"_x{int(found[1]) + 1}", values)
    return re.sub(r"(?<![\d+x])(\d+)x(\d+)", r"\1+0x\2", values)


def count_firing(alert: str, labels: str = "") -> str:
    return f'count(ALERTS{{alertname="{alert}", alertstate="firing"{labels}}})'


def make_test(series: Series, expectations: list[tuple[str, int, bool]]) -> dict[str, Any]:
    """Return a test for promtool: each expression is evaluated at its minute, and has the value 1, or none."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": expand(values)} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 1}] if is_true else []}
            for expr, minute, is_true in expectations
        ],
    }


def run(directory: Path, alert: str, *tests: dict[str, Any]) -> None:
    """Let promtool run tests of one alert: for a day it would evaluate all the others, too, which takes 4 seconds."""
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": alert, "rules": [ALERTS[alert]]}]}))
    file = directory / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [*tests]}))
    done = subprocess.run(["promtool", "test", "rules", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
@pytest.mark.parametrize(
    ("alert", "case"), [*CASES.items(), *MORE.items()], ids=[*CASES, *(f"{name}-other" for name in MORE)]
)
def test_an_alert_fires_in_time_and_is_quiet_otherwise(alert: str, case: Case, tmp_path: Path) -> None:
    labels = re.findall(r"\$labels\.(\w+)", ALERTS[alert]["annotations"]["summary"]) if case.fires else []
    named = "".join(f', {label}!=""' for label in labels)  # what the summary says is there
    fires = [(count_firing(alert), case.at - 1, False), (count_firing(alert, named), case.at, True)]
    quiet = [(count_firing(alert), minute, False) for minute in range(max(0, case.at - 9), case.at + 15)]
    run(tmp_path, alert, make_test(case.fires, fires), make_test(case.quiet, quiet))


def test_each_alert_has_its_cases() -> None:
    assert CASES.keys() == ALERTS.keys()


@needs("promtool")
def test_promtool_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do_and_where_more_is_written(alert: str, root: Path) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(rule["annotations"]["summary"]) > 60
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (root / page).read_text(), flags=re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_waits_unless_it_is_about_something_that_has_happened() -> None:
    at_once = {alert for alert, rule in ALERTS.items() if "for" not in rule}
    assert all("increase(" in ALERTS[alert]["expr"] for alert in at_once)

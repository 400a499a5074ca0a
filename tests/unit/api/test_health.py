"""Probes and metrics."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from serving.domain.status import StoreStatus
from serving.plane.active_reference import ActiveReference
from tests.fakes import (
    FakeEngine,
    call,
    make_app,
    make_client,
    make_model_reference,
    make_model_status,
    make_reference,
    make_servable,
    make_status,
    predict,
    run,
)

MODEL = make_model_status()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (make_status(MODEL, has_started=False), "starting"),
        (make_status(MODEL, is_stopping=True), "stopping"),
        (make_status(make_model_status(active=None)), "no model is active; GET /models says why"),
        (make_status(store=StoreStatus(reason="EIO")), "the store cannot be listed: EIO"),
    ],
)
def test_a_service_that_is_not_ready_is_503_and_says_why(status: Any, reason: str) -> None:
    app = make_app(status=status)
    response = call(app, "GET", "/health/ready")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert reason in response.json()["reason"]
    assert call(app, "GET", "/health/live").status_code == 200


def test_a_service_is_ready_with_one_active_model_whatever_its_candidates_do() -> None:
    status = make_status(MODEL, make_model_status("wine", active=None), store=StoreStatus(reason="EIO"))
    response = call(make_app(status=status), "GET", "/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True, "reason": None, "active": 1})
    assert call(make_app(status=status), "GET", "/health/live").json() == {"status": "live"}


def test_a_service_stays_ready_while_some_workers_do_not_serve_and_names_them() -> None:
    problem = "worker 2 does not serve: 5 have ended in a row, the last one: SIGSEGV"
    status = replace(make_status(MODEL), worker_problem=problem)
    response = call(make_app(status=status), "GET", "/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True, "reason": problem, "active": 1})
    stopping = replace(make_status(MODEL, is_stopping=True), worker_problem=problem)
    assert call(make_app(status=stopping), "GET", "/health/ready").json()["reason"].startswith("stopping")


def test_metrics_can_be_parsed_in_both_formats() -> None:
    app = make_app()
    predict(app, {"input": [5.1, 3.5, 1.4, 0.2]})
    plain = call(app, "GET", "/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(plain.text)}
    assert {"serving_requests", "serving_request_duration_seconds", "serving_build_info"} <= names
    assert all(name.startswith("serving_") for name in names)
    asked = call(app, "GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics(asked.text)} >= {"serving_requests"}


def test_leases_are_read_from_the_active_reference_when_somebody_looks() -> None:
    engine = FakeEngine()
    app = make_app(make_reference(iris=make_servable("iris", "3", engine)))

    async def scenario() -> tuple[str, str]:
        engine.gate = asyncio.Event()
        async with make_client(app) as client:
            held = asyncio.create_task(client.post("/models/iris/predict", json={"input": [1, 2, 3, 4]}))
            while not engine.batches:
                await asyncio.sleep(0)
            during = (await client.get("/metrics")).text
            engine.gate.set()
            await held
            return during, (await client.get("/metrics")).text

    during, after = run(scenario())
    assert 'serving_leases{model="iris",version="3"} 1.0' in during
    assert 'serving_leases{model="iris",version="3"} 0.0' in after
    assert 'serving_active{model="iris",version="3"} 1.0' in after
    app.state.active = make_reference()
    assert "serving_leases{" not in call(app, "GET", "/metrics").text


def test_a_version_on_standby_is_loaded_and_not_active() -> None:
    old, new = make_servable("iris", "2"), make_servable("iris", "3")
    app = make_app(ActiveReference({"iris": make_model_reference(new, old)}))
    text = call(app, "GET", "/metrics").text
    assert 'serving_leases{model="iris",version="2"} 0.0' in text
    assert 'serving_active{model="iris",version="3"} 1.0' in text
    assert 'serving_active{model="iris",version="2"}' not in text


def test_every_app_has_metrics_of_its_own() -> None:
    one, other = make_app(), make_app()
    predict(one, {"input": [1, 2, 3, 4]})
    assert 'serving_requests_total{model="iris"' in call(one, "GET", "/metrics").text
    assert 'serving_requests_total{model="iris"' not in call(other, "GET", "/metrics").text

"""A shadow delays, fails and changes no answer: each one is the active version's, whatever the new version does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import peculiar
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.test_workers import workers_of

NEVER = "3600"
ROWS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])


def line(value: float) -> LinearRegression:
    """Return a model that answers `value` to every row; it is compiled."""
    return LinearRegression().fit(ROWS, [value] * 4)


def halves(labels: list[int]) -> LogisticRegression:
    """Return a model with labels of four rows; it is compiled."""
    return LogisticRegression(C=1e6).fit(ROWS, labels)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of shadows that end only when they are judged to be worse, but for the model `equal`."""
    directory = tmp_path_factory.mktemp("shadows")
    for model in ("hosted", "hangs", "dies", "worse"):
        write_version(directory / "store" / model, 1, constant(1.0))
    write_version(directory / "store" / "number", 1, line(1.0))
    write_version(directory / "store" / "equal", 1, line(1.0))
    write_version(directory / "store" / "label", 1, halves([0, 0, 1, 1]))
    settings = {
        "SERVING_ROLLOUT__STRATEGY": "shadow",
        "SERVING_ROLLOUT__STEP_SECONDS": NEVER,
        "SERVING_MODELS__EQUAL__ROLLOUT__STEP_SECONDS": "0",
        "SERVING_MODELS__EQUAL__ROLLOUT__MIN_REQUESTS": "500",
        "SERVING_MODELS__EQUAL__ROLLOUT__HOLDBACK": "0",
    }
    with serving(directory, wait_ready=True, **settings) as server:
        yield server
        assert "shadow_failed" not in server.log_path.read_text()


def begin(server: Server, model: str, estimator: Any) -> None:
    """Let version 2 of a model begin as the shadow of version 1."""
    server.drop(model, 2, estimator)
    server.wait_state(model, 2, "SHADOW")


def report(server: Server, model: str) -> dict[str, Any]:
    """Return what is shown of a model's shadow."""
    found: dict[str, Any] = server.model(model)["rollout"]["running"]["shadow"] or {"pairs": 0, "dropped": 0}
    return found


def wait_for_copies(server: Server, model: str, sent: int) -> dict[str, Any]:
    """Wait until each copy was compared or dropped, and return the report."""
    return until(
        lambda: (found := report(server, model))["pairs"] + found["dropped"] == sent and found,
        f"{sent} copies of {model} compared or dropped",
    )


def ask(server: Server, model: str, row: tuple[float, float] = (0.0, 0.0)) -> Any:
    """Ask one row; the answer must be version 1's."""
    response = server.predict(model, [row])
    assert (response.status_code, response.headers["x-model-version"]) == (200, "1"), response.text
    (only,) = response.json()["predictions"]
    return only


def test_numbers_of_a_compiled_model_are_compared(server: Server) -> None:
    begin(server, "number", line(3.5))
    assert server.version("number", 2)["compilation"]["engine"] == "onnx"
    assert all(abs(ask(server, "number") - 1.0) < 1e-6 for _ in range(50))
    found = wait_for_copies(server, "number", 50)
    assert found["pairs"] > 0
    (only,) = found["differences"]
    assert (only["output"], only["rows"], only["differing"]) == ("predict", found["pairs"], 0)
    assert np.allclose([only["mean"], only["worst"]], 2.5)
    assert (found["failed_new"], found["failed_old"]) == (0, 0)
    metrics = server.client.get(server.url + "/metrics").text
    assert f'serving_shadow_dropped{{model="number",version="2"}} {found["dropped"]}.0' in metrics
    assert 'serving_shadow_differences{measure="worst",model="number",output="predict",version="2"} 2.' in metrics
    assert 'serving_rows_total{model="number",version="1"} 50.0' in metrics
    assert 'serving_rows_total{model="number",version="2"}' not in metrics


def test_labels_of_a_compiled_model_are_compared(server: Server) -> None:
    begin(server, "label", halves([0, 1, 1, 1]))
    for _ in range(10):
        assert ask(server, "label", (0.0, 1.0)) == 1
        assert ask(server, "label", (1.0, 0.0)) == 0
    found = wait_for_copies(server, "label", 20)
    (only,) = found["differences"]
    assert (only["output"], only["mean"]) == ("predict", None)
    assert 0 < only["differing"] < only["rows"] == found["pairs"]


def test_a_hosted_model_is_compared_and_a_version_that_is_named_is_not_copied(server: Server) -> None:
    begin(server, "hosted", constant(2.0))
    assert [ask(server, "hosted") for _ in range(20)] == [1.0] * 20
    assert server.predict("hosted", version="2").json()["predictions"] == [2.0]
    found = wait_for_copies(server, "hosted", 20)
    (only,) = found["differences"]
    assert (only["mean"], only["worst"]) == (1.0, 1.0)


def test_a_refusal_of_both_is_a_pair(server: Server) -> None:
    sent = server.model("hosted")["rollout"]["running"]["new"]["answers"]
    assert server.predict("hosted", [["text", 0.0]]).status_code == 422
    assert server.client.post(server.url + "/models/hosted/predict", content=b"no JSON").status_code in (400, 415)
    found = until(
        lambda: (running := server.model("hosted")["rollout"]["running"])["new"]["answers"] == sent + 1 and running,
        "the refusal counted",
    )
    assert found["new"]["bad"] == found["old"]["bad"] == 1
    assert (found["shadow"]["failed_new"], found["shadow"]["failed_old"]) == (0, 0)


def test_a_new_version_that_hangs_holds_nothing_up_and_can_be_replaced(server: Server) -> None:
    begin(server, "hangs", constant(2.0, peculiar.Slow))
    assert ask(server, "hangs", (600.0, 77.0)) == 1.0
    leases = 'serving_leases{model="hangs",version="2"} 1.0'
    until(lambda: leases in server.client.get(server.url + "/metrics").text, "the copy being computed")
    assert [ask(server, "hangs") for _ in range(200)] == [1.0] * 200
    until(lambda: report(server, "hangs")["dropped"] > 100, "copies without room being dropped")
    server.drop("hangs", 3, constant(3.0))
    server.wait_state("hangs", 3, "SHADOW")
    until(lambda: leases not in server.client.get(server.url + "/metrics").text, "the copy broken off")
    assert ask(server, "hangs") == 1.0
    assert wait_for_copies(server, "hangs", 1)["pairs"] == 1


def test_a_new_version_that_dies_on_some_rows_fails_no_request_and_is_found_out(server: Server) -> None:
    begin(server, "dies", constant(2.0, peculiar.Suicidal))
    assert ask(server, "dies", (13.0, 0.0)) == 1.0
    assert [ask(server, "dies", (float(value), 0.0)) for value in range(10)] == [1.0] * 10
    found = until(lambda: (seen := report(server, "dies")).get("failed_new") == 1 and seen, "the failure counted")
    assert found["failed_old"] == 0
    (example,) = server.model("dies")["rollout"]["running"]["examples"]
    assert example["status"] == 503


def test_a_shadow_that_fails_goes_back_with_its_report(server: Server) -> None:
    begin(server, "worse", constant(2.0, peculiar.Suicidal))

    def fail() -> Any:
        assert ask(server, "worse", (13.0, 0.0)) == 1.0
        return server.model("worse")["rollout"]["last"]

    last = until(fail, "the rollback", 60.0)
    assert (last["version"], last["end"]) == ("2", "rolled-back")
    assert last["shadow"]["failed_new"] >= 2
    assert last["shadow"]["failed_old"] == 0
    assert server.active("worse") == "1"
    assert ask(server, "worse") == 1.0


def test_an_equal_version_becomes_active(server: Server) -> None:
    begin(server, "equal", line(1.0))

    def ask_many() -> bool:
        answers = [server.predict("equal") for _ in range(50)]
        assert {answer.status_code for answer in answers} == {200}
        return server.active("equal") == "2"

    until(ask_many, "the promotion", 60.0)
    last = until(lambda: server.model("equal")["rollout"]["last"], "the end of the rollout")
    assert (last["version"], last["end"]) == ("2", "promoted")
    assert last["shadow"]["pairs"] >= 500
    assert last["shadow"]["differences"][0]["worst"] < 1e-6


def test_what_two_workers_compare_is_summed(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "number", 1, line(1.0))
    write_version(tmp_path / "store" / "hosted", 1, constant(1.0))
    settings = {
        "SERVING_ROLLOUT__STRATEGY": "shadow",
        "SERVING_ROLLOUT__STEP_SECONDS": NEVER,
        "SERVING_SERVER__WORKERS": "2",
    }
    with serving(tmp_path, wait_ready=True, **settings) as server:
        begin(server, "number", line(3.5))
        begin(server, "hosted", constant(2.0))
        for model, difference in (("number", 2.5), ("hosted", 1.0)):

            def ask_anew(_: int, model: str = model) -> float:
                response = server.client.post(
                    f"{server.url}/models/{model}/predict",
                    json={"instances": [[0.0, 0.0]]},
                    headers={"connection": "close"},
                )
                assert (response.status_code, response.headers["x-model-version"]) == (200, "1")
                return float(response.json()["predictions"][0])

            with ThreadPoolExecutor(4) as pool:
                assert np.allclose(list(pool.map(ask_anew, range(100))), 1.0)
            found = wait_for_copies(server, model, 100)
            assert found["pairs"] > 0
            assert np.isclose(found["differences"][0]["worst"], difference)
        assert all(worker["requests"] for worker in workers_of(server))

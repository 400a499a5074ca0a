"""New versions prove themselves on live traffic, and go back by themselves; no answer is lost by any of it."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pandas as pd
import pytest
from peculiar import Slow, Suicidal
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from serving.domain.rollout import RolloutStatus, RunningRollout
from tests.e2e.harness import NO_TLS, Server, constant, serving, until

QUICK = {
    "SERVING_ROLLOUT__STRATEGY": "canary",
    "SERVING_ROLLOUT__STEPS": "20,50",
    "SERVING_ROLLOUT__STEP_SECONDS": "0.5",
    "SERVING_ROLLOUT__MIN_REQUESTS": "20",
    "SERVING_ROLLOUT__ACCEPTABLE": "0.1",  # so that forty good answers are a proof
    "SERVING_ROLLOUT__BAKE_SECONDS": "1",
    "SERVING_ROLLOUT__HOLDBACK": "20",
    "SERVING_REPLAY__ROWS": "0",  # else the gate would refuse what these versions do wrong
}
GOOD = [[0.0, 0.0]]
CLIENTS = 3
PAUSE_SECONDS = 0.02  # of a client between two requests: without it they take both processors from the server


@dataclass(frozen=True)
class Reply:
    """What a client got: the version is that of the header, also of a failure."""

    key: str
    status: int
    version: str
    value: float | None


@dataclass
class Traffic:
    """Clients that ask one model again and again, each over a connection of its own, until the block ends.

    `rows` returns the body of the n-th request of a client, `headers` what else it sends.
    """

    server: Server
    model: str
    rows: Callable[[int], Any] = lambda _: GOOD
    headers: Callable[[str], dict[str, str]] = lambda _: {}
    clients: int = CLIENTS
    keys: int = 1
    replies: list[Reply] = field(default_factory=list)
    lost: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._is_stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request never came back"

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=20.0, verify=NO_TLS) as client:
            for place in itertools.count():
                if self._is_stopping.wait(PAUSE_SECONDS):
                    return
                key = f"client-{number}-{place % self.keys}"
                url = f"{self.server.url}/models/{self.model}/predict"
                try:
                    body = {"instances": self.rows(place * self.clients + number)}
                    response = client.post(url, json=body, headers=self.headers(key))
                except httpx.HTTPError as error:
                    self.lost.append(error)
                    continue
                answer = response.json()
                value = answer["predictions"][0] if response.status_code == 200 else None
                version = response.headers.get("x-model-version", "")
                assert answer.get("version", version) == version
                self.replies.append(Reply(key, response.status_code, version, value))

    def asked_after(self, answered: int) -> list[Reply]:
        """Return the replies to what was asked after so many had been answered: of each client all but the first.

        That one may have been under way then, and each client has one connection. Requires that `keys` is 1.
        """
        clients: set[str] = set()
        found = []
        for one in self.replies[answered:]:
            if one.key in clients:
                found.append(one)
            clients.add(one.key)
        return found

    @property
    def failures(self) -> Counter[tuple[str, int]]:
        """How many failed, by version and status."""
        return Counter((one.version, one.status) for one in self.replies if one.status != 200)


def rollout(server: Server, model: str) -> RolloutStatus:
    """GET /models/{model}/rollout."""
    return RolloutStatus.model_validate(server.get(f"/models/{model}/rollout"))


def running(server: Server, model: str) -> RunningRollout | None:
    return rollout(server, model).running


def wait_end(server: Server, model: str, version: str) -> RolloutStatus:
    """Wait until the rollout of a version has ended."""

    def ended() -> RolloutStatus | None:
        status = rollout(server, model)
        has_ended = status.running is None and status.last is not None and status.last.version == version
        return status if has_ended else None

    return until(ended, f"the end of the rollout of version {version} of {model} ({rollout(server, model)})", 40, 0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # only where versions are slow on purpose: on a busy machine any answer may take that long
    seconds = {"SLOW": "1.5", "UNLUCKY": "0.2"}  # the first one's old version must never take that long
    slo = {f"SERVING_MODELS__{name}__ROLLOUT__SLO_SECONDS": each for name, each in seconds.items()}
    with serving(tmp_path_factory.mktemp("rollouts"), **slo, **QUICK) as found:
        yield found


def serve(server: Server, model: str, estimator: Any) -> None:
    """Have the first version of a model answer."""
    server.drop(model, 1, estimator)
    server.wait_active(model, 1)


def test_an_equal_version_is_promoted_step_by_step(server: Server) -> None:
    serve(server, "equal", constant(1))
    with Traffic(server, "equal") as traffic:
        server.drop("equal", 2, constant(2))
        server.wait_active("equal", 2)
        status = wait_end(server, "equal", "2")
        answered = len(traffic.replies)
        until(lambda: len(traffic.replies) > answered + 50, "traffic going on")
    assert status.last is not None
    assert (status.last.end, status.last.new.bad, status.last.old.bad) == ("promoted", 0, 0)
    assert (traffic.lost, traffic.failures) == ([], {})
    assert all(one.value == float(one.version) for one in traffic.replies)
    versions = [one.version for one in traffic.replies]
    assert {one.version for one in traffic.asked_after(answered)} == {"2"}
    shared = versions[versions.index("2") : answered]
    assert shared.count("1") > 20, "both answered for a while"


def test_a_version_that_refuses_a_category_its_predecessor_takes_goes_back(server: Server) -> None:
    def fit(*towns: str) -> Any:
        rows = pd.DataFrame({"town": [*towns], "size": [1.0] * len(towns)})
        encoder = OneHotEncoder(handle_unknown="error")
        model = make_pipeline(encoder, LinearRegression())
        return model.fit(rows[["town"]], [float(place) for place in range(len(towns))])

    towns = ["Ulm", "Bern", "Graz"]
    serve(server, "picky", fit(*towns))
    with Traffic(server, "picky", rows=lambda place: [{"town": towns[place % 3]}]) as traffic:
        server.drop("picky", 2, fit("Ulm", "Bern"))
        status = wait_end(server, "picky", "2")
        server.wait_state("picky", 2, "QUARANTINED")
        answered = len(traffic.replies)
        until(lambda: len(traffic.replies) > answered + 50, "traffic going on")
    assert status.last is not None
    assert (status.last.end, status.last.old.bad) == ("rolled-back", 0)
    assert 2 <= status.last.new.bad <= sum(traffic.failures.values()), "some came after the judge's last look"
    assert {version for version, _ in traffic.failures} == {"2"}
    assert all("Graz" not in example.detail for example in status.last.examples)
    assert status.last.examples
    assert {one.version for one in traffic.asked_after(answered)} == {"1"}
    assert traffic.lost == []


def test_a_version_that_is_slow_goes_back_and_all_of_its_answers_arrive(server: Server) -> None:
    serve(server, "slow", constant(1))
    with Traffic(server, "slow", rows=lambda _: [[1.6, 77.0]]) as traffic:
        server.drop("slow", 2, constant(2, Slow))
        status = wait_end(server, "slow", "2")
        server.wait_state("slow", 2, "QUARANTINED")
    assert status.last is not None
    assert (status.last.end, status.last.old.bad) == ("rolled-back", 0)
    assert [example.detail for example in status.last.examples] == ["it took longer than rollout.slo_seconds"]
    assert (traffic.lost, traffic.failures) == ([], {})


def test_a_version_whose_host_dies_on_some_rows_goes_back_and_nobody_waits_for_its_deadline(server: Server) -> None:
    serve(server, "deadly", constant(1))
    with Traffic(server, "deadly", rows=lambda place: [[13.0 if place % 4 == 0 else 1.0, 0.0]]) as traffic:
        server.drop("deadly", 2, constant(2, Suicidal))
        status = wait_end(server, "deadly", "2")
        server.wait_state("deadly", 2, "QUARANTINED")
        answered = len(traffic.replies)
        until(lambda: len(traffic.replies) > answered + 50, "traffic going on")
    assert status.last is not None
    assert status.last.end == "rolled-back"
    assert set(traffic.failures) == {("2", 503)}, "none of the others failed, and none waited until its deadline"
    assert traffic.lost == []
    assert all(one.value == float(one.version) for one in traffic.replies if one.status == 200)


def test_a_request_that_names_a_version_gets_it_and_counts_for_nothing(server: Server) -> None:
    serve(server, "named", constant(1))
    server.drop("named", 2, constant(2))
    until(lambda: running(server, "named"), "a rollout")
    for version in ("1", "2"):
        for _ in range(20):
            assert server.predict("named", version=version).json()["version"] == version
    found = running(server, "named")
    assert found is not None
    assert (found.new.answers, found.old.answers, found.share) == (0, 0, 20.0)


def test_requests_of_another_protocol_are_shared_too(server: Server) -> None:
    serve(server, "other", constant(1))
    server.drop("other", 2, constant(2))
    until(lambda: running(server, "other"), "a rollout")
    assert server.operate("POST", "/models/other/rollout", {"action": "hold"}).status_code == 200
    body = {"inputs": [{"name": "predict", "shape": [1, 2], "datatype": "FP64", "data": [0.0, 0.0]}]}
    answers = [server.client.post(f"{server.url}/v2/models/other/infer", json=body).json() for _ in range(100)]
    versions = Counter(answer["model_version"] for answer in answers)
    assert versions.keys() == {"1", "2"}
    assert all(answer["outputs"][0]["data"] == [float(answer["model_version"])] for answer in answers)
    counted = until(
        lambda: (found := running(server, "other")) and found.new.answers + found.old.answers == 100 and found
    )
    assert (counted.new.answers, counted.new.bad, counted.old.bad) == (versions["2"], 0, 0)


def test_two_that_went_back_stop_it_until_an_operator_resumes(server: Server) -> None:
    """The one after them is not evaluated, and holds nothing up."""
    serve(server, "unlucky", constant(1))
    with Traffic(server, "unlucky", rows=lambda _: [[0.25, 77.0]]) as traffic:
        for version in (2, 3):
            server.drop("unlucky", version, constant(version, Slow))
            wait_end(server, "unlucky", str(version))
        assert rollout(server, "unlucky").is_stopped
        server.drop("unlucky", 4, constant(4))
        until(lambda: "4" in {one["version"] for one in server.model("unlucky")["versions"]}, "version 4 being seen")
        server.wait_ready()
        assert server.version("unlucky", 4)["state"] == "DISCOVERED"
        assert server.operate("POST", "/models/unlucky/rollout", {"action": "resume"}).status_code == 200
        server.wait_active("unlucky", 4)
    assert (traffic.lost, traffic.failures) == ([], {})

"""Candidates that must not go live: each is refused with its gate and reason, and changes nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import peculiar
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import Server, constant, serving, until, write_version


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that found, when it started, broken versions beside m/1; its tests bring others."""
    directory = tmp_path_factory.mktemp("strict")
    write_version(directory / "store" / "m", 1, constant(1))
    write_version(directory / "store" / "m", 2, constant(2, peculiar.CrashesWhileLoading))
    write_version(directory / "store" / "n", 1, constant(1, peculiar.ExitsWhileLoading))
    settings = {"SERVING_CANDIDATE__TIMEOUT_SECONDS": "12", "SERVING_CANDIDATE__MEMORY_MB": "256"}
    with serving(directory, wait_ready=True, **settings) as server:
        yield server


REFUSALS: dict[str, tuple[Any, str, str]] = {
    "crashes while loading": (peculiar.CrashesWhileLoading, "load", "SIGSEGV"),
    "exits while loading": (peculiar.ExitsWhileLoading, "load", "status 3"),
    "hangs while loading": (peculiar.HangsWhileLoading, "load", "candidate.timeout_seconds"),
    "takes all memory": (peculiar.EatsMemory, "load", "emory"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_harmful_version_is_refused_and_nothing_else_changes(strict: Server, name: str) -> None:
    """Invariant 5: what is served, and readiness, stay as they were."""
    kind, gate, evidence = REFUSALS[name]
    version = 10 + list(REFUSALS).index(name)
    hosts = {host.pid for host in strict.hosts()}
    strict.drop("m", version, constant(version, kind))
    refused = until(
        lambda: (seen := strict.version("m", version)).get("state") == "REJECTED" and seen, "the refusal", every=0.05
    )
    last = refused["gates"][-1]
    assert (last["gate"], last["verdict"]) == (gate, "refused")
    assert evidence in last["evidence"]
    assert last["duration_seconds"] >= 0
    assert strict.active("m") == "1"
    assert strict.predict("m").json()["predictions"] == [1.0]
    assert strict.client.get(strict.url + "/health/ready").status_code == 200
    # what checked the graphs of the version before may have been about to end
    until(lambda: {host.pid for host in strict.hosts()} <= hosts, "its host being gone")


def test_gates_that_have_spoken_are_shown_while_the_next_one_runs(strict: Server) -> None:
    strict.drop("hangs", 1, constant(1, peculiar.HangsWhileLoading))
    first = ["published", "integrity", "provenance", "format"]

    def gates() -> list[str]:
        seen = strict.version("hangs", 1)
        assert seen.get("state") != "REJECTED", seen
        return [gate["gate"] for gate in seen.get("gates", [])]

    until(lambda: gates() == first, "the gates before the one that hangs")
    refused = strict.wait_state("hangs", 1, "REJECTED")
    assert [gate["gate"] for gate in refused["gates"]] == [*first, "load"]


def test_a_version_whose_answers_are_not_numbers_is_refused(strict: Server) -> None:
    strict.drop("nan", 1, constant(1, peculiar.NotFinite))
    refused = strict.wait_state("nan", 1, "REJECTED")
    assert refused["gates"][-1]["gate"] == "finite"
    assert "NaN" in refused["gates"][-1]["evidence"]
    assert strict.predict("nan").status_code == 503


def test_a_change_of_signature_is_refused_unless_it_is_declared(strict: Server) -> None:
    """The contract gate compares with the active version; the manifest may say `breaking`."""
    from serving import publish

    wider = LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0])
    write_version(strict.store / "contract", 1, constant(1))
    strict.wait_active("contract", 1)
    publish(wider, "contract", version="2", store=strict.store, check=False)
    refused = strict.wait_state("contract", 2, "REJECTED")
    assert refused["gates"][-1]["gate"] == "contract"
    assert "3 features" in refused["gates"][-1]["evidence"]
    publish(wider, "contract", version="3", store=strict.store, breaking=True, check=False)
    strict.wait_active("contract", 3)


def test_a_version_that_does_not_give_its_golden_answers_is_refused(strict: Server) -> None:
    directory = strict.store / "golden"
    aside = directory / ".aside"
    aside.mkdir(parents=True)
    joblib.dump(constant(1), aside / "model.joblib")
    golden = {"instances": [[0.0, 0.0]], "expected": {"predict": [2.0]}}
    (aside / "golden.json").write_text(json.dumps(golden))
    aside.rename(directory / "1")
    refused = strict.wait_state("golden", 1, "REJECTED")
    assert refused["gates"][-1]["gate"] == "golden"
    assert "2.0" in refused["gates"][-1]["evidence"]


def test_published_bytes_may_not_change(strict: Server) -> None:
    """A version with a manifest is immutable: other bytes under its name are a conflict, and the old ones serve on."""
    from serving import publish

    publish(constant(1), "immutable", version="1", store=strict.store, check=False)
    strict.wait_active("immutable", 1)
    joblib.dump(constant(2), strict.store / "immutable" / "1" / "model.joblib")
    until(lambda: (strict.model("immutable")["last_failure"] or {}).get("gate") == "integrity", "the refusal")
    assert strict.predict("immutable").json()["predictions"] == [1.0]
    assert strict.get("/models/immutable/active")["active"]["note"]


def test_a_verdict_is_remembered_by_digest_until_the_bytes_change(strict: Server) -> None:
    """Invariant 8: the same bad bytes are not loaded again, not even by the next run of the server."""
    strict.drop("bad", 1, constant(1, peculiar.CrashesWhileLoading))
    first = strict.wait_state("bad", 1, "REJECTED")
    strict.stop()
    offset = strict.log_path.stat().st_size
    strict.start(wait_ready=True)
    again = strict.wait_state("bad", 1, "REJECTED")
    assert again["digest"] == first["digest"]
    assert again["gates"] == first["gates"]
    loads = [one for one in strict.log(offset) if one.get("model") == "bad" and one.get("after") == "LOADING"]
    assert not loads, "it was loaded a second time"
    write_version(strict.store / ".aside", 1, constant(1))
    (strict.store / ".aside" / "1" / "model.joblib").rename(strict.store / "bad" / "1" / "model.joblib")
    strict.wait_active("bad", 1)


def test_a_broken_newest_version_does_not_hold_readiness_back(strict: Server) -> None:
    """That the server has become ready at all says so; nothing but broken versions is unavailable."""
    assert strict.version("m", 2)["state"] == "REJECTED"
    assert strict.active("m") == "1"
    unavailable = strict.predict("n")
    assert unavailable.status_code == 503
    assert unavailable.headers["retry-after"]


def test_a_newer_version_cancels_a_stale_candidate(strict: Server) -> None:
    strict.drop("hasty", 1, constant(1))
    strict.wait_active("hasty", 1)
    hosts = {host.pid for host in strict.hosts()}
    strict.drop("hasty", 2, constant(2, peculiar.HangsWhileLoading))
    strict.wait_state("hasty", 2, "LOADING")
    strict.drop("hasty", 3, constant(3))
    strict.wait_active("hasty", 3)
    assert "cancelled" in strict.wait_state("hasty", 2, "DISCOVERED")["reason"]

    def more() -> set[int]:
        return {host.pid for host in strict.hosts()} - hosts

    until(lambda: len(more()) == 1, "the stale host's end")
    assert strict.predict("hasty", version="1").json()["predictions"] == [1.0], "the version before has kept its host"

"""What becomes of the host of a candidate that does not come to answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.report import CandidateReport, Evaluation
from serving.hosting import environment_hosts
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.lifecycle.candidate import Candidate, CandidateFailed, CandidateRunner, Outcome
from serving.lifecycle.evaluation_request import Comparison
from serving.settings import Settings
from tests.unit.lifecycle.control import artifact, passed
from tests.unit.lifecycle.fake_plane import FakePlane


class Host:
    """A host of which only its end matters."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def evaluate(host: Host, found: CandidateReport | Exception, monkeypatch: pytest.MonkeyPatch, **cache: Any) -> Outcome:
    """Evaluate version 1 in a host that ends with a report, or with a defect on the server's side."""

    def answer(*_: Any) -> Evaluation:
        if isinstance(found, Exception):
            raise found
        return Evaluation(found)

    monkeypatch.setattr(environment_hosts, "evaluate_candidate", answer)
    zygote: Any = SimpleNamespace(spawn=lambda *_: host)
    hosts = EnvironmentHosts({}, Path("scratch"))
    hosts.own = zygote
    kept: Any = SimpleNamespace(**{"find": lambda *_: None, "keep": lambda _, evaluation: evaluation, **cache})
    verified: Any = SimpleNamespace(verify=lambda *_: None)
    runner = CandidateRunner(hosts, verified, kept, Settings(), FakePlane())
    return runner.evaluate(Candidate("m", "1"), artifact("1"), Comparison(), "m/1", lambda _: None, lambda _: None)


def test_the_host_of_a_version_that_is_loaded_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    evaluate(host, passed(), monkeypatch)
    assert not host.is_closed


def test_a_defect_after_the_gates_leaves_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    host = Host()
    with pytest.raises(ZeroDivisionError):
        evaluate(host, passed(), monkeypatch, keep=fail)
    assert host.is_closed


def test_a_defect_during_the_gates_leaves_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    with pytest.raises(ZeroDivisionError):
        evaluate(host, ZeroDivisionError(), monkeypatch)
    assert host.is_closed


def test_a_report_that_is_not_ready_leaves_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    outcome = evaluate(host, CandidateReport(gates=()), monkeypatch)
    assert isinstance(outcome, CandidateFailed)
    assert host.is_closed

"""Zygotes of environments: which are started, which end, and what happens where one is gone or broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import joblib
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from serving import sandbox
from serving.domain.environment import Choice, Environment
from serving.domain.errors import HostFailed
from serving.domain.report import CandidateReport
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.hosting.zygote import Zygote
from serving.hosting.zygote_process import ZygoteUnusable
from tests.e2e.harness import until
from tests.unit.hosting.hosted import make_request

VARIABLES = sandbox.scrub_environment(os.environ)


class Listed:
    """The environments that a test makes up, and which were marked as broken."""

    def __init__(self, *environments: Environment) -> None:
        self.environments = environments
        self.broken: list[tuple[str, str]] = []
        self.listings = 0

    def list_environments(self) -> tuple[Environment, ...]:
        self.listings += 1
        return self.environments

    def mark_broken(self, name: str, reason: str) -> None:
        self.broken.append((name, reason))

    def stop(self) -> None:
        pass


def make_environment(python: str, problem: str | None = None) -> Environment:
    return Environment("other", python, "3.11.7", {}, frozenset(), problem)


@pytest.fixture
def open_hosts(tmp_path: Path) -> Iterator[Callable[..., EnvironmentHosts]]:
    opened: list[EnvironmentHosts] = []

    def start(known: Listed, idle_seconds: float = 600.0) -> EnvironmentHosts:
        opened.append(EnvironmentHosts(VARIABLES, tmp_path / "scratch", known, idle_seconds))
        return opened[-1]

    yield start
    for hosts in opened:
        hosts.stop()


def test_an_environment_that_is_gone_is_named(open_hosts: Callable[..., EnvironmentHosts]) -> None:
    with pytest.raises(HostFailed, match="the environment 'other' is gone; create it again"):
        open_hosts(Listed()).spawn("other")


def test_an_environment_with_a_problem_starts_nothing(open_hosts: Callable[..., EnvironmentHosts]) -> None:
    known = Listed(make_environment("/bin/false", "it has no scikit-learn"))
    with pytest.raises(HostFailed, match="the environment 'other' cannot be used: it has no scikit-learn"):
        open_hosts(known).spawn("other")
    assert known.broken == []


@pytest.mark.parametrize(
    ("python", "reason"), [("/bin/false", "the zygote ended while it imported"), ("/gone", "cannot be started")]
)
def test_an_environment_whose_zygote_does_not_start_is_marked(
    open_hosts: Callable[..., EnvironmentHosts], python: str, reason: str
) -> None:
    known = Listed(make_environment(python))
    with pytest.raises(ZygoteUnusable, match=reason):
        open_hosts(known).spawn("other")
    [(name, told)] = known.broken
    assert name == "other"
    assert reason in told


def report_of(name: str | None, **libraries: str) -> CandidateReport:
    return CandidateReport(gates=(), libraries=libraries, environment=Choice(name=name, reason="it fits"))


def test_an_environment_has_changed_when_a_library_of_a_report_has(open_hosts: Callable[..., EnvironmentHosts]) -> None:
    environment = replace(make_environment("/bin/false"), libraries={"numpy": "1.26.4", "pandas": "2.2.3"})
    hosts = open_hosts(Listed(environment))
    assert not hosts.has_changed(report_of("other", numpy="1.26.4", python="3.9.1"))
    assert hosts.has_changed(report_of("other", numpy="1.26.3", pandas="2.2.3"))
    assert not hosts.has_changed(report_of("gone", numpy="1.26.3"))
    assert not hosts.has_changed(report_of("own", numpy="1.26.3"))
    assert not hosts.has_changed(CandidateReport(gates=(), libraries={"numpy": "1.26.3"}))


def test_a_candidate_that_fits_here_does_not_wait_for_other_environments(
    open_hosts: Callable[..., EnvironmentHosts], tmp_path: Path
) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), path)
    known = Listed(make_environment("/bin/false"))
    host, evaluation = open_hosts(known).evaluate(make_request(path), 60, "m.joblib")
    host.close()
    assert evaluation.report.is_ready, evaluation.report.refusal
    assert evaluation.report.environment is not None
    assert (evaluation.report.environment.name, known.listings) == ("own", 0)


def test_nothing_starts_after_the_stop(open_hosts: Callable[..., EnvironmentHosts]) -> None:
    hosts = open_hosts(Listed(make_environment(sys.executable)))
    hosts.stop()
    with pytest.raises(HostFailed, match="stopping"):
        hosts.spawn("other")


def test_a_zygote_without_hosts_ends_after_a_while_and_is_started_again(tmp_path: Path) -> None:
    zygote = Zygote(VARIABLES, tmp_path / "scratch", idle_seconds=0.2)
    try:
        first = zygote.spawn()
        process = psutil.Process(first.pid).parent()
        assert process is not None
        second = zygote.spawn()
        first.close()
        first.exited.result(20)
        assert process.is_running()  # it has a host
        second.close()
        until(lambda: not process.is_running(), "the end of the zygote")
        third = zygote.spawn()
        assert psutil.Process(third.pid).parent() != process
        third.close()
    finally:
        zygote.stop()

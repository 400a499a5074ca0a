"""Zygotes of environments: which are started, which end, and what happens where one is gone or broken."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import joblib
import psutil
import pytest
import sklearn
from sklearn.linear_model import LinearRegression

from serving import sandbox
from serving.domain.environment import Choice, Environment
from serving.domain.errors import HostFailed
from serving.domain.report import CandidateReport
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.hosting.host_process import HostProcess
from serving.hosting.zygote import Zygote
from serving.hosting.zygote_process import ZygoteProcess, ZygoteUnusable
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


def test_an_environment_whose_zygote_imports_for_too_long_is_marked_after_one_try(
    open_hosts: Callable[..., EnvironmentHosts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.hosting.zygote_process.START_SECONDS", 0.0)
    starts, python = tmp_path / "starts", tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho . >> {starts}\nexec sleep 600\n")
    python.chmod(0o755)
    starts.touch()
    known = Listed(make_environment(str(python)))
    hosts = open_hosts(known)
    for _ in range(2):  # it is ended, and could be tried again
        with pytest.raises(ZygoteUnusable, match="the zygote was not ready within 0 s"):
            hosts.spawn("other")
    assert {reason for _, reason in known.broken} == {"the zygote was not ready within 0 s"}
    assert len(starts.read_text().split()) <= 2  # one that was killed early has not come to it


def test_an_environment_that_looks_sound_after_each_failure_is_not_tried_for_ever(
    open_hosts: Callable[..., EnvironmentHosts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), path)
    libraries, modules = {"scikit-learn": sklearn.__version__}, frozenset({"joblib", "numpy", "sklearn"})
    known = Listed(replace(make_environment("/bin/false"), libraries=libraries, modules=modules))
    monkeypatch.setattr(
        "serving.hosting.environment_hosts.describe_own", lambda *_: replace(make_environment("/bin/false"), name="own")
    )
    with pytest.raises(ZygoteUnusable, match="the zygote ended while it imported"):
        open_hosts(known).evaluate(make_request(path), 60, "m.joblib")
    assert [name for name, _ in known.broken] == ["other", "other"]


def test_the_zygote_of_an_environment_that_has_changed_ends_with_its_last_host(
    open_hosts: Callable[..., EnvironmentHosts],
) -> None:
    known = Listed(make_environment(sys.executable))
    hosts = open_hosts(known)
    old = hosts.spawn("other")
    zygote = psutil.Process(old.pid).parent()
    assert zygote is not None
    known.environments = (replace(make_environment(sys.executable), stamp="made anew"),)
    new = hosts.spawn("other")
    assert psutil.Process(new.pid).parent() != zygote
    assert zygote.is_running()
    old.close()
    until(lambda: not zygote.is_running(), "the end of the zygote")
    new.close()


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


def test_a_zygote_is_not_ended_for_idleness_while_a_host_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host comes when it has been found out that there is none, and before the zygote is ended."""
    has_idled = ZygoteProcess._has_idled
    zygote = Zygote(VARIABLES, tmp_path / "scratch", idle_seconds=0.2)
    spawned: list[HostProcess] = []
    late = threading.Thread(target=lambda: spawned.append(zygote.spawn()))

    def find_idle(process: ZygoteProcess) -> bool:
        idled = has_idled(process)
        if idled and not late.ident:
            late.start()
            parent = psutil.Process(process._popen.pid)
            until(parent.children, "the process of the host")
        return idled

    monkeypatch.setattr(ZygoteProcess, "_has_idled", find_idle)
    try:
        first = zygote.spawn()
        process = psutil.Process(first.pid).parent()
        assert process is not None
        first.close()
        until(lambda: late.ident is not None, "the host that comes late")
        late.join()
        assert psutil.Process(spawned[0].pid).parent() == process
        spawned[0].close()
        until(lambda: not process.is_running(), "the end of the zygote")
    finally:
        zygote.stop()


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

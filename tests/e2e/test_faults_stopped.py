"""A process that is stopped (SIGSTOP), by a debugger, a supervisor or a person: nothing waits for it for ever.

A host that is stopped while it answers: test_hosts.py, where answers have a short deadline.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.harness import Server, constant, is_alive, serving, until


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("patient")
    with serving(directory, SERVING_CANDIDATE__TIMEOUT_SECONDS="12", SERVING_SERVER__PREDICT_SECONDS="50") as server:
        yield server


def zygotes(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    return psutil.Process(server.process.pid).children()


def suspend_all(server: Server) -> list[psutil.Process]:
    """Stop the zygote and the hosts, and return them; what has checked a version may be about to end."""
    children = server.processes()
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    return children


def test_a_stopped_zygote_costs_no_request_and_no_host(patient: Server) -> None:
    """A host that dies is brought back by another zygote while a request waits; the others go on."""
    patient.drop("held", 1, constant(1))
    patient.wait_active("held", 1)
    patient.drop("kept", 1, constant(1))
    patient.wait_active("kept", 1)
    (zygote,) = zygotes(patient)
    until(lambda: len(patient.hosts()) == 2, "the end of the checker")
    first, second = sorted(patient.hosts(), key=psutil.Process.create_time)
    zygote.suspend()
    first.kill()
    assert patient.predict("held").json()["predictions"] == [1.0]
    assert patient.predict("kept").json()["predictions"] == [1.0]
    assert is_alive(second), "a host was lost that was fine"
    patient.drop("kept", 2, constant(2))
    patient.wait_active("kept", 2)
    assert [one["hosts"] for one in patient.log() if one.get("event") == "zygote_replaced"] == [2]
    patient.drop("kept", 3, constant(3))
    patient.wait_active("kept", 3)
    until(lambda: not is_alive(second), "the end of what was retired")
    until(lambda: not is_alive(zygote), "the end of a zygote that nobody needs any more")


def test_kill_9_of_the_server_leaves_no_stopped_zygote_and_none_of_its_hosts(patient: Server) -> None:
    patient.drop("left", 1, constant(1))
    patient.wait_active("left", 1)
    children = suspend_all(patient)
    patient.kill()
    until(lambda: not any(map(is_alive, children)), "their end")
    patient.start(wait_ready=True)
    assert patient.predict("left").json()["predictions"] == [1.0]


def test_a_host_that_is_stopped_while_it_is_evaluated_is_killed_at_its_deadline(patient: Server) -> None:
    import peculiar

    patient.drop("late", 1, constant(1))
    patient.wait_active("late", 1)
    before = {host.pid for host in patient.hosts()}
    patient.drop("late", 2, constant(2, peculiar.HangsWhileLoading))
    patient.wait_state("late", 2, "LOADING")
    started = until(lambda: [host for host in patient.hosts() if host.pid not in before], "its host")
    for host in started:
        with contextlib.suppress(psutil.NoSuchProcess):  # of the version before, and about to end
            host.suspend()
    refused = patient.wait_state("late", 2, "REJECTED")
    assert "not finished after 12 s" in refused["reason"]
    until(lambda: not any(map(is_alive, started)), "its end")
    assert patient.predict("late").json()["predictions"] == [1.0]


def test_a_server_stops_in_order_with_a_stopped_zygote_and_stopped_hosts(patient: Server) -> None:
    patient.drop("ended", 1, constant(1))
    patient.wait_active("ended", 1)
    children = suspend_all(patient)
    assert patient.stop() == 0
    until(lambda: not any(map(is_alive, children)), "their end")

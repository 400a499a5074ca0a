"""A model whose own code may run takes its host over and forges what it says, in a real server under traffic."""

from __future__ import annotations

import concurrent.futures
import contextlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forger
import psutil
import pytest

from tests.e2e.harness import PECULIAR, Server, constant, serving, until
from tests.e2e.traffic import Traffic

DEADLINE_SECONDS = 10
NEVER_ENDS = "an answer that never ends"  # so it is seen at the deadline only
MOST_MEMORY_BYTES = 400 << 20
RATE = 30  # requests a second to a neighbour: more of them would take more of a processor than what is tested


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where files may run anything; a good model answers beside what each test brings."""
    settings = {
        "SERVING_SECURITY__TRUST": "any",
        "SERVING_SECURITY__PICKLE_TRUSTED": ",".join(PECULIAR),
        "SERVING_CANDIDATE__TIMEOUT_SECONDS": str(DEADLINE_SECONDS),
        "SERVING_CANDIDATE__RETRY_SECONDS": "1",
        "SERVING_ENGINE__COMPILE_SECONDS": "5",
        "SERVING_SERVER__PREDICT_SECONDS": "10",
    }
    with serving(tmp_path_factory.mktemp("forged"), **settings) as running:
        running.drop("good", 1, constant(5))
        running.wait_active("good", 1)
        yield running


def is_harmless(value: Any) -> bool:
    """Say whether no text in a document holds what could steer a terminal."""
    if isinstance(value, dict):
        return all(map(is_harmless, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(is_harmless, value))
    return not isinstance(value, str) or not any(unicodedata.category(each) in ("Cc", "Cf") for each in value)


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """Look that others are served meanwhile, that memory stays bounded, and that nothing harmful is logged."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    offset, before = server.log_path.stat().st_size, process.memory_info().rss
    with Traffic(server.url, "good", rate=RATE, connections=2) as traffic:
        yield
        assert process.memory_info().rss - before < MOST_MEMORY_BYTES
    assert {reply.status for reply in traffic.replies} == {200}
    lines = server.log(offset)
    assert all(map(is_harmless, lines))
    assert not [line for line in lines if "exception" in line or "Traceback" in str(line)]
    assert b"\x1b" not in server.log_path.read_bytes()


# the gate that refuses, and words of the reason
REFUSED = {
    "no frame": ("load", "not a frame"),
    "unknown kind": ("load", "unknown frame kind 99"),
    "gate without a name": ("load", "GATE_STARTED"),
    "a gate twice": ("load", "where GATE_STARTED of 0 was expected"),
    "another gate": ("load", "a result of 'golden', 'load' was expected"),
    "the end at once": ("load", "REPORT of request 0, where GATE_RESULT of 0 was expected"),
    "a huge header": ("load", "GATE_RESULT too large"),
    "a huge graph": ("warm-up", "GRAPH too large"),
    "a graph": ("compile", "security.trust is any"),
    "empty lists": ("warm-up", "values"),
    "a deep report": ("warm-up", "not JSON"),
    "a sandbox": ("warm-up", "sandbox"),
    "a key": ("warm-up", "provenance"),
    "gates of its own": ("warm-up", "gates"),
    "no model": ("load", "describes no model"),
    "steering": ("load", "?[2J?]0;owned? forged line ?"),
    "a steering gate": ("load", "a result of '?[2J?]0;owned? forged line ?'"),
    "dribble": ("load", "candidate.timeout_seconds"),
    "silence": ("load", "candidate.timeout_seconds"),
    "an answer": ("load", "PREDICTION"),
}


def test_every_deed_is_judged() -> None:
    assert REFUSED.keys() == forger.WHILE_LOADING.keys()


@pytest.mark.parametrize("deed", REFUSED)
def test_what_a_host_forges_while_it_is_evaluated_refuses_its_candidate(server: Server, deed: str) -> None:
    """At once and for good: it is neither tried again nor waited for."""
    gate, words = REFUSED[deed]
    name = f"loading-{list(REFUSED).index(deed)}"
    known = {host.pid for host in server.hosts()}
    with unharmed(server):
        server.drop(name, 1, forger.Forger(deed).fit([[0.0, 0.0]]))
        refused = server.wait_state(name, 1, "REJECTED")
        last = refused["gates"][-1]
        assert (last["gate"], last["verdict"]) == (gate, "refused")
        assert words in last["evidence"]
        assert is_harmless(refused)
        until(lambda: {host.pid for host in server.hosts()} <= known, "the end of its host")
    assert server.predict(name).status_code == 503


@pytest.mark.parametrize("deed", forger.WHILE_SERVING)
def test_what_a_host_forges_while_it_serves_costs_it_its_life(server: Server, deed: str) -> None:
    """Whoever asked is told 503 when a second host has done the same; the model answers others again."""
    name = f"serving-{list(forger.WHILE_SERVING).index(deed)}"
    offset = server.log_path.stat().st_size
    with unharmed(server):
        server.drop(name, 1, forger.Forger(deed, is_patient=True).fit([[0.0, 0.0]]))
        server.wait_active(name, 1)
        known = {host.pid for host in server.hosts()}
        assert server.version(name, 1)["engine"] == "sklearn"
        answer = server.predict(name, [[forger.ASKED, 0.0]])
        if deed == NEVER_ENDS:
            assert answer.status_code == 504
        else:
            assert answer.status_code == 503
            assert "died twice" in answer.json()["detail"] or "broke the protocol" in answer.json()["detail"]
        assert is_harmless(answer.json())
        assert until(lambda: server.predict(name).status_code == 200, "the model answering again")
        assert {host.pid for host in server.hosts()} != known
        assert is_harmless(server.version(name, 1))
    lost = [line for line in server.log(offset) if line.get("event") == "host_lost" and line["model"] == name]
    assert lost
    assert deed == NEVER_ENDS or all("broke the protocol" in line["reason"] for line in lost)


def test_neighbours_of_a_forged_answer_are_answered(server: Server) -> None:
    server.drop("neighbours", 1, forger.Forger("two answers", is_patient=True).fit([[0.0, 0.0]]))
    server.wait_active("neighbours", 1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        poison = pool.submit(server.predict, "neighbours", [[forger.ASKED, 0.0]])
        good = [pool.submit(server.predict, "neighbours", [[0.0, 0.0]]) for _ in range(6)]
        assert poison.result().status_code == 503
        assert {future.result().status_code for future in good} == {200}


def test_a_host_cannot_take_shared_memory_away_from_the_server(server: Server) -> None:
    """The server reads a host's last words from there, when it has ended: where there were none, it would end too."""
    server.drop("shrinker", 1, forger.Shrinker(1.0).fit([[0.0, 0.0]]))
    server.wait_active("shrinker", 1)
    with unharmed(server):
        assert server.predict("shrinker", [[forger.ASKED, 0.0]]).status_code == 503
        assert until(lambda: server.predict("shrinker").status_code == 200, "the model answering again")


def test_a_host_that_talks_as_soon_as_it_is_there_is_brought_less_and_less_often(server: Server) -> None:
    """Nobody asks it anything: it must not keep a core busy for all that."""
    offset = server.log_path.stat().st_size
    server.drop("babbler", 1, forger.Babbler().fit([[0.0, 0.0]]))
    server.wait_active("babbler", 1)

    def list_lost() -> list[dict[str, Any]]:
        lines = server.log(offset)
        return [line for line in lines if line.get("event") == "host_lost" and line["model"] == "babbler"]

    assert until(lambda: len(list_lost()) >= 5, "five hosts being of no use")
    status = server.version("babbler", 1)
    assert until(lambda: "of no use" in str(server.model("babbler")), "saying so")
    assert is_harmless(status)
    asked = server.predict("babbler")
    assert asked.status_code == 503
    assert int(asked.headers["retry-after"]) >= 1
    assert len(list_lost()) < 12


def test_a_host_that_kills_itself_while_it_is_loaded_is_tried_twice_and_refused(server: Server) -> None:
    """It cannot be told from one that somebody else has killed, so it gets a second try, and no third."""
    server.drop("suicidal", 1, forger.KillsItself().fit([[0.0, 0.0]]))
    refused = server.wait_state("suicidal", 1, "REJECTED")
    assert "2 times" in refused["reason"]
    tries = [
        line
        for line in server.log()
        if line.get("event") == "transition" and line["model"] == "suicidal" and line["after"] == "LOADING"
    ]
    assert len(tries) == 2


def test_what_is_required_of_the_sandbox_is_asked_before_the_file_is_opened(tmp_path: Path) -> None:
    """Here every layer is there, or the file is not opened: in neither case can the file say anything about it."""
    settings = {"SERVING_SECURITY__TRUST": "any", "SERVING_SECURITY__REQUIRE_SANDBOX": "true"}
    with serving(tmp_path, **settings) as strict:
        strict.drop("m", 1, forger.Forger("a sandbox").fit([[0.0, 0.0]]))
        refused = strict.wait_state("m", 1, "REJECTED")
        assert refused["gates"][-1]["gate"] in ("load", "warm-up")
        assert is_harmless(refused)


def test_nobody_vouches_for_himself(tmp_path: Path) -> None:
    """An unsigned file is not opened where a signature is asked for, so it cannot claim one."""
    settings = {"SERVING_SECURITY__TRUST": "signed", "SERVING_SECURITY__TRUSTED_KEYS": f"ed25519:{'A' * 43}="}
    with serving(tmp_path, **settings) as strict:
        strict.drop("m", 1, forger.Forger("a key").fit([[0.0, 0.0]]))
        refused = strict.wait_state("m", 1, "REJECTED")
        assert refused["gates"][-1]["gate"] == "provenance"

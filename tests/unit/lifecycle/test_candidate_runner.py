"""What becomes of the host of a candidate that does not come to answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.compiled_form import Compilation, Graph
from serving.domain.plan import Compiled, Hosted
from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.domain.report import CandidateReport, Evaluation
from serving.domain.version import VersionId
from serving.hosting import environment_hosts
from serving.hosting.environment_hosts import EnvironmentHosts
from serving.lifecycle import candidate_runner
from serving.lifecycle.candidate import Candidate, CandidateFailed, CandidateReady, Outcome
from serving.lifecycle.candidate_runner import CandidateRunner, Trial
from serving.lifecycle.evaluation_request import Comparison
from serving.settings import ReplaySettings, Settings
from serving.wire.evaluation import EvaluationRequest
from serving.wire.recent_rows_document import decode_recent_rows
from tests.unit.domain.test_plan import BOUNDS
from tests.unit.lifecycle.control import artifact, identity, passed
from tests.unit.lifecycle.fake_plane import FakePlane


class Host:
    """A host of which only its end matters."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def make_trial() -> Trial:
    return Trial(Candidate("m", "1"), artifact("1"), Comparison(), "m/1", lambda _: None)


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
    return runner.evaluate(make_trial())


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


# --- a compiled form that the workers have no room for ----------------------------------------------------------------

COMPILED = passed().model_copy(
    update={"engine": "onnx", "compilation": Compilation(engine="onnx", reason="alike", bounds=BOUNDS)}
)


class FullWorkers:
    """Evaluates versions where no graph has room: those that may be compiled are, the others stay in their hosts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: Evaluation | None = None, **engine: Any) -> None:
        self.requests: list[EvaluationRequest] = []
        self.kept: list[Evaluation] = []
        self.plane = FakePlane()
        self.plane.lack = "it takes 5 MB"
        monkeypatch.setattr(environment_hosts, "evaluate_candidate", self._answer)
        monkeypatch.setattr(candidate_runner, "GraphCheck", NoCheck)
        zygote: Any = SimpleNamespace(spawn=lambda *_: Host())
        hosts = EnvironmentHosts({}, Path("scratch"))
        hosts.own = zygote
        cache: Any = SimpleNamespace(find=lambda *_: kept, keep=self._keep)
        verified: Any = SimpleNamespace(verify=lambda *_: None)
        settings = Settings()
        settings = settings.model_copy(update={"engine": settings.engine.model_copy(update=engine)})
        self._runner = CandidateRunner(hosts, verified, cache, settings, self.plane)

    def evaluate(self) -> Outcome:
        """Evaluate version 1."""
        return self._runner.evaluate(make_trial())

    def _answer(self, host: Any, request: EvaluationRequest, *_: Any, **__: Any) -> Evaluation:
        self.requests.append(request)
        known = request.compile.known
        if known is None:
            return Evaluation(COMPILED)
        return Evaluation(passed().model_copy(update={"compilation": known}))

    def _keep(self, _: Any, evaluation: Evaluation) -> Evaluation:
        self.kept.append(evaluation)
        return evaluation


class NoCheck:
    """A checker that finds every graph sound."""

    def __init__(self, *_: Any) -> None: ...

    def start(self) -> None: ...

    def check(self, evaluation: Evaluation) -> Evaluation:
        return evaluation

    def close(self) -> None: ...


def test_a_version_whose_graph_has_no_room_is_hosted_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullWorkers(monkeypatch)
    outcome = full.evaluate()
    assert isinstance(outcome, CandidateReady)
    assert isinstance(outcome.placement, Hosted)
    assert outcome.report.compilation is not None
    assert outcome.report.compilation.reason == "its graph has no room in the workers: it takes 5 MB"
    assert full.kept[0].report.is_compiled, "what was proved is kept for a time when there is room"


def test_a_version_that_was_proved_before_is_hosted_without_another_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullWorkers(monkeypatch, kept=Evaluation(COMPILED))
    assert isinstance(full.evaluate(), CandidateReady)
    (request,) = full.requests
    assert request.compile.known is not None
    assert request.compile.known.lacks_memory


@pytest.mark.parametrize("kept", [None, Evaluation(COMPILED)], ids=["new", "proved before"])
def test_a_version_that_must_be_compiled_is_tried_again_later(
    kept: Evaluation | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FullWorkers(monkeypatch, kept, compile="require")
    outcome = full.evaluate()
    assert outcome == CandidateFailed("it takes 5 MB; engine.compile is require, so no host answers for it")
    full.plane.lack = None
    assert isinstance(full.evaluate(), CandidateReady)


def test_what_is_kept_of_a_loaded_form_has_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullWorkers(monkeypatch, kept=Evaluation(COMPILED, (Graph(b"large", {}),)))
    full.plane.lack = None
    outcome = full.evaluate()
    assert isinstance(outcome, CandidateReady)
    assert isinstance(outcome.placement, Compiled)
    assert outcome.placement.graphs == ()


# --- recent rows ------------------------------------------------------------------------------------------------------


def evaluate_against(
    replayed: VersionId | None, monkeypatch: pytest.MonkeyPatch, **replay: Any
) -> tuple[str | None, list[VersionId]]:
    """Evaluate version 2 while the plane has a recent row; return what its host gets, and what the plane was asked."""
    requests: list[EvaluationRequest] = []
    plane = FakePlane()
    plane.recent = RecentRows("1", (AnsweredRows([[1.0]], {"predict": [2.0]}),))

    def answer(_: Any, request: EvaluationRequest, *__: Any, **___: Any) -> Evaluation:
        requests.append(request)
        return Evaluation(passed())

    monkeypatch.setattr(environment_hosts, "evaluate_candidate", answer)
    zygote: Any = SimpleNamespace(spawn=lambda *_: Host())
    hosts = EnvironmentHosts({}, Path("scratch"))
    hosts.own = zygote
    cache: Any = SimpleNamespace(find=lambda *_: None, keep=lambda _, evaluation: evaluation)
    settings = Settings().model_copy(update={"replay": ReplaySettings(**replay)})
    verified: Any = SimpleNamespace(verify=lambda *_: None)
    runner = CandidateRunner(hosts, verified, cache, settings, plane)
    runner.evaluate(Trial(Candidate("m", "2"), artifact("2"), Comparison(replayed=replayed), "m/2", lambda _: None))
    return requests[0].recent_rows, plane.sampled


def test_a_candidate_gets_the_recent_rows_of_the_active_version(monkeypatch: pytest.MonkeyPatch) -> None:
    document, sampled = evaluate_against(identity("1"), monkeypatch)
    assert document is not None
    assert decode_recent_rows(document) == RecentRows("1", (AnsweredRows([[1.0]], {"predict": [2.0]}),))
    assert sampled == [identity("1")]


def test_nothing_is_replayed_where_nothing_is_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate_against(None, monkeypatch) == (None, [])
    assert evaluate_against(identity("1"), monkeypatch, rows=0) == (None, [])

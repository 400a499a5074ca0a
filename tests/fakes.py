"""Stand-ins for what the HTTP side talks to: an engine that needs no host, an operator that needs no reconciler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
from fastapi import FastAPI

from serving import api
from serving.api.services import Services
from serving.domain.decision import (
    AcceptStateLoss,
    Decision,
    PinVersion,
    RefreshStore,
    RemoveLabel,
    RollBackModel,
    SetLabel,
    SteerRollout,
    UnloadModel,
)
from serving.domain.environment import Needs
from serving.domain.errors import OperationRefused, UnknownModel, UnknownVersion
from serving.domain.event_page import EventPage, HistoryQuery, parse_event_id
from serving.domain.judge import RolloutVerdict
from serving.domain.report import GateResult, Verdict
from serving.domain.rollout import (
    AnswerCount,
    BadExample,
    CurvePoint,
    PastRollout,
    RolloutEnd,
    RolloutPhase,
    RolloutStatus,
    RunningRollout,
)
from serving.domain.signature import Container, Dtype, Feature, Method, ModelKind, Signature
from serving.domain.state import State
from serving.domain.status import (
    ActiveStatus,
    Failure,
    GateWarning,
    ModelHistoryEntry,
    ModelStatus,
    ModelSummary,
    Quarantine,
    Status,
    StoreStatus,
    TargetStatus,
    VersionStatus,
)
from serving.domain.upload import UploadRequest, UploadState, UploadStatus
from serving.domain.version import VersionId
from serving.plane.active_reference import ActiveReference, ModelReference
from serving.plane.servable import Servable
from serving.rows.batch import Batch, Prediction, Tensor
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

TOKEN = "correct-horse"
ADMIN = {"authorization": f"Bearer {TOKEN}"}
LOG = "1f2e3d4c"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NUMBERS = Signature(
    features=tuple(Feature(name=f"x{index}") for index in range(4)),
    methods=("predict", "predict_proba"),
    kind=ModelKind.CLASSIFIER,
    classes=((0, 1, 2),),
)
MIXED = Signature(
    features=(
        Feature(name="age", dtype=Dtype.NUMBER, nullable=True),
        Feature(name="town", dtype=Dtype.STRING),
        Feature(name="is_new", dtype=Dtype.BOOL, nullable=True),
    ),
    methods=("predict",),
    container=Container.DATAFRAME,
    is_named=True,
)
TEXTS = Signature(features=(Feature(name="text", dtype=Dtype.STRING),), methods=("predict",), container=Container.TEXTS)

Result = TypeVar("Result")
Message = MutableMapping[str, Any]
Rule = Callable[[Method, Batch], Tensor | tuple[Tensor, ...]]


def iris(method: Method, batch: Batch) -> Tensor:
    """Tell irises apart by their petals alone, and be 98 % sure of it."""
    petals = batch.columns[3] if batch.matrix is None and batch.columns else batch.matrix[:, 3]  # type: ignore[index]
    labels = np.digitize(petals, [0.8, 1.75])
    if method == "predict":
        return labels
    return np.full((batch.rows, 3), 0.01) + 0.97 * np.eye(3)[labels]


def echo(_method: Method, batch: Batch) -> Tensor:
    """Answer the first column."""
    if batch.matrix is not None:
        return batch.matrix[:, 0]
    assert batch.columns is not None
    return batch.columns[0]


class FakeEngine:
    """Answers by `rule`, after `gate` is set, if there is one; `error` is raised instead when it is set."""

    name = "sklearn"
    is_immediate = False

    def __init__(self, rule: Rule = iris) -> None:
        self.rule = rule
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.batches: list[Batch] = []
        self.deadline_seconds: float | None = None

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:
        """Always have to wait."""
        return None

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch."""
        self.batches.append(batch)
        self.deadline_seconds = deadline_seconds
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        tensors = self.rule(method, batch)
        return Prediction(tensors if isinstance(tensors, tuple) else (tensors,))

    async def close(self) -> None:
        """Have nothing to give back."""


def make_servable(
    model: str, version: str, engine: FakeEngine | None = None, signature: Signature = NUMBERS
) -> Servable:
    """Return a servable that has passed every gate."""
    return Servable(VersionId(model, version, f"sha256:{version * 64}"[:71]), signature, engine or FakeEngine())


def make_reference(**active: Servable | None) -> ActiveReference:
    """Return a reference in which each model is answered by the servable given, or known and answered by none."""
    return ActiveReference(MappingProxyType({name: make_model_reference(one) for name, one in active.items()}))


def make_model_reference(active: Servable | None, *standbys: Servable, **labels: Servable | None) -> ModelReference:
    """Return what answers for one model: the active servable, and those on standby, the last of them active before."""
    loaded = [*standbys, *([active] if active else [])]
    return ModelReference(active, MappingProxyType({one.id.version: one for one in loaded}), None, labels)


def make_model_status(name: str = "iris", active: str | None = "3", **labels: str) -> ModelStatus:
    """Return a model whose version 3 is active, 4 is on its way and 2 was refused."""
    gates = (
        GateResult(gate="load", verdict=Verdict.PASSED, evidence="loaded", duration_seconds=0.1),
        GateResult(gate="golden", verdict=Verdict.REFUSED, evidence="row 3: expected 1, got 2", duration_seconds=0.2),
    )
    return ModelStatus(
        name=name,
        active=ActiveStatus(version=active, digest="sha256:33", engine="onnx", activated_at=NOON) if active else None,
        target=TargetStatus(version="4", state=State.VALIDATING),
        labels=labels,
        last_failure=Failure(version="2", gate="golden", reason="row 3: expected 1, got 2", at=NOON),
        warnings=(
            GateWarning(version="3", gate="environment", evidence="trained with scikit-learn 1.8.0, served by 1.9.1"),
        ),
        quarantined=(Quarantine(version="1", path="iris/1"),),
        signature=NUMBERS,
        versions=(
            VersionStatus(version="4", state=State.VALIDATING, since=NOON),
            VersionStatus(version="3", state=State.ACTIVE, since=NOON, is_loaded=True, signature=NUMBERS),
            VersionStatus(
                version="2",
                state=State.REJECTED,
                since=NOON,
                reason="golden",
                gates=gates,
                needs=Needs(
                    libraries={"scikit-learn": "1.9.1"},
                    sources={"scikit-learn": "the file says"},
                    modules=("joblib", "numpy", "sklearn"),
                ),
                environment="own",
                environment_reason="trained with scikit-learn 1.9.1; here: scikit-learn 1.9.1",
            ),
        ),
    )


def make_refused_status(*states: State, name: str = "iris") -> ModelStatus:
    """Return a model of which every version is refused, newest first; version 2 alone when no states are given."""
    versions = tuple(
        VersionStatus(version=str(2 + number), state=state, since=NOON, reason="golden: row 3: expected 1, got 2")
        for number, state in reversed([*enumerate(states or (State.REJECTED,))])
    )
    return ModelStatus(name=name, active=None, versions=versions)


def make_status(*models: ModelStatus, **changes: Any) -> Status:
    """Return the status of a service that has started and can list its store."""
    given: dict[str, Any] = {
        "models": MappingProxyType({model.name: model for model in models}),
        "store": StoreStatus(is_available=True, watch="events", listed_at=NOON),
        "has_started": True,
        "newest_event": f"{LOG}-250",
    }
    return Status(**(given | changes))


class FakeUploads:
    """Takes every body whole; `error` is raised when it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[UploadRequest, str, bytes]] = []
        self.error: Exception | None = None

    async def receive(self, request: UploadRequest, actor: str, chunks: AsyncIterator[bytes]) -> UploadStatus:
        """Answer as if the version had been published."""
        if self.error is not None:
            raise self.error
        body = b"".join([chunk async for chunk in chunks])
        self.calls.append((request, actor, body))
        return UploadStatus(
            id="1",
            model=request.model,
            version=request.version or "4",
            file=request.file or "version.tar",
            bytes=len(body),
            state=UploadState.PUBLISHED,
            gates=(GateResult(gate="load", verdict=Verdict.PASSED, evidence="loaded"),),
            digest="sha256:4",
            actor=actor,
            at=NOON,
        )


class FakeOperator:
    """Remembers what it was asked; knows the models of `status`; `error` is raised by every call when it is set."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.entries = tuple(
            ModelHistoryEntry(model="iris", id=number, at=NOON, version="3", actor="system", event="transition")
            for number in range(250, 0, -1)
        )

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Answer as if it had been carried out; of what may be refused, as far as `status` says so."""
        self.calls.append((decision, actor))
        if self.error is not None:
            raise self.error
        if isinstance(decision, RefreshStore | AcceptStateLoss):
            return tuple(self.status.models.values())
        found = self._find(decision.model)
        match decision:
            case PinVersion(model, version):
                if version not in {one.version for one in found.versions}:
                    raise UnknownVersion(f"'{model}' has no version '{version}'")
                return (found.model_copy(update={"pinned": version}),)
            case SetLabel(_, label, version):
                return (found.model_copy(update={"labels": {**found.labels, label: version}}),)
            case RemoveLabel(_, label):
                return (found.model_copy(update={"labels": {k: v for k, v in found.labels.items() if k != label}}),)
            case RollBackModel(_, str(version)) if found.active is not None and version != found.active.version:
                raise OperationRefused(f"version '{version}' is not active, '{found.active.version}' is")
            case SteerRollout(_, _, str(version)) if found.target is None or version != found.target.version:
                raise OperationRefused(f"no rollout of version '{version}' is under way")
            case UnloadModel():
                return (found.model_copy(update={"unloaded": True}),)
        return (found,)

    async def history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Return a page."""
        self.calls.append(("history", query))
        if self.error is not None:
            raise self.error
        before = query.before_id if query.before_id is not None else 1 << 62
        return tuple(entry for entry in self.entries if entry.id < before)[: query.limit]

    async def events_after(self, event_id: str | None, limit: int) -> EventPage:
        """Return a page of the log `LOG`; any other id is of a lost one."""
        self.calls.append(("events_after", event_id, limit))
        if self.error is not None:
            raise self.error
        seen = parse_event_id(event_id or "")
        gap = None if seen is not None and seen[0] == LOG else "the history was lost"
        after = seen[1] if seen is not None and gap is None else 0
        entries = tuple(entry for entry in reversed(self.entries) if entry.id > after)[:limit]
        return EventPage(LOG, after, entries, is_last=len(entries) < limit, gap=gap)

    def _find(self, model: str) -> ModelStatus:
        if model not in self.status.models:
            raise UnknownModel.for_name(model)
        return self.status.models[model]


class FakeBackground:
    """Stands for what runs behind the HTTP side: nothing does."""

    def __init__(self) -> None:
        self.on_started: Callable[[Status], None] = lambda _: None
        self.is_stop_announced = False

    def announce_stop(self) -> None:
        """Remember it."""
        self.is_stop_announced = True


def make_rollout_status() -> RolloutStatus:
    """Return a rollout of iris: version 4 has a tenth of the requests beside version 3, and version 2 went back."""
    curve = [(1.0, 5.0), (0.8, 5.0), (2.6, 10.0)]
    return RolloutStatus(
        model="iris",
        strategy="canary",
        running=RunningRollout(
            version="4",
            against="3",
            phase=RolloutPhase.CANARY,
            step=2,
            steps=3,
            share=10.0,
            since=NOON,
            step_since=NOON + timedelta(seconds=60),
            verdict=RolloutVerdict.WAIT,
            reason="80 of 100 requests in this step",
            e_value=2.6,
            threshold=100.0,
            new=AnswerCount(answers=130, bad=2),
            old=AnswerCount(answers=1200, bad=9),
            curve=tuple(
                CurvePoint(at=NOON + timedelta(seconds=30 * index), e_value=e_value, share=share)
                for index, (e_value, share) in enumerate(curve)
            ),
            examples=(BadExample(status=422, detail="row 0: feature 'tier' holds a value that was never seen"),),
        ),
        last=PastRollout(
            version="2",
            end=RolloutEnd.ROLLED_BACK,
            at=NOON,
            reason="worse: 12 of 40 went bad, 1 of 760 of the active version",
            actor="system",
            e_value=5200.0,
            new=AnswerCount(answers=40, bad=12),
            old=AnswerCount(answers=760, bad=1),
        ),
    )


def make_app(
    reference: ActiveReference | None = None, status: Status | None = None, **settings: dict[str, Any]
) -> FastAPI:
    """Return the HTTP side over fakes: `iris`, version 3 active, and the admin token TOKEN."""
    app = FastAPI(title="serving", version="0")
    api.install(app)
    state = app.state
    state.active = make_reference(iris=make_servable("iris", "3")) if reference is None else reference
    state.status = make_status(make_model_status()) if status is None else status
    found = Settings.model_validate({"security": {"admin_token": TOKEN}, **settings})
    state.services = make_services(app, found, FakeOperator(state.status))
    return app


def make_services(app: FastAPI, settings: Settings, operator: FakeOperator | None = None) -> Services:
    """Return services over fakes."""
    operator = FakeOperator(make_status()) if operator is None else operator
    return api.make_services(app.state, settings, Metrics("0"), operator, FakeBackground(), FakeUploads())


def make_client(app: FastAPI) -> httpx.AsyncClient:
    """Return a client that talks to `app` without a socket; an exception that would leave it fails the test."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """Run a scenario on a loop of its own; one that hangs fails."""

    async def bounded() -> Result:
        async with asyncio.timeout(20):
            return await scenario

    return asyncio.run(bounded())


def call(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    """Make one request on a loop of its own."""

    async def one() -> httpx.Response:
        async with make_client(app) as client:
            return await client.request(method, path, **options)

    return run(one())


def predict(app: FastAPI, body: Any, path: str = "/models/iris/predict", **headers: str) -> httpx.Response:
    """Ask for a prediction with a body of bytes, text, or anything JSON has a form for."""
    content = body if isinstance(body, bytes | str) else orjson.dumps(body)
    return call(app, "POST", path, content=content, headers={"content-type": "application/json", **headers})


async def exchange(
    app: FastAPI, *messages: Message, path: str = "/models/iris/predict", method: str = "POST", **headers: str
) -> Exchange:
    """Play a client that sends these ASGI messages, and then nothing more for as long as it is waited for."""
    sent = Exchange([])
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.messages.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "client": None}
    await app(scope, receive, send)
    sent.unread = len(waiting)
    return sent


@dataclass
class Exchange:
    """What came back over ASGI. `unread` counts the messages nobody asked for."""

    messages: list[Message]
    unread: int = 0

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.messages[0]["status"])

    @property
    def document(self) -> Any:
        """The JSON of the answer."""
        return orjson.loads(b"".join(message.get("body", b"") for message in self.messages[1:]))


def part(body: bytes, *, is_last: bool = False) -> Message:
    """Return one message of a request's body."""
    return {"type": "http.request", "body": body, "more_body": not is_last}

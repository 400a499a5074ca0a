"""The JSON of the routes that are not predictions, except the types of `serving.domain.status`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.domain.rollout import RolloutAction, RolloutSummary
from serving.domain.sandbox import Sandbox
from serving.domain.state import State
from serving.domain.status import (
    HistoryEntry,
    ModelHistoryEntry,
    ModelSummary,
    StateStatus,
    StoreStatus,
    VersionStatus,
    WorkerStatus,
)
from serving.settings import TokenScope


class JsonAnswer(BaseModel):
    """Base of all answers here: frozen."""

    model_config = ConfigDict(frozen=True)


class Welcome(JsonAnswer):
    """What this server is, and the first paths to try."""

    name: str = "serving"
    version: str
    about: str = "a model server: send rows to a model, and the answer names the version that computed it"
    predict: str
    models: str
    active: str
    ready: str
    docs: str | None
    openapi: str | None
    ui: str | None = Field(description="the page to look at")


class PageSession(JsonAnswer):
    """What the page may do now, and what it could after signing in."""

    ui: Literal["read", "admin"] = Field(description="`server.ui`: with `read` no session opens admin")
    scopes: tuple[TokenScope, ...] = Field(description="what the caller may do now")
    signed_in: bool
    expires_at: datetime | None = Field(description="when the session ends; it is not prolonged")
    uploads: bool = Field(description="`store.uploads`: whether versions can be published over HTTP")
    needs: tuple[TokenScope, ...] = Field(description="what needs a token that there is, and is open to none without")


class Workers(BaseModel):
    """The processes that answer, by index."""

    workers: tuple[WorkerStatus, ...]


class ActiveModels(JsonAnswer):
    """The version that answers now, for every model, and the problems of the store."""

    models: tuple[ModelSummary, ...]
    store: StoreStatus


class VersionSummary(JsonAnswer):
    """One version in ``GET /models``; the gates and the signature are under the version itself."""

    version: str
    state: State
    since: datetime
    reason: str | None = None
    retry_at: datetime | None = None
    is_loaded: bool = False
    is_quarantined: bool = False

    @classmethod
    def of(cls, status: VersionStatus) -> VersionSummary:
        """Leave out what is long."""
        return cls(**{name: getattr(status, name) for name in cls.model_fields})


class ModelVersions(ModelSummary):
    """One model in ``GET /models``, its versions newest first."""

    rollout: RolloutSummary | None = None
    versions: tuple[VersionSummary, ...] = ()


class AllModels(JsonAnswer):
    """Every model and version, whether the store can be listed, what is wrong with the state, and the layers of the
    sandbox that held every host of what is loaded (null while nothing is).
    """

    models: tuple[ModelVersions, ...]
    store: StoreStatus
    state: StateStatus = StateStatus()
    sandbox: Sandbox | None = None


class History(JsonAnswer):
    """A page of what happened to a model, newest first. `before` is the next page's query, null on the last one."""

    model: str
    history: tuple[HistoryEntry, ...]
    before: int | None = None


class FullHistory(JsonAnswer):
    """A page of what happened to all models, newest first. `before` is the next page's query, null on the last one."""

    history: tuple[ModelHistoryEntry, ...]
    before: int | None = None


class ModelState(ModelSummary):
    """One model in ``GET /events``."""

    rollout: RolloutSummary | None = None


class ServiceState(JsonAnswer):
    """Everything but the models in ``GET /events``. `generation` is the plan that this process answers with."""

    store: StoreStatus
    state: StateStatus
    ready: bool
    reason: str | None
    sandbox: Sandbox | None
    worker_problem: str | None
    generation: int


class StreamedEvent(JsonAnswer):
    """One event of ``GET /events``: its name, its data, and the id to go on from, if it has one."""

    event: str = Field(examples=["model"])
    id: str | None = None
    data: dict[str, Any]


class EventList(JsonAnswer):
    """The whole state as events, and the history after the id that was given."""

    events: tuple[StreamedEvent, ...]


class Live(JsonAnswer):
    """The process runs."""

    status: str = "live"


class Readiness(JsonAnswer):
    """Whether requests can be answered, and why not. A reason beside `ready` says which workers do not serve."""

    ready: bool
    reason: str | None = None
    active: int = Field(0, description="how many models have an active version")


class SignIn(BaseModel):
    """Body of ``POST /ui/session``."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    token: str = Field(min_length=1, max_length=8192, examples=["<token>"], repr=False)


class Pin(BaseModel):
    """Body of ``POST /models/{model}/pin``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: str = Field(min_length=1, max_length=100, examples=["2"])


class LabelledVersion(BaseModel):
    """Body of ``PUT /models/{model}/labels/{label}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: str = Field(min_length=1, max_length=100, examples=["2"])


class Rollback(BaseModel):
    """Body of ``POST /models/{model}/rollback``, which may be left out.

    With a version, the call can be repeated safely: it does nothing when that version is not active any more.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    version: str | None = Field(None, min_length=1, max_length=100, description="the version to leave", examples=["3"])


class Steer(BaseModel):
    """Body of ``POST /models/{model}/rollout``. With a version, the call is refused when another one is under way."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: RolloutAction = Field(strict=False, description="what to do with the rollout", examples=["hold"])
    version: str | None = Field(None, min_length=1, max_length=100, description="the new version", examples=["4"])

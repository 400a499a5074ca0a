"""Operators' calls and their outcomes: values only, so that they can cross a thread or a socket.

Each call is a frozen dataclass; its `kind` is the word for it in JSON, in log lines and in the history. Callers of
every protocol give a `Decision` to `Operator.decide`. The reconciler validates it, carries it out and answers
with a `DecisionOutcome`. `pydantic.TypeAdapter` reads and writes both as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import Field

from serving.domain.errors import OperationRefused, ServingError, StateUnavailable, UnknownModel, UnknownVersion
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.rollout import RolloutAction
from serving.domain.status import ModelHistoryEntry, ModelSummary

# --- about one model --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PinVersion:
    """Serve exactly this version from now on; it is loaded first if it has to be."""

    model: str
    version: str
    kind: Literal["pin"] = "pin"


@dataclass(frozen=True, slots=True)
class UnpinModel:
    """Follow the newest valid version again."""

    model: str
    kind: Literal["unpin"] = "unpin"


@dataclass(frozen=True, slots=True)
class RollBackModel:
    """Quarantine the active version and activate the next best; during a rollout, take the new version back.

    `version`, when given, is the one the caller means to leave: already left is success, another one active is refused,
    so that the call can be repeated safely.
    """

    model: str
    version: str | None = None
    kind: Literal["rollback"] = "rollback"


@dataclass(frozen=True, slots=True)
class ReleaseVersion:
    """Lift the quarantine of a version and forget its verdict, so that it is evaluated anew."""

    model: str
    version: str
    kind: Literal["release"] = "release"


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """Unload the model, and load no version of it until `LoadModel`.

    Requests in flight are still answered; a host ends after its last one.
    """

    model: str
    kind: Literal["unload"] = "unload"


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Lift `UnloadModel`: follow the newest valid version, or the pin, again."""

    model: str
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class SteerRollout:
    """Do something with the rollout of a model; see `RolloutAction`.

    `version`, when given, is the one the caller means: with another one under way the call is refused. What has been
    done already is success, so that the call can be repeated safely.
    """

    model: str
    action: RolloutAction
    version: str | None = None
    kind: Literal["rollout"] = "rollout"


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Let a label name this version from now on; it is loaded first if it has to be, and stays loaded.

    Until it is loaded, the label answers with what it answered with before.
    """

    model: str
    label: str
    version: str
    kind: Literal["label"] = "label"


@dataclass(frozen=True, slots=True)
class RemoveLabel:
    """Forget a label; the version that it names stays loaded only if something else needs it."""

    model: str
    label: str
    kind: Literal["unlabel"] = "unlabel"


# --- about all models -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RefreshStore:
    """Read the store now. Done when the result has been acted upon (evaluations may still run)."""

    kind: Literal["refresh"] = "refresh"


@dataclass(frozen=True, slots=True)
class AcceptStateLoss:
    """Activate versions again although decisions were lost with the state. Without a loss it changes nothing."""

    kind: Literal["accept-state-loss"] = "accept-state-loss"


ModelDecision = Annotated[
    PinVersion
    | UnpinModel
    | RollBackModel
    | ReleaseVersion
    | UnloadModel
    | LoadModel
    | SteerRollout
    | SetLabel
    | RemoveLabel,
    Field(discriminator="kind"),
]
Decision = Annotated[ModelDecision | RefreshStore | AcceptStateLoss, Field(discriminator="kind")]


# --- outcomes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecisionDone:
    """The decision is durable. `models` are the models it is about, as they were after it was carried out."""

    models: tuple[ModelSummary, ...]
    kind: Literal["done"] = "done"


class RefusalCause(StrEnum):
    """Why a decision is refused: each stands for one class of error."""

    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_VERSION = "unknown-version"
    NOT_POSSIBLE = "operation-refused"
    NOT_DURABLE = "state-unavailable"


_ERRORS: dict[RefusalCause, type[ServingError]] = {
    RefusalCause.UNKNOWN_MODEL: UnknownModel,
    RefusalCause.UNKNOWN_VERSION: UnknownVersion,
    RefusalCause.NOT_POSSIBLE: OperationRefused,
    RefusalCause.NOT_DURABLE: StateUnavailable,
}


@dataclass(frozen=True, slots=True)
class DecisionRefused:
    """Nothing has changed; `reason` is one line fit to show a user."""

    cause: RefusalCause
    reason: str
    kind: Literal["refused"] = "refused"

    @classmethod
    def from_error(cls, error: UnknownModel | UnknownVersion | OperationRefused | StateUnavailable) -> DecisionRefused:
        """Return the refusal that stands for an error."""
        cause = next(cause for cause, kind in _ERRORS.items() if isinstance(error, kind))
        return cls(cause, str(error))

    def to_error(self) -> ServingError:
        """Return the error for the caller."""
        return _ERRORS[self.cause](self.reason)


DecisionOutcome = Annotated[DecisionDone | DecisionRefused, Field(discriminator="kind")]


class Operator(Protocol):
    """Where operators' calls go. Awaited on the event loop."""

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Carry out a decision and return the models it is about: one, or all of them. Decisions run one after another.

        `actor` goes to the history. Raises UnknownModel or UnknownVersion for unknown names, OperationRefused for what
        is not possible in the present state, StateUnavailable when the decision cannot be made durable. Nothing has
        changed then.
        """
        ...

    async def history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Return what happened, newest first. Does not wait for the reconciler. Raises StateUnavailable."""
        ...

    async def events_after(self, event_id: str | None, limit: int) -> EventPage:
        """Return what happened after the entry with this id, oldest first; None stands for what was not known yet.

        Does not wait for the reconciler. Raises StateUnavailable.
        """
        ...

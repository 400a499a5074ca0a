"""What requests need and what never changes while the application runs: one value in ``app.state``.

Everything in it is complete when it is made (`serving.api.make_services`), so nothing has to be filled in later. Beside
it ``app.state`` has two values that are replaced as the models change: the active reference and the status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.datastructures import State

if TYPE_CHECKING:
    from serving.api.access import Access
    from serving.api.bodies import BodyReader
    from serving.api.counts import Counts
    from serving.api.endpoint import Endpoint
    from serving.api.events.event_feed import EventFeed
    from serving.api.inflight import Inflight
    from serving.api.predictor import Predictor
    from serving.api.request_log import RequestLog
    from serving.api.sessions import Sessions, SignInLimit
    from serving.api.shortcut import Shortcut
    from serving.domain.decision import Operator
    from serving.domain.status import Status
    from serving.domain.upload import Uploads
    from serving.plane.active_reference import ActiveReference
    from serving.recording.recorder import Recorder
    from serving.settings import Settings
    from serving.telemetry.metrics import Metrics


class Background(Protocol):
    """The part of `serving.service.Service` that the server which starts and stops it uses.

    `on_started` is called on the reconciler's thread when the first look at the store has ended.
    """

    on_started: Callable[[Status], None]

    def announce_stop(self) -> None:
        """Set readiness to false; everything else goes on. Any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all requests share. `endpoints` are HTTP's, by the names of their protocols (`serving.api.paths`).

    There is a `recorder` if predictions are to be recorded.
    """

    settings: Settings
    metrics: Metrics
    operator: Operator
    background: Background
    access: Access
    sessions: Sessions
    failed_sign_ins: SignInLimit
    counts: Counts
    events: EventFeed
    inflight: Inflight
    requests: RequestLog
    predictor: Predictor
    endpoints: Mapping[str, Endpoint]
    shortcut: Shortcut
    uploads: Uploads
    operator_bodies: BodyReader
    recorder: Recorder | None


class AppState(Protocol):
    """``app.state`` while the lifespan runs. Control replaces `status`, the plane `active`; `services` stays."""

    active: ActiveReference
    prepared: ActiveReference
    status: Status
    services: Services


class QuickState(State):
    """An ``app.state`` whose values are attributes like those of other objects; it behaves like Starlette's own.

    Python looks for an attribute of Starlette's in vain before it asks for it in another way: 0.5 us, twice for each
    prediction.
    """

    def __init__(self) -> None:
        """Begin without values."""

    @property
    def _state(self) -> dict[str, Any]:  # type: ignore[override]  # where Starlette's methods look for values
        return self.__dict__

    def __setattr__(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def __delattr__(self, key: str) -> None:
        object.__delattr__(self, key)


def services_of(app: Starlette) -> Services:
    """Return the services of an application whose lifespan has begun."""
    found: Services = app.state.services
    return found

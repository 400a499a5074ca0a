"""The state as clients of the stream know it: an event for each model and upload, and one for the service."""

from __future__ import annotations

import orjson

from serving.api.events.stream_event import StreamEvent
from serving.api.health import why_not_ready
from serving.api.models import find_sandbox
from serving.api.schemas import ModelState, ServiceState
from serving.domain.rollout import RolloutSummary
from serving.domain.sandbox import Sandbox
from serving.domain.status import ModelStatus, ModelSummary, Status
from serving.domain.upload import UploadStatus


class ShownState:
    """The events that say how everything is. Event loop thread only.

    Models in two snapshots are the same object while nothing about them has changed, so most looks compare identities.
    """

    def __init__(self) -> None:
        self._status: Status | None = None
        self._generation = 0
        self._models: dict[str, tuple[ModelStatus, StreamEvent]] = {}
        self._uploads: dict[str, tuple[UploadStatus, StreamEvent]] = {}
        self._service: StreamEvent | None = None
        self._sandbox: Sandbox | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    @property
    def events(self) -> list[StreamEvent]:
        """The whole state at the last `update`."""
        parts = [event for _, event in (*self._models.values(), *self._uploads.values())]
        return parts if self._service is None else [*parts, self._service]

    def update(self, status: Status, generation: int) -> list[StreamEvent]:
        """Take over a snapshot and the generation that answers; return the events that are new or different."""
        if status is self._status and generation == self._generation:
            return []
        changes: list[StreamEvent] = []
        if self._status is None or status.models is not self._status.models:
            changes += self._update_models(status)
            self._sandbox = find_sandbox(status)
        if self._status is None or status.uploads is not self._status.uploads:
            changes += self._update_uploads(status)
        self._status, self._generation = status, generation
        service = describe_service(status, self._sandbox, generation)
        if self._service is None or service.data != self._service.data:
            self._service = service
            changes.append(service)
        return changes

    def _update_models(self, status: Status) -> list[StreamEvent]:
        changes = []
        for name in self._models.keys() - status.models.keys():
            del self._models[name]
            changes.append(StreamEvent("removed", orjson.dumps({"name": name})))
        for name, model in status.models.items():
            before = self._models.get(name)
            if before is not None and before[0] is model:
                continue
            event = describe_model(model)
            if before is not None and before[1].data == event.data:  # something changed that is not shown
                event = before[1]
            else:
                changes.append(event)
            self._models[name] = (model, event)
        return changes

    def _update_uploads(self, status: Status) -> list[StreamEvent]:
        before = self._uploads
        self._uploads = {
            each.id: found
            if (found := before.get(each.id)) is not None and found[0] == each
            else (each, StreamEvent("upload", each.model_dump_json().encode()))
            for each in status.uploads
        }
        return [event for name, (_, event) in self._uploads.items() if before.get(name, (None, None))[1] is not event]


def describe_model(model: ModelStatus) -> StreamEvent:
    """Return the event that says how a model is."""
    summary = {name: getattr(model, name) for name in ModelSummary.model_fields}
    state = ModelState.model_construct(**summary, rollout=RolloutSummary.of(model.rollout))
    return StreamEvent("model", state.model_dump_json().encode())


def describe_service(status: Status, sandbox: Sandbox | None, generation: int) -> StreamEvent:
    """Return the event that says how everything but the models is."""
    reason = why_not_ready(status)
    state = ServiceState.model_construct(
        store=status.store,
        state=status.state,
        ready=reason is None,
        reason=reason,
        sandbox=sandbox,
        worker_problem=status.worker_problem,
        generation=generation,
    )
    return StreamEvent("service", state.model_dump_json().encode())

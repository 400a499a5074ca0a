"""How ``serving status`` and the operator's calls show what a server says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from serving.cli.output import one_line, show, show_table
from serving.domain.environment import OWN
from serving.domain.rollout import RolloutSummary
from serving.domain.sandbox import Sandbox
from serving.domain.status import ActiveStatus, ModelSummary, StateStatus, StoreStatus, WorkerState, WorkerStatus

NOTHING = "-"


class ModelRollout(BaseModel):
    """A model in ``GET /models``, as far as it is about rollouts."""

    name: str
    rollout: RolloutSummary | None = None


class ServerStatus(BaseModel):
    """What ``GET /models`` says beside what ``GET /models/active`` says."""

    models: tuple[ModelRollout, ...] = ()
    sandbox: Sandbox | None = None
    store: StoreStatus | None = None
    state: StateStatus | None = None


def show_models(models: Sequence[ModelSummary]) -> None:
    """Show a line for each model, and then what an operator should know of them."""
    show_table(
        ["MODEL", "ACTIVE", "ENGINE", "TARGET", "PINNED", "LAST FAILURE"], [_format_model(model) for model in models]
    )
    for model in models:
        notes = [model.active.note if model.active else None, model.problem]
        for note in dict.fromkeys(filter(None, notes)):
            show(one_line(f"{model.name}: {note}"))
        if model.labels:
            show(one_line(f"{model.name}: {describe_labels(model)}"))
        for warning in model.warnings:
            show(one_line(f"{model.name}/{warning.version}: gate {warning.gate} warned: {warning.evidence}"))
        for one in model.quarantined:
            what = f"'{one.path}' of the store" if one.path else "not in the store with these bytes"
            release = f"until 'serving release {model.name} {one.version}'"
            show(one_line(f"{model.name}/{one.version}: in quarantine since a rollback, {release} ({what})"))


def show_workers(workers: Sequence[WorkerStatus]) -> None:
    """Show how many workers serve, and a line for each."""
    serving = sum(worker.state is WorkerState.SERVING for worker in workers)
    show(f"{serving} of {len(workers)} workers serve")
    show_table(
        ["WORKER", "PID", "STATE", "GENERATION", "STARTED", "REQUESTS", "RESTARTS", "REASON"],
        [_format_worker(worker) for worker in workers],
    )


def show_problems(whole: ServerStatus) -> None:
    """Show what is wrong with the store and the state."""
    if whole.store is not None and whole.store.reason and not whole.store.is_available:
        show(one_line(f"store: {whole.store.reason}"))
    for problem in whole.store.problems if whole.store is not None else ():
        show(one_line(f"store: {problem}"))
    if whole.state is not None and whole.state.problem:
        show(one_line(f"state: {whole.state.problem}"))
    if whole.state is not None and whole.state.is_held:
        show("only what was active before answers")


def _format_worker(worker: WorkerStatus) -> list[str]:
    state = worker.state.value
    if worker.retry_at is not None:
        state += f" until {format_time(worker.retry_at)}"
    started = format_time(worker.started_at) if worker.started_at else NOTHING
    numbers = [str(number) for number in (worker.generation, worker.requests, worker.restarts)]
    pid = str(worker.pid or NOTHING)
    return [str(worker.index), pid, state, numbers[0], started, *numbers[1:], worker.reason or NOTHING]


def _format_model(model: ModelSummary) -> list[str]:
    active, target, failure = model.active, model.target, model.last_failure
    return [
        model.name,
        active.version if active else "unloaded" if model.unloaded else NOTHING,
        _describe_engine(active) if active else NOTHING,
        f"{target.version} {target.state}" if target else NOTHING,
        model.pinned or NOTHING,
        f"{failure.version} {format_time(failure.at)} {failure.gate}: {failure.reason}" if failure else NOTHING,
    ]


def _describe_engine(active: ActiveStatus) -> str:
    return active.engine if active.environment == OWN else f"{active.engine} in {active.environment}"


def describe_active(model: ModelSummary) -> str:
    """Return which version answers for a model, and which one is on its way, as one line."""
    active, target = model.active, model.target
    text = f"active: {active.version} ({_describe_engine(active)})" if active else "nothing is active"
    if target and (active is None or target.version != active.version):
        text += f", on its way: {target.version} ({target.state})"
    return one_line(text)


def describe_labels(model: ModelSummary) -> str:
    """Return the labels of a model and what they name, as one line."""
    labels = ", ".join(f"{label} = {version}" for label, version in model.labels.items())
    return one_line(f"labels: {labels}" if labels else "no labels")


def format_time(at: datetime) -> str:
    """Return a time in the time zone of this process, to the second."""
    return at.astimezone().isoformat(" ", "seconds")

"""What is in the store, what answers, and what happened: ``GET /models...``."""

from __future__ import annotations

from functools import reduce
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator

from serving.api.openapi import problems_of
from serving.api.schemas import ActiveModels, AllModels, History, ModelVersions, VersionSummary, Workers
from serving.api.services import services_of
from serving.domain.errors import InvalidInput, UnknownModel, UnknownVersion
from serving.domain.event_page import HistoryQuery
from serving.domain.rollout import RolloutStatus, RolloutSummary
from serving.domain.sandbox import Sandbox
from serving.domain.status import ModelStatus, ModelSummary, Status, VersionStatus
from serving.domain.version import why_not_a_name

MAX_PAGE = 10_000
MOST_ID = 2**63 - 1


def _model_name(text: str) -> str:
    if why := why_not_a_name(text):
        raise UnknownModel(f"no model is called that: {why}")
    return text


def _version_name(text: str) -> str:
    if why := why_not_a_name(text):
        raise UnknownVersion(f"no version is called that: {why}")
    return text


def _label_name(text: str) -> str:
    if why := why_not_a_name(text):
        raise InvalidInput(f"no label can be called that: {why}")
    return text


# No name that could not be in the store gets any further than here.
ModelName = Annotated[str, AfterValidator(_model_name), Path(description="name of the model", examples=["iris"])]
VersionName = Annotated[str, AfterValidator(_version_name), Path(description="name of the version", examples=["3"])]
LabelName = Annotated[str, AfterValidator(_label_name), Path(description="name of the label", examples=["champion"])]

router = APIRouter(tags=["models"])


@router.get("/models", summary="Every model and version")
async def list_models(request: Request) -> AllModels:
    """List every version in the store with its state and the reason."""
    status: Status = request.app.state.status
    models = tuple(_with_versions(model) for _, model in sorted(status.models.items()))
    return AllModels(models=models, store=status.store, state=status.state, sandbox=find_sandbox(status))


@router.get("/workers", summary="The processes that answer")
async def list_workers(request: Request) -> Workers:
    """List the workers: their processes, their states, and the generation of plans that each answers with.

    With one worker the list is empty: the server's own process answers.
    """
    return Workers(workers=await services_of(request.app).counts.list_workers())


@router.get("/models/active", summary="Which version answers now")
async def list_active(request: Request) -> ActiveModels:
    """List for every model which version answers, which one is to become active, and what failed last."""
    status: Status = request.app.state.status
    return ActiveModels(models=tuple(model for _, model in sorted(status.models.items())), store=status.store)


@router.get("/models/{model}", summary="One model with all its versions", responses=problems_of(404))
async def show_model(model: ModelName, request: Request) -> ModelStatus:
    """Return everything known of a model: its signature, and each version's state, gates and reasons."""
    return known_model(request, model)


@router.get("/models/{model}/active", summary="Which version answers for one model", responses=problems_of(404))
async def show_active(model: ModelName, request: Request) -> ModelSummary:
    """Return the model's entry of ``GET /models/active``."""
    return known_model(request, model)


@router.get("/models/{model}/versions/{version}", summary="One version", responses=problems_of(404))
async def show_version(model: ModelName, version: VersionName, request: Request) -> VersionStatus:
    """Return a version's state, gates with their evidence, signature and reasons."""
    for status in known_model(request, model).versions:
        if status.version == version:
            return status
    raise UnknownVersion(f"'{model}' has no version {version[:120]!r}; GET /models/{model} lists the ones there are")


@router.get("/models/{model}/rollout", summary="How a new version takes over", responses=problems_of(404))
async def show_rollout(model: ModelName, request: Request) -> RolloutStatus:
    """Return how new versions of a model take over, the rollout that is under way, and how the last one ended."""
    found = known_model(request, model).rollout
    if found is not None:
        return found
    return RolloutStatus(model=model, strategy=services_of(request.app).settings.rollout_of(model).strategy)


@router.get("/models/{model}/history", summary="What happened to a model", responses=problems_of(404, 422, 503))
async def show_history(
    model: ModelName,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries in the answer")] = 100,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID, description="only entries with a smaller id")] = None,
) -> History:
    """Return transitions and operator calls, newest first; they survive restarts."""
    known_model(request, model)
    entries = await services_of(request.app).operator.history(HistoryQuery(model, limit=limit, before_id=before))
    return History(model=model, history=entries, before=entries[-1].id if len(entries) == limit else None)


def known_model(request: Request, name: str) -> ModelStatus:
    """Return the status of a model; raises UnknownModel."""
    return known_in(request.app.state.status, name)


def known_in(status: Status, name: str) -> ModelStatus:
    """Return the status of a model; raises UnknownModel."""
    model = status.models.get(name)
    if model is None:
        raise UnknownModel.for_name(name)
    return model


def find_sandbox(status: Status) -> Sandbox | None:
    """Return the layers that held every host of what is loaded, None while nothing is."""
    held = [
        version.sandbox
        for model in status.models.values()
        for version in model.versions
        if version.is_loaded and version.sandbox is not None
    ]
    return reduce(Sandbox.intersect, held) if held else None


def _with_versions(model: ModelStatus) -> ModelVersions:
    summary = {name: getattr(model, name) for name in ModelSummary.model_fields}
    versions = tuple(VersionSummary.of(version) for version in model.versions)
    return ModelVersions(**summary, rollout=RolloutSummary.of(model.rollout), versions=versions)

"""The routes under ``/v2`` that read: the server, its health, and each model's readiness, tensors and statistics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.api.absence import find_explained
from serving.api.models import ModelName, VersionName, known_model
from serving.api.oip.oip_refusals import errors_of
from serving.api.oip.oip_schemas import (
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    Ready,
    ServerLive,
    ServerMetadata,
    Statistics,
    TensorMetadata,
)
from serving.api.oip.specs import Spec, inputs_of, outputs_of
from serving.api.services import services_of
from serving.domain.errors import UnknownVersion
from serving.domain.status import Status
from serving.plane.active_reference import ModelReference, find, read
from serving.plane.servable import Servable

EXTENSIONS = ("binary_tensor_data", "model_repository", "statistics")
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": ModelReady, "description": "Known, and not ready."}}

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


@router.get("", summary="The server")
async def server(request: Request) -> ServerMetadata:
    """List the extensions of the protocol that this server has."""
    return ServerMetadata(name=request.app.title, version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live", summary="Does the process run?")
async def live() -> ServerLive:
    """Answer 200 for as long as the process can answer at all."""
    return ServerLive()


@router.get("/health/ready", summary="Can requests be answered?", responses={503: {"model": Ready}})
async def ready(request: Request, response: Response) -> Ready:
    """Answer the same as ``GET /health/ready``."""
    status: Status = request.app.state.status
    response.status_code = 200 if status.is_ready else 503
    return Ready(ready=status.is_ready)


@router.get("/models/stats", summary="Statistics of every loaded version")
async def all_statistics(request: Request) -> Statistics:
    """Count since a version was loaded; see the documentation for what is not measured."""
    active = read(request.app.state)
    loaded = [servable for _, model in sorted(active.models.items()) for servable in model.loaded.values()]
    return await _statistics(request, loaded)


@router.get("/models/{model}/stats", summary="Statistics of a model", responses=errors_of(404))
async def model_statistics(model: ModelName, request: Request) -> Statistics:
    """Count since a version was loaded; of every loaded version of the model."""
    known_model(request, model)
    return await _statistics(request, list(_reference(request, model).loaded.values()))


@router.get("/models/{model}/versions/{version}/stats", summary="Statistics of a version", responses=errors_of(404))
async def version_statistics(model: ModelName, version: VersionName, request: Request) -> Statistics:
    """Count since the version was loaded."""
    return await _statistics(request, [find(request.app.state, model, version)])


@router.get("/models/{model}/ready", summary="Can a model answer?", responses=errors_of(404) | NOT_READY)
async def model_ready(model: ModelName, request: Request, response: Response) -> ModelReady:
    """Answer 200 while a version is active."""
    known_model(request, model)
    return _readiness(response, model, _reference(request, model).active)


@router.get(
    "/models/{model}/versions/{version}/ready", summary="Can a version answer?", responses=errors_of(404) | NOT_READY
)
async def version_ready(model: ModelName, version: VersionName, request: Request, response: Response) -> ModelReady:
    """Answer 200 while the version is loaded, active or not."""
    known = known_model(request, model)
    servable = _reference(request, model).loaded.get(version)
    if servable is None and version not in {one.version for one in known.versions}:
        raise UnknownVersion(f"'{model}' has no version '{version}'")
    return _readiness(response, model, servable)


@router.get("/models/{model}", summary="The tensors of a model", responses=errors_of(404, 503))
async def model_metadata(model: ModelName, request: Request, response: Response) -> ModelMetadata:
    """Describe inputs and outputs of the active version."""
    return _metadata(request, response, find_explained(request.app.state, model))


@router.get("/models/{model}/versions/{version}", summary="The tensors of a version", responses=errors_of(404))
async def version_metadata(
    model: ModelName, version: VersionName, request: Request, response: Response
) -> ModelMetadata:
    """Describe inputs and outputs of a loaded version."""
    return _metadata(request, response, find(request.app.state, model, version))


def _reference(request: Request, model: str) -> ModelReference:
    active = read(request.app.state)
    return active.models.get(model, ModelReference())


def _readiness(response: Response, model: str, servable: Servable | None) -> ModelReady:
    if servable is None:
        response.status_code = 503
    else:
        _name(response, servable)
    return ModelReady(name=model, ready=servable is not None)


def _metadata(request: Request, response: Response, servable: Servable) -> ModelMetadata:
    _name(response, servable)
    name = servable.id.model
    return ModelMetadata(
        name=name,
        versions=tuple(_reference(request, name).loaded),
        platform=servable.engine.name,
        inputs=tuple(map(_tensor, inputs_of(servable.signature))),
        outputs=tuple(map(_tensor, outputs_of(servable.signature))),
    )


def _tensor(spec: Spec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _name(response: Response, servable: Servable) -> None:
    response.headers["x-model-name"] = servable.id.model
    response.headers["x-model-version"] = servable.id.version


async def _statistics(request: Request, servables: list[Servable]) -> Statistics:
    counts = services_of(request.app).counts
    return Statistics(
        model_stats=tuple(
            [
                ModelStatistics.of(one.id.model, one.id.version, found)
                for one in servables
                for found in await counts.sum_of(one.id.model, [one.id.version])
            ]
        )
    )

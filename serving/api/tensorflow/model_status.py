"""The status of a model in TensorFlow Serving's form: the states of its versions, and the signature of one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.api.absence import find_explained
from serving.api.models import ModelName, VersionName, known_model
from serving.api.tensorflow.tensorflow_refusals import version_of
from serving.api.tensorflow.tensorflow_schemas import (
    TensorflowMetadata,
    TensorflowOutcome,
    TensorflowSpec,
    TensorflowVersion,
    TensorflowVersions,
    errors,
)
from serving.domain.errors import UnknownVersion
from serving.domain.signature import Dtype, Method, Signature
from serving.domain.state import State
from serving.domain.status import VersionStatus
from serving.plane.servable import Servable

READING: dict[str, Any] = {"tags": ["tensorflow"], "responses": errors(400, 401, 403, 404, 503)}
METHOD_NAME = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"

_DTYPES = {
    Dtype.NUMBER: "DT_DOUBLE",
    Dtype.STRING: "DT_STRING",
    Dtype.BOOL: "DT_BOOL",
    Dtype.ANY: "DT_VARIANT",
}
_LOADING = ("LOADING", "OK")
# The state of a version in TensorFlow Serving, and the error code that comes with it.
_STATES = {
    State.DISCOVERED: ("START", "OK"),
    State.STAGING: ("START", "OK"),
    State.LOADING: _LOADING,
    State.VALIDATING: _LOADING,
    State.WARMING: _LOADING,
    State.READY: ("AVAILABLE", "OK"),
    State.SHADOW: ("AVAILABLE", "OK"),
    State.CANARY: ("AVAILABLE", "OK"),
    State.ACTIVE: ("AVAILABLE", "OK"),
    State.DRAINING: ("UNLOADING", "OK"),
    State.RETIRED: ("END", "OK"),
    State.REJECTED: ("END", "FAILED_PRECONDITION"),
    State.FAILED: ("END", "UNAVAILABLE"),
    State.QUARANTINED: ("END", "ABORTED"),
}

router = APIRouter(prefix="/v1/models")


@router.get("/{model}", summary="States of a model's versions", **READING)
async def tensorflow_status(model: ModelName, request: Request) -> TensorflowVersions:
    """List the state of every version, as GetModelStatus of TensorFlow Serving."""
    return TensorflowVersions(model_version_status=tuple(map(_state_of, known_model(request, model).versions)))


@router.get("/{model}/versions/{version}", summary="State of a version", **READING)
async def tensorflow_version_status(model: ModelName, version: VersionName, request: Request) -> TensorflowVersions:
    """Return the state of one version."""
    return _status_of(request, model, version)


@router.get("/{model}/labels/{label}", summary="State of a labelled version", **READING)
async def tensorflow_label_status(model: ModelName, label: VersionName, request: Request) -> TensorflowVersions:
    """Return the state of the version with a label."""
    return _status_of(request, model, _found(request, model, {"label": label}).id.version)


@router.get("/{model}/metadata", summary="Signature of a model", **READING)
async def tensorflow_metadata(model: ModelName, request: Request, response: Response) -> TensorflowMetadata:
    """Describe inputs and outputs of the active version, one signature for each method."""
    return _metadata(_found(request, model, {}), response)


@router.get("/{model}/versions/{version}/metadata", summary="Signature of a version", **READING)
async def tensorflow_version_metadata(
    model: ModelName, version: VersionName, request: Request, response: Response
) -> TensorflowMetadata:
    """Describe inputs and outputs of a loaded version."""
    return _metadata(_found(request, model, {"version": version}), response)


@router.get("/{model}/labels/{label}/metadata", summary="Signature of a labelled version", **READING)
async def tensorflow_label_metadata(
    model: ModelName, label: VersionName, request: Request, response: Response
) -> TensorflowMetadata:
    """Describe inputs and outputs of the version with a label."""
    return _metadata(_found(request, model, {"label": label}), response)


def _found(request: Request, model: str, params: dict[str, str]) -> Servable:
    """Return the servable that answers now; valid until the loop turns."""
    return find_explained(request.app.state, model, version_of(params))


def _status_of(request: Request, model: str, version: str) -> TensorflowVersions:
    for one in known_model(request, model).versions:
        if one.version == version:
            return TensorflowVersions(model_version_status=(_state_of(one),))
    raise UnknownVersion(f"'{model}' has no version {version!r}; GET /v1/models/{model} lists the ones there are")


def _state_of(version: VersionStatus) -> TensorflowVersion:
    state, code = _STATES[version.state]
    if version.state is State.READY and not version.is_loaded:  # it has passed, and is not in the reference yet
        state, code = _LOADING
    message = "" if code == "OK" else (version.reason or "")
    return TensorflowVersion(
        version=version.version,
        state=state,
        status=TensorflowOutcome(error_code=code, error_message=message),
    )


def _metadata(servable: Servable, response: Response) -> TensorflowMetadata:
    response.headers["X-Model-Name"] = servable.id.model
    response.headers["X-Model-Version"] = servable.id.version
    signature = servable.signature
    names: dict[str, Method] = {DEFAULT_SIGNATURE: signature.default_method}
    names.update((method, method) for method in signature.methods)
    inputs = {feature.name: _tensor(feature.name, _DTYPES[feature.dtype]) for feature in signature.features}
    definitions = {
        name: {"inputs": inputs, "outputs": {method: _output(signature, method)}, "method_name": METHOD_NAME}
        for name, method in names.items()
    }
    return TensorflowMetadata(
        model_spec=TensorflowSpec(name=servable.id.model, version=servable.id.version),
        metadata={"signature_def": {"signature_def": definitions}},
    )


def _output(signature: Signature, method: Method) -> dict[str, Any]:
    outputs = signature.classes or ()
    if method == "predict":
        is_text = any(isinstance(label, str) for labels in outputs for label in labels)
        return _tensor(
            method, "DT_STRING" if is_text else "DT_DOUBLE", *([signature.outputs] * (signature.outputs > 1))
        )
    if method == "score_samples":
        return _tensor(method, "DT_DOUBLE")
    if method.startswith("predict_") and len(outputs) == 1:
        return _tensor(method, "DT_DOUBLE", len(outputs[0]))
    return {"dtype": "DT_DOUBLE", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": method}


def _tensor(name: str, dtype: str, *lengths: int) -> dict[str, Any]:
    dimensions = [{"size": str(length), "name": ""} for length in (-1, *lengths)]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}

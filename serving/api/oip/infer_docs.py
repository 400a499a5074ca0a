"""The documentation of the routes that answer predictions, with examples that the model `iris` answers as shown."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serving.api.oip.oip_refusals import errors_of
from serving.api.oip.oip_schemas import InferRequest, InferResponse
from serving.api.openapi import BINARY, REF, answered, parameters_of
from serving.api.paths import OPEN_INFERENCE
from serving.api.routes import add_prediction

COMPONENTS = (InferRequest, InferResponse)

_INPUT = {"name": "input", "datatype": "FP64", "shape": [2, 4], "data": [5.1, 3.5, 1.4, 0.2, 6.2, 2.9, 4.3, 1.3]}
_PATHS = (
    ("/v2/models/{model}/infer", "infer", "Ask a model"),
    ("/v2/models/{model}/versions/{version}/infer", "infer_version", "Ask one version of a model"),
)
REQUESTS: dict[str, Any] = {
    "one tensor": {"id": "1", "inputs": [_INPUT]},
    "one tensor for each feature": {
        "inputs": [
            {"name": f"x{place}", "datatype": "FP64", "shape": [1, 1], "data": [value]}
            for place, value in enumerate((5.1, 3.5, 1.4, 0.2))
        ]
    },
    "several outputs": {"inputs": [_INPUT], "outputs": [{"name": "predict"}, {"name": "predict_proba"}]},
}
_ANSWER = {
    "model_name": "iris",
    "model_version": "2",
    "id": "1",
    "outputs": [{"name": "predict", "datatype": "INT64", "shape": [2], "data": [0, 1]}],
}


def add_routes(app: FastAPI) -> None:
    """Add the routes that answer predictions of this protocol, with their documentation."""
    for path, name, summary in _PATHS:
        add_prediction(
            app,
            OPEN_INFERENCE,
            path,
            name,
            summary=summary,
            description="The Open Inference Protocol over REST; outputs are named by the model's methods.",
            tags=["open inference protocol"],
            responses=_responses(),
            openapi_extra=_details(path),
        )


def _responses() -> dict[int | str, dict[str, Any]]:
    json = {"schema": {"$ref": REF.format(model="InferResponse")}, "example": _ANSWER}
    answer = answered(
        {"application/json": json, "application/octet-stream": BINARY},
        "What the named version computed; with blobs behind the JSON where they were asked for.",
    )
    return {**answer, **errors_of(400, 401, 403, 404, 408, 413, 415, 500, 503, 504)}


def _details(path: str) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in REQUESTS.items()}
    schema = {"$ref": REF.format(model="InferRequest")}
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"parameters": parameters_of(path), "requestBody": {"required": True, "content": content}}

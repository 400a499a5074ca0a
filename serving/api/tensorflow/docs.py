"""The documentation of the prediction routes of TensorFlow Serving's interface."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from serving.api.endpoint import Endpoint
from serving.api.openapi import REF
from serving.api.routes import add_prediction
from serving.api.tensorflow.schemas import TensorflowAnswer, TensorflowExamples, TensorflowPredict, errors

COMPONENTS: tuple[type[BaseModel], ...] = (TensorflowPredict, TensorflowExamples, TensorflowAnswer)
STATUSES = (400, 401, 403, 404, 408, 413, 500, 503, 504)

_ROW = {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "predict": {"instances": [[5.1, 3.5, 1.4, 0.2]]},
    "classify": {"examples": [_ROW]},
    "regress": {"examples": [_ROW]},
}
_SUMMARIES = {
    "predict": "Ask a model, as TensorFlow Serving is asked",
    "classify": "Ask for a label and a score of each class",
    "regress": "Ask for one number for each example",
}
_PLACES = (("", "model"), ("/versions/{version}", "version"), ("/labels/{label}", "label"))


def add_routes(app: FastAPI, endpoints: dict[str, Endpoint]) -> None:
    """Add the routes of each verb in `endpoints`: for the active version, for a version and for a label."""
    for verb, endpoint in endpoints.items():
        for place, what in _PLACES:
            path = "/v1/models/{model}" + place + ":" + verb
            name = f"tensorflow_{verb}" + ("" if what == "model" else f"_{what}")
            add_prediction(
                app,
                endpoint,
                path,
                name=name,
                operation_id=name,
                summary=_SUMMARIES[verb],
                description="After TensorFlow Serving's REST interface. Any content type is read as JSON.",
                tags=["tensorflow"],
                responses=_responses(),
                openapi_extra=_details(verb, place),
            )


def _responses() -> dict[int | str, dict[str, Any]]:
    text = {"schema": {"type": "string"}}
    answer = {
        "description": "What the named version computed.",
        "headers": {"X-Model-Name": text, "X-Model-Version": text, "X-Request-Id": text},
        "content": {"application/json": {"schema": {"$ref": REF.format(model=TensorflowAnswer.__name__)}}},
    }
    return {200: answer, **errors(*STATUSES)}


def _details(verb: str, place: str) -> dict[str, Any]:
    given = [("model", "iris"), ("version", "2"), ("label", "stable")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}
        for name, example in given
        if name == "model" or f"{{{name}}}" in place
    ]
    kind = TensorflowPredict if verb == "predict" else TensorflowExamples
    content = {"application/json": {"schema": {"$ref": REF.format(model=kind.__name__)}, "example": _EXAMPLES[verb]}}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}

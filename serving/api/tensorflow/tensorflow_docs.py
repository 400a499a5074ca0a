"""The documentation of the prediction routes of TensorFlow Serving's interface."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from serving.api.openapi import REF, answered, parameters_of
from serving.api.paths import TENSORFLOW
from serving.api.routes import add_prediction
from serving.api.tensorflow.tensorflow_schemas import TensorflowAnswer, TensorflowExamples, TensorflowPredict, errors

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


def add_routes(app: FastAPI) -> None:
    """Add the routes of each verb: for the active version, for a version and for a label."""
    for verb, protocol in TENSORFLOW.items():
        for place, what in _PLACES:
            path = "/v1/models/{model}" + place + ":" + verb
            name = f"tensorflow_{verb}" + ("" if what == "model" else f"_{what}")
            add_prediction(
                app,
                protocol,
                path,
                name,
                summary=_SUMMARIES[verb],
                description="After TensorFlow Serving's REST interface. Any content type is read as JSON.",
                tags=["tensorflow"],
                responses=_responses(),
                openapi_extra=_details(verb, path),
            )


def _responses() -> dict[int | str, dict[str, Any]]:
    json = {"schema": {"$ref": REF.format(model=TensorflowAnswer.__name__)}}
    return {**answered({"application/json": json}), **errors(*STATUSES)}


def _details(verb: str, path: str) -> dict[str, Any]:
    kind = TensorflowPredict if verb == "predict" else TensorflowExamples
    content = {"application/json": {"schema": {"$ref": REF.format(model=kind.__name__)}, "example": _EXAMPLES[verb]}}
    return {"parameters": parameters_of(path), "requestBody": {"required": True, "content": content}}

"""The documentation of the prediction routes, with examples that the demo model `iris` answers as shown."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serving.api.formats import CSV, FORMATS
from serving.api.openapi import BINARY, REF, TEXT, answered, parameters_of, problems_of
from serving.domain.signature import METHODS, Method

Cell = float | str | bool | None
Row = Annotated[
    list[Cell] | dict[str, Cell] | str,
    Field(description="values in the order of the features, or by feature name in any order; for texts a string"),
]


class PredictBody(BaseModel):
    """Either `instances`, for many rows, or `input`, for one; all rows in one form."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["instances"]}, {"required": ["input"]}]}
    )

    instances: list[Row] = Field([], min_length=1, description="the rows")
    input: Row = Field("", description="a single row")
    method: Method | None = Field(None, description="what to ask the model for; its first method when left out")


class Predictions(BaseModel):
    """Answer to `instances`: one entry for each row, in order."""

    model: str = Field(description="the model that was asked")
    version: str = Field(description="the version that computed the answer")
    predictions: list[JsonValue] = Field(description="a value, or an array of values, per row; not finite: null")


class SinglePrediction(BaseModel):
    """Answer to `input`."""

    model: str = Field(description="the model that was asked")
    version: str = Field(description="the version that computed the answer")
    prediction: JsonValue = Field(description="a value or an array of values; not finite: null")


class DocumentedOperation(NamedTuple):
    """One prediction route, as FastAPI documents it."""

    path: str
    name: str
    summary: str
    description: str


OPERATIONS = (
    DocumentedOperation(
        "/models/{model}/predict", "predict", "Ask a model", "Answered by the active version; the answer names it."
    ),
    DocumentedOperation(
        "/models/{model}/versions/{version}/predict",
        "predict_version",
        "Ask one version of a model",
        "Any version that is still loaded: the active one, those kept warm for a rollback and those with labels.",
    ),
    DocumentedOperation(
        "/models/{model}/labels/{label}/predict",
        "predict_label",
        "Ask the version with a label",
        "A label is an operator's name for a version, which stays loaded as long as it has one.",
    ),
    DocumentedOperation(
        "/predict",
        "predict_default",
        "Ask the default model",
        "The model named by `server.default_model`, or the only one there is.",
    ),
)
COMPONENTS = (PredictBody, Predictions, SinglePrediction)

_ROWS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]]
REQUESTS: dict[str, Any] = {
    "rows as arrays": {"instances": _ROWS},
    "rows as objects": {"instances": [{"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}]},
    "a single row": {"input": _ROWS[0]},
    "probabilities": {"instances": _ROWS[:1], "method": "predict_proba"},
}
CSV_ROWS = "x0,x1,x2,x3\r\n5.1,3.5,1.4,0.2\r\n6.2,2.9,4.3,1.3\r\n"
ANSWERS: dict[str, Any] = {
    "rows as arrays": {"model": "iris", "version": "2", "predictions": [0, 1]},
    "rows as objects": {"model": "iris", "version": "2", "predictions": [0]},
    "a single row": {"model": "iris", "version": "2", "prediction": 0},
    "probabilities": {"model": "iris", "version": "2", "predictions": [[0.98493, 0.01507, 0.0]]},
}


def responses() -> dict[int | str, dict[str, Any]]:
    """Return everything a prediction route may answer."""
    schema = {"anyOf": [_ref(Predictions), _ref(SinglePrediction)]}
    json = {"application/json": {"schema": schema, "examples": _named(ANSWERS)}}
    answer = answered(json | _forms("predict\r\n0\r\n1\r\n"))
    return {**answer, **problems_of(400, 404, 406, 408, 413, 415, 422, 500, 503, 504)}


def details(path: str) -> dict[str, Any]:
    """Return the parameters and the body of a prediction route."""
    parameters = parameters_of(path)
    parameters.append(
        {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            "description": "Comes back in the answer and in the log; one is made when it is left out.",
        }
    )
    parameters.append(
        {
            "name": "method",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "enum": list(METHODS)},
            "description": "What to ask the model for, where the body has no place for it.",
        }
    )
    content = {"application/json": {"schema": _ref(PredictBody), "examples": _named(REQUESTS)}} | _forms(CSV_ROWS)
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def _forms(lines: str) -> dict[str, Any]:
    """Return the documentation of the other forms than JSON; `lines` are an example of CSV."""
    text = {**TEXT, "example": lines}
    return {media_type: text if form is CSV else BINARY for media_type, form in FORMATS.items()}


def _ref(kind: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=kind.__name__)}


def _named(examples: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}

"""The documentation of the scoring routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serving.api.mlflow.mlflow_refusals import BAD_REQUEST, CODES
from serving.api.mlflow.scoring_body import FORMS
from serving.api.openapi import BINARY, REF, TEXT, answered, errors_of, parameters_of
from serving.api.paths import MLFLOW
from serving.api.routes import add_prediction


class SplitFrame(BaseModel):
    """A data frame in pandas' orientation `split`."""

    columns: list[str | int] | None = None
    index: list[JsonValue] | None = Field(None, description="not read")
    data: list[list[JsonValue]]


class ScoringParams(BaseModel):
    """Parameters of a call; others are ignored."""

    method: str | None = Field(None, description="what to ask the model for, such as predict_proba")


class ScoringBody(BaseModel):
    """Rows in exactly one of four layouts."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [form]} for form in FORMS]})

    dataframe_split: SplitFrame = Field(default_factory=lambda: SplitFrame(data=[]))
    dataframe_records: list[dict[str, JsonValue]] = Field([])
    instances: list[JsonValue] = Field([], description="rows: arrays, or objects by feature name")
    inputs: list[JsonValue] | dict[str, list[JsonValue]] = Field([], description="rows, or columns by feature name")
    params: ScoringParams | None = None


class ScoringAnswer(BaseModel):
    """One entry for each row, in order."""

    predictions: list[JsonValue]


COMPONENTS: tuple[type[BaseModel], ...] = (ScoringBody, ScoringAnswer)
STATUSES = (400, 401, 403, 404, 406, 408, 413, 415, 500, 503, 504)

_OPERATIONS = (
    ("/invocations", "invoke", "Ask the default model (MLflow, SageMaker)"),
    ("/models/{model}/invocations", "invoke_model", "Ask a model as MLflow's scoring server is asked"),
)
_EXAMPLE = {"dataframe_split": {"columns": ["x0", "x1", "x2", "x3"], "data": [[5.1, 3.5, 1.4, 0.2]]}}


def add_routes(app: FastAPI) -> None:
    """Add the routes of scoring."""
    for path, name, summary in _OPERATIONS:
        add_prediction(
            app,
            MLFLOW,
            path,
            name,
            summary=summary,
            description="After MLflow's scoring server. Columns are found by name; unknown columns are ignored.",
            tags=["mlflow"],
            responses=_responses(),
            openapi_extra=_details(path),
        )


def _responses() -> dict[int | str, dict[str, Any]]:
    json = {"schema": {"$ref": REF.format(model=ScoringAnswer.__name__)}}
    answer = answered({"application/json": json, "text/csv": TEXT, "application/x-npy": BINARY})
    errors = errors_of(
        lambda detail, status: {"error_code": CODES.get(status, BAD_REQUEST), "message": detail}, *STATUSES
    )
    return {**answer, **errors}


def _details(path: str) -> dict[str, Any]:
    json = {"schema": {"$ref": REF.format(model=ScoringBody.__name__)}, "example": _EXAMPLE}
    content = {
        "application/json": json,
        "text/csv": {**TEXT, "example": "x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n"},
        "application/x-npy": BINARY,
    }
    return {"parameters": parameters_of(path), "requestBody": {"required": True, "content": content}}

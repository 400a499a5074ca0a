"""The JSON of TensorFlow Serving's REST interface: bodies for the documentation, the rest also to answer with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serving.api.openapi import errors_of

Value = JsonValue


class Frozen(BaseModel):
    """Base of all answers. The format has fields called ``model_...``."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class TensorflowPredict(BaseModel):
    """Body of ``:predict``: rows in one of two layouts."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}]})

    signature_name: str | None = Field(None, description="a method, such as predict_proba", examples=["predict_proba"])
    instances: list[Value] = Field([], description="rows: arrays, objects by feature name, or scalars")
    inputs: list[Value] | dict[str, list[Value]] = Field([], description="rows, or columns by feature name")


class TensorflowExamples(BaseModel):
    """Body of ``:classify`` and ``:regress``."""

    signature_name: str | None = None
    context: dict[str, Value] = Field({}, description="features all examples share")
    examples: list[dict[str, Value]] = Field(description="values by feature name")


class TensorflowAnswer(BaseModel):
    """The answer: `predictions` for instances, `outputs` for inputs, `results` for examples."""

    predictions: list[Value] | None = None
    outputs: list[Value] | None = None
    results: list[Value] | None = None


class TensorflowOutcome(Frozen):
    """Why a version is in its state; the codes are those of gRPC."""

    error_code: str
    error_message: str


class TensorflowVersion(Frozen):
    """The state of one version."""

    version: str
    state: Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
    status: TensorflowOutcome


class TensorflowVersions(Frozen):
    """The states of a model's versions, newest first."""

    model_version_status: tuple[TensorflowVersion, ...]


class TensorflowSpec(Frozen):
    """The version that is described."""

    name: str
    signature_name: str = ""
    version: str


class TensorflowMetadata(Frozen):
    """Inputs and outputs by signature, which are the methods of the model and ``serving_default``."""

    model_spec: TensorflowSpec
    metadata: dict[str, Any]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors in this protocol's shape."""
    return errors_of(lambda detail, _: {"error": detail}, *statuses)

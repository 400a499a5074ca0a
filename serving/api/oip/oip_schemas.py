"""The JSON of the protocol: the answers of the routes, and the bodies in their documentation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from serving.telemetry.traffic import Traffic

Shape = tuple[int, ...]
Parameters = dict[str, JsonValue]


class Document(BaseModel):
    """Base of all documents: frozen, and fields may begin with ``model_``, as they do in the protocol."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ServerMetadata(Document):
    """The server, its version, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ServerLive(Document):
    """The process runs."""

    live: bool = True


class Ready(Document):
    """Whether requests can be answered."""

    ready: bool


class ModelReady(Document):
    """Whether a model or a version can answer."""

    name: str
    ready: bool


class TensorMetadata(Document):
    """One tensor; -1 in its shape is any size."""

    name: str
    datatype: str
    shape: Shape


class ModelMetadata(Document):
    """Inputs and outputs of a model; `versions` are the loaded ones, `platform` is what computes."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class InputTensor(Document):
    """Values in row-major order, flat or nested, or `binary_data_size` in the parameters and a blob behind the JSON."""

    name: str
    datatype: str = Field(description="BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64 or BYTES")
    shape: list[int] = Field(min_length=1, max_length=2)
    parameters: Parameters = {}
    data: list[JsonValue] | None = None


class RequestedOutput(Document):
    """An output by the name of a method; the parameter `binary_data` asks for a blob."""

    name: str
    parameters: Parameters = {}


class InferRequest(Document):
    """One tensor [rows, features] of any name, or one tensor for each feature by its name."""

    id: str = ""
    parameters: Parameters = {}
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = []


class OutputTensor(Document):
    """The answer of one method. Numbers that are not finite are null; in a blob they are sent as they are."""

    name: str
    datatype: str
    shape: Shape
    parameters: Parameters = {}
    data: list[JsonValue] | None = None


class InferResponse(Document):
    """The answer of one version to one request."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class IndexRequest(Document):
    """Which versions to list."""

    ready: bool = False


class IndexEntry(Document):
    """One version in the store or loaded. `state` is UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING."""

    name: str
    version: str
    state: str
    reason: str


class LoadRequest(Document):
    """The body of ``load`` and ``unload``, which may be left out."""

    parameters: Parameters = {}


class Duration(Document):
    """How often something was done, and the total time of it."""

    count: int = 0
    ns: int = 0


class InferStatistics(Document):
    """Requests by outcome. The time of failures is not measured apart: `success` has all of it.

    The steps of a request are not measured and are 0.
    """

    success: Duration
    fail: Duration
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStatistics(Document):
    """One version: `inference_count` counts rows; `last_inference` and `execution_count` are not measured and 0."""

    name: str
    version: str
    last_inference: int = 0
    inference_count: int
    execution_count: int = 0
    inference_stats: InferStatistics
    batch_stats: tuple[JsonValue, ...] = ()

    @classmethod
    def of(cls, model: str, version: str, traffic: Traffic) -> ModelStatistics:
        """Return the statistics of what was counted of one version."""
        succeeded = traffic.statuses.get(200, 0)
        failed = sum(traffic.statuses.values()) - succeeded
        stats = InferStatistics(
            success=Duration(count=succeeded, ns=int(traffic.seconds * 1e9)), fail=Duration(count=failed)
        )
        return cls(name=model, version=version, inference_count=traffic.rows, inference_stats=stats)


class Statistics(Document):
    """Every version that was asked for."""

    model_stats: tuple[ModelStatistics, ...]

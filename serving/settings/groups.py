"""Defines the settings by group, with defaults and limits. Field names are the keys of ``settings.toml``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from serving.domain.environment_names import why_not_an_environment_name
from serving.domain.provenance import InvalidSignature, parse_public_key
from serving.domain.server_names import why_not_a_server_name
from serving.domain.version import why_not_a_name
from serving.settings.token_digest import TokenDigest


def _split_list(value: Any) -> Any:
    """Split a text that is a JSON list or separated by commas; pydantic judges every other value."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _require_server_name(text: str) -> str:
    why = why_not_a_server_name(text)
    if why is not None:
        raise PydanticCustomError(
            "server_name", "should hold names of this server: {name} {why}", {"name": repr(text[:60]), "why": why}
        )
    return text


def _require_public_key(text: str) -> str:
    """Return `text` if it is a public key: so a wrong key stops the start, not the first version that needs it."""
    try:
        parse_public_key(text)
    except InvalidSignature as error:
        expected = "should hold public keys as 'serving keygen' prints them: {reason}"
        raise PydanticCustomError("public_key", expected, {"reason": str(error)}) from None
    return text


def _require_environment_name(text: str) -> str:
    why = why_not_an_environment_name(text)
    if why is not None:
        raise PydanticCustomError("table_name", "{why}; choose another name", {"why": why})
    return text


def _require_model_name(text: str) -> str:
    why = why_not_a_name(text)
    if why is not None:
        raise PydanticCustomError("table_name", "no model is called that: {why}", {"why": why})
    return text


def _require_growth(steps: tuple[float, ...]) -> tuple[float, ...]:
    if not steps or list(steps) != sorted(set(steps)):
        raise PydanticCustomError("steps", "should hold one share or more, each larger than the one before")
    return steps


_STICKY = re.compile(r"header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}|field:[^\x00-\x1f]{1,200}")


def _require_sticky(text: str) -> str:
    if not _STICKY.fullmatch(text):
        raise PydanticCustomError("sticky", "should be header:NAME or field:NAME")
    return text


def _require_http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not text.isprintable() or " " in text:
        raise PydanticCustomError("http_url", "should be an http:// or https:// address")
    return text


HttpUrlText = Annotated[str, AfterValidator(_require_http_url)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Percents = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=100)], ...],
    NoDecode,
    BeforeValidator(_split_list),
    AfterValidator(_require_growth),
]
Sticky = Annotated[str, AfterValidator(_require_sticky)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
ServerNameTexts = Annotated[
    tuple[Annotated[str, AfterValidator(_require_server_name)], ...], NoDecode, BeforeValidator(_split_list)
]
PublicKeys = Annotated[
    tuple[Annotated[str, AfterValidator(_require_public_key)], ...], NoDecode, BeforeValidator(_split_list)
]


class Group(BaseModel):
    """Base of all groups: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerSettings(Group):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    hosts: ServerNameTexts = Field(
        (), description="names a request may be addressed to; none: loopback names on a loopback address, else any"
    )
    default_model: str | None = Field(None, description="the model POST /predict asks; the only one when not set")
    drain_seconds: NotNegative = Field(30.0, description="how long a stop waits for requests in flight")
    lame_duck_seconds: NotNegative = Field(0.0, description="how long a stop is announced by /health/ready first")
    fail_fast: bool = Field(False, description="exit when no model is active after the first pass")
    header_seconds: Positive = Field(10.0, description="how long a request's head may take; also the first byte")
    body_seconds: Positive = Field(30.0, description="how long a request's body may take")
    idle_seconds: Positive = Field(75.0, description="how long a connection is kept without a request")
    max_connections: int = Field(10_000, ge=0, description="most open connections, beyond that 503; 0: as many as fit")
    max_header_kb: float = Field(32.0, ge=1, le=1024, description="largest request line and headers together")
    max_body_mb: Positive = Field(16.0, description="largest request body")
    max_inflight_mb: Positive = Field(
        256.0, description="most bytes of request bodies in memory at once, of all clients together"
    )
    max_json_depth: int = Field(16, ge=3, le=100, description="most levels of nesting in a body")
    max_rows: Count = Field(100_000, description="most rows in one request")
    predict_seconds: Positive = Field(30.0, description="deadline of one prediction")
    max_queue: Count = Field(256, description="most requests waiting for one model; beyond that 503")
    docs: bool = Field(True, description="serve /docs, /redoc and /openapi.json")
    ui: Literal["off", "read", "admin"] = Field(
        "admin", description="the page under /ui/: off, without operator calls, or with them for those with the token"
    )
    max_streams: Count = Field(100, description="most open streams of events in each worker; beyond that 503")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="port that alone serves operator calls, metrics, docs, history and the page"
    )
    admin_host: str = Field("127.0.0.1", description="address to listen on for admin_port")
    grpc_port: int | None = Field(None, ge=0, le=65535, description="port for gRPC, on host; needs the extra grpc")
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        1, description="processes that answer requests; auto: one for each core (Linux)"
    )
    worker_seconds: Positive = Field(
        10.0, description="how long a worker may stand, or take for a swap, until it is replaced"
    )
    grpc_max_mb: Positive | None = Field(None, lt=2048, description="largest gRPC message; not set: max_body_mb")


class StoreSettings(Group):
    """The model directory."""

    path: Path = Field(Path("model_store"), description="the model directory")
    watch: Literal["auto", "events", "poll"] = Field("auto", description="how changes are noticed")
    settle_seconds: NotNegative = Field(
        0.5, description="how long files without a manifest, and removals, must be quiet"
    )
    resync_seconds: Positive = Field(30.0, description="how often the store is looked at without any event")
    poll_seconds: Positive = Field(1.0, description="how often it is looked at when events do not arrive")
    ignore: Names = Field((), description="glob patterns of names that do not exist")
    keep_warm: int = Field(1, ge=0, description="previous versions kept loaded for rollback, per model")
    max_models: Count = Field(1000, description="most models in the store")
    max_versions: Count = Field(1000, description="most versions of one model")
    max_artifact_mb: Positive = Field(8192.0, description="largest version")
    uploads: bool = Field(False, description="let operators publish versions over HTTP")


class StateSettings(Group):
    """Where the service keeps what must survive a restart."""

    path: Path = Field(Path(".serving"), description="cache and database; private to one server")
    cache_mb: Positive = Field(20480.0, description="most bytes of cached artefacts; loaded ones are never evicted")
    cache_versions: Count = Field(3, description="most cached versions per model; loaded ones are never evicted")
    history_rows: Count = Field(100_000, description="transitions kept in the history")


class CandidateSettings(Group):
    """How candidates are evaluated."""

    timeout_seconds: Positive = Field(120.0, description="deadline of one evaluation, from load to warm-up")
    memory_mb: Positive = Field(4096.0, description="most memory a host may take beyond its imports")
    max_expansion: Positive = Field(
        200.0, description="how many times larger a compressed file may become (over 64 MB)"
    )
    concurrency: Count = Field(2, description="candidates evaluated at once")
    retry_seconds: Positive = Field(1.0, description="first wait before a failed candidate is tried again; it doubles")
    retry_max_seconds: Positive = Field(300.0, description="longest such wait")

    def wait_seconds(self, failures: int) -> float:
        """Return how long to wait after this many failures in a row: it doubles up to a limit; 0 after none."""
        if failures == 0:
            return 0.0
        return min(self.retry_max_seconds, self.retry_seconds * 2.0 ** min(failures - 1, 32))


class GateSettings(Group):
    """What the gates require of a candidate."""

    environment: Literal["refuse", "warn"] = Field(
        "refuse", description="a model trained with another major.minor of scikit-learn"
    )
    max_latency_seconds: Positive = Field(5.0, description="longest one-row prediction (median)")
    max_disagreement: float | None = Field(
        None, ge=0, le=1, description="share of recent rows that may get another label in the replay; not set: any"
    )


class EngineSettings(Group):
    """What computes answers."""

    compile: Literal["auto", "off", "require"] = Field(
        "auto", description="serve a compiled form where one is proved and faster; require refuses models without one"
    )
    compile_seconds: Positive = Field(60.0, description="most time for compiling and proving one version")
    compile_nodes: Count = Field(2_000_000, description="most tree nodes that are compiled")
    compile_mb: Positive = Field(256.0, description="largest compiled form")
    compile_tolerance: Positive = Field(
        1e-5, le=0.1, description="how far a number may be from the estimator's own, relative; labels must be equal"
    )
    workers_mb: NotNegative = Field(
        4096.0, description="most memory of compiled forms in all workers together; beyond it, models stay hosted"
    )
    max_batch_rows: Count = Field(1024, description="most rows of waiting requests sent to a host together")
    replicas: int = Field(1, ge=1, le=64, description="processes per hosted version; they share the model's memory")


class NamedEnvironment(Group):
    """An environment that was made elsewhere, such as a virtual environment or one of conda."""

    python: Path = Field(description="the interpreter of this environment")


class EnvironmentSettings(Group):
    """The environments besides the server's own. `named` has the tables ``[environments.<name>]`` by name."""

    path: Path | None = Field(None, description="where 'serving environment create' makes them; not set: state.path")
    idle_seconds: NotNegative = Field(600.0, description="how long an environment without hosts keeps its zygote")
    named: dict[Annotated[str, AfterValidator(_require_environment_name)], NamedEnvironment] = Field(
        {}, description="environments that exist elsewhere"
    )


class ReplaySettings(Group):
    """The sample of recent rows that a candidate answers before it serves. It is in memory only."""

    rows: int = Field(1000, ge=0, le=100_000, description="recent rows kept of each model; 0: none, and no replay")
    megabytes: Positive = Field(16.0, description="most memory of the rows of one model")


class RolloutSettings(Group):
    """How a new version takes over from the active one. Shares (`steps`, `holdback`) are in percent."""

    strategy: Literal["swap", "shadow", "canary"] = Field(
        "swap", description="swap: all at once; shadow: it answers copies first; canary: it answers a share first"
    )
    steps: Percents = Field(
        (5.0, 25.0, 50.0), description="shares of requests that a canary answers, one after another"
    )
    step_seconds: NotNegative = Field(60.0, description="how long each step lasts at least")
    min_requests: Count = Field(100, description="answers of the new version that each step takes at least")
    slo_seconds: Positive | None = Field(
        None, description="an answer that takes longer counts as bad; not set: none does"
    )
    alpha: float = Field(0.01, gt=0, lt=0.5, description="chance that a rollout of an equal version is rolled back")
    tolerance: NotNegative = Field(0.1, description="how much more often a new version may fail: 0.1 is a tenth more")
    margin: float = Field(
        2.0, gt=1, description="a step passes when failures are proven less than this many times as many"
    )
    acceptable: float = Field(0.01, gt=0, lt=1, description="a share of bad answers that nobody minds")
    on_inconclusive: Literal["hold", "promote", "rollback"] = Field(
        "hold", description="what to do when a step is over and nothing is proven"
    )
    sticky: Sticky | None = Field(
        None, description="what keeps a client on one version: header:NAME or field:NAME; not set: chance alone decides"
    )
    holdback: float = Field(
        5.0, ge=0, le=50, description="share of requests that the old version keeps after a promotion"
    )
    bake_seconds: NotNegative = Field(300.0, description="how long it keeps them")
    observe: bool = Field(False, description="judge, and act on nothing")


class ModelSettings(Group):
    """What is set for one model: the tables ``[models.<name>.*]``. `Settings` fills in what is not set."""

    rollout: RolloutSettings = RolloutSettings()


class SecuritySettings(Group):
    """Who may do what."""

    admin_token: TokenDigest | None = Field(None, description="token of the operator calls; none: they are closed")
    admin_token_file: Path | None = Field(None, description="file that holds such tokens, one on each line")
    read_token: TokenDigest | None = Field(None, description="token of everything that is read; none: it is open")
    read_token_file: Path | None = Field(None, description="file that holds such tokens, one on each line")
    predict_token: TokenDigest | None = Field(None, description="token of predictions; none: they are open")
    predict_token_file: Path | None = Field(None, description="file that holds such tokens, one on each line")
    trust: Literal["known", "signed", "any"] = Field(
        "known",
        description="known: pickles load known classes only; signed: versions need a manifest signed by a trusted key; "
        "any: pickles run whatever they hold, in the sandbox",
    )
    pickle_trusted: Names = Field((), description="exact names that pickle and joblib files may use beyond the list")
    skops_trusted: Names = Field((), description="exact names that .skops files may use beyond the list")
    trusted_keys: PublicKeys = Field((), description="public keys, ed25519:..., whose signatures on manifests count")
    require_sandbox: bool = Field(False, description="refuse versions where a layer of the sandbox is missing")


class TracesSettings(Group):
    """Traces of requests and candidates, for OpenTelemetry; needs the extra ``otel``."""

    endpoint: HttpUrlText | None = Field(
        None, description="where traces are sent, OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; not set: off"
    )
    sample: float = Field(0.0, ge=0, le=1, description="share of predictions traced, of clients that do not decide it")
    service: str = Field("serving", min_length=1, max_length=200, description="name of this service in the traces")


class RecordSettings(Group):
    """The log of predictions: rows and answers in files."""

    sample: float = Field(0.0, ge=0, le=1, description="share of predictions that are written; 0: none")
    path: Path | None = Field(None, description="directory of the files; not set: records, in state.path")
    format: Literal["jsonl", "parquet"] = Field("jsonl", description="parquet needs the extra arrow")
    file_mb: Positive = Field(64.0, description="a file that is larger is closed, and another one begun")
    file_hours: Positive = Field(24.0, description="so is one that is older")
    keep_mb: Positive = Field(1024.0, description="most bytes of all files; beyond that the oldest are removed")
    leave_out: Names = Field((), description="features, keys and methods whose values are not written")


class LogSettings(Group):
    """What is logged and how."""

    format: Literal["auto", "json", "console"] = Field("auto", description="console on a terminal, else json")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level shown")
    access_sample: float = Field(0.0, ge=0, le=1, description="share of successful requests in the access log")


class Settings(BaseSettings):
    """All groups, as given; only :func:`load_settings` reads the file and the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="SERVING_", env_nested_delimiter="__", env_ignore_empty=True
    )

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    state: StateSettings = StateSettings()
    candidate: CandidateSettings = CandidateSettings()
    gates: GateSettings = GateSettings()
    engine: EngineSettings = EngineSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    replay: ReplaySettings = ReplaySettings()
    rollout: RolloutSettings = RolloutSettings()
    models: dict[Annotated[str, AfterValidator(_require_model_name)], ModelSettings] = Field(
        {}, description="what differs for some models, by their names"
    )
    security: SecuritySettings = SecuritySettings()
    traces: TracesSettings = TracesSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()

    @field_validator("models")
    @classmethod
    def _fill_models(cls, models: dict[str, ModelSettings], others: ValidationInfo) -> dict[str, ModelSettings]:
        general: RolloutSettings | None = others.data.get("rollout")  # none: it cannot be used, which is told already
        if general is None:
            return models
        given = {
            name: {key: getattr(each.rollout, key) for key in each.rollout.model_fields_set}
            for name, each in models.items()
        }
        return {name: ModelSettings(rollout=general.model_copy(update=own)) for name, own in given.items()}

    def rollout_of(self, model: str) -> RolloutSettings:
        """Return how versions of a model take over: as ``[models.<name>.rollout]`` says, else as ``[rollout]`` does.

        A variable's name has no case: a table in lower case is for the model of that name in any case, unless another
        table has exactly its name.
        """
        own = self.models.get(model) or self.models.get(model.lower())
        return self.rollout if own is None else own.rollout

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (the signature is pydantic-settings')
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the given values only; `load_settings` reads the other sources itself, to know the source of each."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class NamedTables:
    """Tables with names of the user's choice: ``[group.<name>]``, or ``[group.<name>.inner]``.

    `held_in` is the field of the group that they are in, None where the group is nothing but them.
    """

    held_in: str | None
    inner: tuple[str, ...]
    fields: Mapping[str, FieldInfo]

    def locate(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return where in the settings a path is: with the field that holds the tables."""
        return (path[0], self.held_in, *path[1:]) if self.held_in is not None else path


TABLES: Mapping[str, NamedTables] = MappingProxyType(
    {
        "environments": NamedTables("named", (), NamedEnvironment.model_fields),
        "models": NamedTables(None, ("rollout",), RolloutSettings.model_fields),
    }
)
"""The groups with such tables."""
GROUPS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
} | {"models": ModelSettings}
KEYS = tuple(
    f"{group}.{name}"
    for group, kind in GROUPS.items()
    if group != "models"
    for name in kind.model_fields
    if group not in TABLES or name != TABLES[group].held_in
)


def is_table(group: str, name: str) -> bool:
    """Say whether ``group.name`` is a table with a name of the user's choice, and no setting."""
    return group in TABLES and f"{group}.{name}" not in KEYS

"""The data model without pydantic: it takes, refuses, reads and writes what pydantic does for these classes."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pydantic
import pytest
from pydantic import BaseModel

from serving import data_model
from serving.domain.compiled_form import Compilation, Guard, ProvenRows, RunBounds
from serving.domain.environment import Choice, Needs
from serving.domain.manifest import Golden, InvalidDocument, Manifest, ManifestFile, parse_golden, parse_manifest
from serving.domain.provenance import Provenance
from serving.domain.report import CandidateReport, GateResult, Verdict
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Container, Dtype, Feature, ModelKind, Signature
from serving.domain.version import Format
from serving.host.substitutes import plain_json, plain_models
from serving.wire.evaluation import (
    CompileRequest,
    EvaluationFile,
    EvaluationRequest,
    Findings,
    NeedsFound,
    Preparation,
)
from serving.wire.graph_requests import CheckerRequest, CheckRequest

# the packages whose modules are imported again, with the substitutes; some of their modules are the server's alone
SHARED = ("serving.domain", "serving.wire", "serving.rows")
OF_THE_SERVER = ("serving.domain.decision", "serving.domain.status", "serving.domain.upload")
Modules = dict[str, types.ModuleType]
SUBSTITUTES = {"serving.data_model": plain_models, "serving.json_codec": plain_json}


def list_shared_modules() -> list[str]:
    shared = [name for name in sys.modules if name.rpartition(".")[0] in SHARED or name in SHARED]
    return [name for name in shared if name not in OF_THE_SERVER]


@pytest.fixture(scope="module")
def plain() -> Iterator[Modules]:
    """The modules of the shared values as hosts in another environment have them, by name."""
    taken = {name: sys.modules[name] for name in list_shared_modules()}
    for name in taken:
        del sys.modules[name]
    original = {name: sys.modules[name] for name in SUBSTITUTES}
    sys.modules.update(SUBSTITUTES)
    try:
        for name in taken:
            importlib.import_module(name)
        yield {name: sys.modules[name] for name in taken}
    finally:
        for name in list_shared_modules():
            del sys.modules[name]
        sys.modules.update(taken)
        sys.modules.update(original)
        for name, module in {**taken, **original}.items():  # what `from serving import ...` gives
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, module)


def translate(plain: Modules, kind: type[BaseModel]) -> Any:
    """The class of the same name among the substitutes."""
    return getattr(plain[kind.__module__], kind.__name__)


FEATURES = (
    Feature(name="length", nullable=True),
    Feature(name="ключ \N{SNOWMAN}", dtype=Dtype.STRING, is_used=False),
)
SIGNATURE = Signature(
    features=FEATURES,
    methods=("predict", "predict_proba"),
    container=Container.DATAFRAME,
    kind=ModelKind.CLASSIFIER,
    is_named=True,
    classes=((True, 1, 1.5, "1", None), ("a",)),
)
BOUNDS = RunBounds(
    rows=4096, row_bytes=8, fixed_bytes=100, row_texts=0, fixed_texts=2,
    answer_bytes={"predict": 8}, seconds={"predict": (1e-6, 2.5e-7)}, session_bytes=1 << 20,
)  # fmt: skip
COMPILATION = Compilation(
    engine="onnx",
    reason="proved",
    rows=(ProvenRows(kind="golden", rows=3),),
    guard=Guard(largest=1e30, known={0: ("a", 1.0, True), 7: ()}),
    row_seconds=(1e-5, 2e-6),
    bounds=BOUNDS,
)
FILE = EvaluationFile(name="model.joblib", sha256="0" * 64, size=10, path="/tmp/x")
KEY = Provenance(version="1", key="ed25519:abc...", created_at=datetime(2026, 11, 20, 8, tzinfo=UTC))
NEEDS = Needs(python="3.9", libraries={"scikit-learn": "1.0.2"}, modules=("sklearn",), environment="sk10")
RESULT = GateResult(gate="load", verdict=Verdict.WARNED, evidence='saw "this"\n', duration_seconds=0.25)
MANIFEST = Manifest(
    model="iris",
    version="3",
    created_at=datetime(2026, 11, 20, 8, 30, 1, 250, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    files=(ManifestFile(name="model.joblib", sha256="a" * 64, size=5),),
    signature=SIGNATURE,
    environment="sk-1.3",
    metrics={"auc": 0.93, "by_class": [1, None, {"x": "y"}]},
)
VALUES: list[BaseModel] = [
    *FEATURES,
    SIGNATURE,
    BOUNDS,
    COMPILATION,
    Compilation(engine=None, reason="stays", largest_difference=float("inf")),
    FILE,
    KEY,
    NEEDS,
    RESULT,
    MANIFEST,
    Golden(instances=[[1, 2.5], {"a": None}], expected={"predict": [1, 0]}, deterministic=False),
    Choice(name=None, reason="none"),
    Sandbox(active=("limits",), missing={"landlock": "no"}),
    CandidateReport(gates=(RESULT,), signature=SIGNATURE, compilation=COMPILATION, provenance=KEY, needs=NEEDS),
    CheckerRequest(memory_bytes=1 << 30),
    CheckRequest(signature=SIGNATURE, guard=Guard(), most_rows=10, graphs=(({"predict": ("y", "z")}, 100),)),
    EvaluationRequest(
        model="iris", version="3", digest="d", format=Format.JOBLIB, main=FILE, files=(FILE,), quiet_seconds=None,
        active_signature=SIGNATURE, active_provenance=KEY, compile=CompileRequest(known=COMPILATION, mode="require"),
        prior=(RESULT,), needs=NEEDS, choice=Choice(name="sk10", reason="fits"),
    ),
    Preparation(sandbox=Sandbox(active=("limits",)), libraries={"numpy": "1.22.4"}, provenance=KEY),
    NeedsFound(needs=NEEDS, absent=("mine",), stays=True),
    Findings(signature=SIGNATURE, engine="sklearn", memory_bytes=1, compilation=COMPILATION),
]  # fmt: skip


OF_THE_SERVER = tuple(f"serving.domain.{name}" for name in ("status", "decision", "snapshot", "rollout", "upload"))


def test_every_class_that_hosts_use_is_tried() -> None:
    """A class that is added to these packages must be added above."""
    kinds = {kind for kind in list_subclasses(BaseModel) if kind.__module__.startswith(SHARED)}
    server_only = {kind for kind in kinds if kind.__module__ in OF_THE_SERVER}
    assert {kind.__name__ for kind in kinds - server_only} == {type(value).__name__ for value in VALUES} | {
        "ProvenRows", "Guard", "ManifestFile", "CompileRequest",
    }  # fmt: skip


def list_subclasses(kind: type) -> set[type]:
    return {one for each in kind.__subclasses__() for one in {each, *list_subclasses(each)}}


def test_at_home_it_is_pydantic_itself() -> None:
    assert data_model.BaseModel is pydantic.BaseModel
    assert data_model.ValidationError is pydantic.ValidationError


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_both_write_the_same_and_read_what_the_other_wrote(plain: Modules, value: BaseModel) -> None:
    kind = translate(plain, type(value))
    raw = value.model_dump_json()
    theirs = kind.model_validate_json(raw)
    assert not isinstance(theirs, BaseModel)
    assert json.loads(theirs.model_dump_json()) == json.loads(raw)
    assert theirs.model_dump(mode="json") == type(value).model_validate_json(raw).model_dump(mode="json")
    assert kind.model_validate(theirs.model_dump(mode="json")) == theirs
    assert type(value).model_validate_json(theirs.model_dump_json()).model_dump_json() == raw
    assert hash_or_error(theirs) == hash_or_error(value)
    assert list(kind.model_fields) == list(type(value).model_fields)


def hash_or_error(value: Any) -> str:
    """Whether the value can be hashed: a dict inside cannot."""
    try:
        hash(value)
    except TypeError:
        return "no"
    return "yes"


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_types_inside_are_the_same(plain: Modules, value: BaseModel) -> None:
    """A label of 1 is neither True nor 1.0, in both."""
    theirs = translate(plain, type(value)).model_validate_json(value.model_dump_json())
    ours = type(value).model_validate_json(value.model_dump_json())
    assert describe(theirs) == describe(ours)


def describe(value: Any) -> Any:
    """The value with the name of each type in it."""
    if hasattr(type(value), "model_fields"):
        return type(value).__name__, {name: describe(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return [(describe(key), describe(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [describe(each) for each in value]
    return type(value).__name__ if isinstance(value, datetime) else (type(value).__name__, value)


GOOD = MANIFEST.model_dump(mode="json")
BAD: list[tuple[str, dict[str, Any]]] = [
    ("missing", {name: GOOD[name] for name in GOOD if name != "model"}),
    *[(f"{name}={value!r}", {**GOOD, name: value}) for name, value in (
        ("surplus", 1),
        ("model", 5), ("model", None), ("model", ["a"]),
        ("format_version", 2), ("format_version", 0), ("format_version", "x"), ("format_version", 1.5),
        ("format_version", None),
        ("created_at", "yesterday"), ("created_at", "2026-13-01T00:00:00Z"), ("created_at", None), ("created_at", []),
        ("created_at", "2026-11-20T25:00:00Z"), ("created_at", "2026-11-20T08:00:00+99:99"),
        ("files", []), ("files", {}), ("files", "x"), ("files", [5]), ("files", [{"name": "a"}]),
        ("files", [{"name": "../a", "sha256": "a" * 64, "size": 1}]),
        ("files", [{"name": "a\n", "sha256": "a" * 64, "size": 1}]),
        ("files", [{"name": "a", "sha256": "a" * 63, "size": 1}]),
        ("files", [{"name": "a", "sha256": "a" * 64, "size": -1}]),
        ("files", [{"name": "a", "sha256": "a" * 64, "size": "many"}]),
        ("files", [{"name": "a", "sha256": "a" * 64, "size": 1, "mode": 7}]),
        ("libraries", {"numpy": 2}), ("libraries", ["numpy"]), ("libraries", None),
        ("environment", ""), ("environment", "a b"), ("environment", 3),
        ("signature", {}), ("signature", 5), ("signature", {"features": [], "methods": []}),
        ("signature", {"features": [], "methods": ["guess"]}),
        ("signature", {"features": [{"name": "a", "dtype": "float"}], "methods": ["predict"]}),
        ("signature", {"features": [], "methods": ["predict"], "classes": [[{}]]}),
        ("signature", {"features": [], "methods": ["predict"], "outputs": "one"}),
        ("breaking", "perhaps"), ("breaking", 2), ("breaking", None),
        ("metrics", []),
    )],
]  # fmt: skip


@pytest.mark.parametrize("document", [each for _, each in BAD], ids=[name for name, _ in BAD])
def test_both_refuse_the_same_documents_and_say_the_same(plain: Modules, document: dict[str, Any]) -> None:
    raw = plain_json.dumps(document)
    with pytest.raises(InvalidDocument) as ours:
        parse_manifest(raw)
    with pytest.raises(plain["serving.domain.manifest"].InvalidDocument) as theirs:
        plain["serving.domain.manifest"].parse_manifest(raw)
    where, _, reason = str(ours.value).removeprefix("manifest.json: ").partition(": ")
    their_where, _, their_reason = str(theirs.value).removeprefix("manifest.json: ").partition(": ")
    assert their_where.split(".")[:2] == where.split(".")[:2]
    assert their_reason[:20] == reason[:20]


LENIENT: list[tuple[str, Any]] = [
    ("format_version", "1"), ("format_version", 1.0), ("format_version", True), ("created_at", 1763625600),
    ("created_at", "2026-11-20"), ("created_at", "2026-11-20 08:00"),
    ("created_at", "2026-11-20T08:00:00.123456+02:00"),
    ("breaking", "true"), ("breaking", 1), ("breaking", "no"), ("metrics", {"big": 10**40, "nested": [[1, [2]]]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), LENIENT)
def test_both_convert_the_same_values(plain: Modules, name: str, value: Any) -> None:
    raw = pydantic.TypeAdapter(Any).dump_json({**GOOD, name: value})
    ours, theirs = parse_manifest(raw), plain["serving.domain.manifest"].parse_manifest(raw)
    assert getattr(theirs, name) == getattr(ours, name)
    assert type(getattr(theirs, name)) is type(getattr(ours, name))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"5", b'"x"', b"null", b"{", b'{"a": 1,}', b"\xff\xfe", b'{"model": "\\xff"}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_both_refuse_what_is_no_document(plain: Modules, raw: bytes) -> None:
    for parse, refusal in (
        (parse_manifest, InvalidDocument),
        (plain["serving.domain.manifest"].parse_manifest, plain["serving.domain.manifest"].InvalidDocument),
    ):
        with pytest.raises(refusal, match=r"^manifest\.json: document: (Invalid JSON|Input should be an object)"):
            parse(raw)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rtol", -1),
        ("rtol", "x"),
        ("rtol", float("nan")),
        ("instances", []),
        ("expected", {}),
        ("expected", {"guess": [1]}),
    ],
)
def test_both_refuse_the_same_golden_examples(plain: Modules, name: str, value: Any) -> None:
    raw = json.dumps({"instances": [[1]], "expected": {"predict": [1]}, name: value}).encode()
    for parse, refusal in (
        (parse_golden, InvalidDocument),
        (plain["serving.domain.manifest"].parse_golden, plain["serving.domain.manifest"].InvalidDocument),
    ):
        with pytest.raises(refusal, match=rf"^golden\.json: {name}"):
            parse(raw)


def test_numbers_that_are_not_finite_are_refused_where_pydantic_does(plain: Modules) -> None:
    raw = BOUNDS.model_dump_json().replace("1e-6", "Infinity")
    assert "Infinity" in raw
    kinds: list[tuple[Any, Any]] = [(RunBounds, pydantic.ValidationError)]
    for kind, refusal in [*kinds, (translate(plain, RunBounds), plain_models.ValidationError)]:
        with pytest.raises(refusal, match="finite number"):
            kind.model_validate_json(raw)


def test_a_frozen_value_cannot_be_changed_and_a_copy_can_differ(plain: Modules) -> None:
    feature = translate(plain, Feature)(name="a")
    with pytest.raises(plain_models.ValidationError, match="frozen"):
        feature.name = "b"
    other = feature.model_copy(update={"name": "b"})
    assert (feature.name, other.name) == ("a", "b")
    assert other != feature
    assert other == translate(plain, Feature)(name="b")
    assert len({feature, other, translate(plain, Feature)(name="b")}) == 2


def test_a_default_that_could_be_changed_is_not_shared(plain: Modules) -> None:
    first, second = translate(plain, Sandbox)(), translate(plain, Sandbox)()
    first.missing["x"] = "y"
    assert second.missing == {}


def test_values_are_checked_when_an_object_is_made(plain: Modules) -> None:
    with pytest.raises(plain_models.ValidationError) as refused:
        translate(plain, Signature)(features=[{"name": 5}], methods=("predict",), color="red")
    assert [each["loc"] for each in refused.value.errors()] == [("features", 0, "name"), ("color",)]

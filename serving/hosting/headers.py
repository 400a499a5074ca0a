"""Read the headers of an evaluation's frames strictly: the server's side.

A header that does not fit its kind of frame is a ProtocolError with one printable line.
"""

from __future__ import annotations

from math import isfinite
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from serving.domain.compiled_form import MAX_KNOWN_VALUES, Compilation, Guard
from serving.domain.errors import ProtocolError
from serving.domain.report import MAX_EVIDENCE_CHARACTERS, GateResult
from serving.domain.signature import MAX_FEATURES, MAX_LABELS, Dtype, Feature, Method, Signature
from serving.domain.text import one_line
from serving.wire.evaluation import Findings, NeedsFound, Preparation
from serving.wire.frames import Buffer, decode_object

MAX_OUTPUT_NAME_CHARACTERS = 300
MAX_KINDS_OF_ROWS = 64
MAX_NEED_CHARACTERS = 150
MAX_NEEDS = 5000
MAX_ERRORS_READ = 100

_PLAIN = frozenset({str, int, float, bool, NoneType})
_FEATURE_FIELDS = Feature.model_fields.keys()
_DTYPES = frozenset(map(str, Dtype))

Header = TypeVar("Header", bound=BaseModel)


def read_gate(raw: Buffer) -> str:
    """Return the name of the gate in a GATE_STARTED frame."""
    fields = decode_object(raw)
    gate = fields.get("gate")
    if len(fields) != 1 or not isinstance(gate, str):
        raise ProtocolError("not the name of a gate")
    return gate


def read_result(raw: Buffer, most_seconds: float) -> GateResult:
    """Return the result in a GATE_RESULT frame, with printable texts and a duration of at most `most_seconds`."""
    result = _read_fields(GateResult, decode_object(raw))
    seconds = result.duration_seconds
    if not isfinite(seconds) or seconds < 0:
        raise ProtocolError("a gate took an impossible time")
    evidence = one_line(result.evidence, MAX_EVIDENCE_CHARACTERS)
    return result.model_copy(update={"evidence": evidence, "duration_seconds": min(seconds, most_seconds)})


def read_preparation(raw: Buffer) -> Preparation:
    """Return the content of a PREPARED frame."""
    return _read_fields(Preparation, decode_object(raw))


def read_needs(raw: Buffer) -> NeedsFound:
    """Return the content of a NEEDS frame, with printable texts of limited length."""
    found = _read_fields(NeedsFound, decode_object(raw))
    needs = found.needs
    texts = [*needs.libraries, *needs.libraries.values(), *needs.sources, *needs.sources.values(), *needs.modules]
    texts += [*found.absent, needs.python or "", needs.environment or ""]
    if len(texts) > MAX_NEEDS:
        raise ProtocolError(f"needs of more than {MAX_NEEDS} texts")
    if any(text != one_line(text, MAX_NEED_CHARACTERS) for text in texts):
        raise ProtocolError("needs that are not short printable texts")
    return found


def read_outputs(raw: Buffer) -> dict[Method, tuple[str, ...]]:
    """Return which outputs of the graph in a GRAPH frame answer each method."""
    fields = decode_object(raw)
    outputs = fields.get("outputs")
    if len(fields) != 1 or not isinstance(outputs, dict):
        raise ProtocolError("the header of a graph has no outputs")
    found: dict[Method, tuple[str, ...]] = {}
    for method in get_args(Method):
        names = outputs.pop(method, [])
        if not isinstance(names, list) or not all(map(_is_output_name, names)):
            raise ProtocolError("the header of a graph names no outputs for a method")
        if names:
            found[method] = tuple(names)
    if outputs or not found:
        raise ProtocolError("a graph answers an unknown method, or none")
    return found


def read_findings(raw: Buffer) -> Findings:
    """Return the content of a REPORT frame.

    Long lists are checked first: Pydantic would make an error of 650 bytes for each wrong entry, and keep all other
    threads waiting meanwhile.
    """
    fields = decode_object(raw)
    _require_fields(fields, Findings)
    signature, compilation = fields.get("signature"), fields.get("compilation")
    if signature is not None:
        _require_fields(signature, Signature)
        features = _require_list(signature.get("features"), MAX_FEATURES, "features")
        if not all(map(_is_feature, features)):
            raise ProtocolError("an invalid feature")
        for labels in _require_list(signature.get("classes") or [], MAX_LABELS, "outputs with classes"):
            _require_plain(labels, MAX_LABELS, "class labels")
    if compilation is not None:
        _require_fields(compilation, Compilation)
        _require_list(compilation.get("rows") or [], MAX_KINDS_OF_ROWS, "kinds of rows")
        guard = compilation.get("guard") or {}
        _require_fields(guard, Guard)
        known = guard.get("known") or {}
        if not isinstance(known, dict) or len(known) > MAX_FEATURES or not all(map(str.isdecimal, known)):
            raise ProtocolError("known values of something that is not a feature")
        for values in known.values():
            _require_plain(values, MAX_KNOWN_VALUES, "known values")
    return _read_fields(Findings, fields)


def _require_fields(value: Any, kind: type[BaseModel]) -> None:
    unknown = next((name for name in value if name not in kind.model_fields), None) if isinstance(value, dict) else ""
    if unknown is not None:
        raise ProtocolError(f"not the fields of {kind.__name__}: {one_line(unknown, 50)}")


def _require_list(value: Any, most: int, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"no list of {what}")
    if len(value) > most:
        raise ProtocolError(f"{len(value)} {what}, at most {most} are taken")
    return value


def _require_plain(value: Any, most: int, what: str) -> None:
    if not set(map(type, _require_list(value, most, what))) <= _PLAIN:
        raise ProtocolError(f"{what} that are not plain values")


def _is_feature(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() <= _FEATURE_FIELDS
        and type(value.get("name")) is str
        and type(dtype := value.get("dtype", "number")) is str
        and dtype in _DTYPES
        and type(value.get("nullable", False)) is bool
    )


def _read_fields(kind: type[Header], fields: dict[str, Any]) -> Header:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        if error.error_count() > MAX_ERRORS_READ:
            raise ProtocolError(f"{error.error_count()} fields are not those of {kind.__name__}") from None
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:MAX_OUTPUT_NAME_CHARACTERS] for part in first["loc"])
        raise ProtocolError(one_line(f"not {kind.__name__}: {where}: {first['msg']}")) from None


def _is_output_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_OUTPUT_NAME_CHARACTERS

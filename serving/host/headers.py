"""The headers of an evaluation's frames, read strictly: the server's side.

Anything that is not what its kind of frame should hold is a ProtocolError with one printable line, whatever it is.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from serving.domain.errors import ProtocolError
from serving.domain.report import MAX_EVIDENCE_CHARACTERS, GateResult
from serving.domain.signature import MAX_FEATURES, Method
from serving.domain.text import one_line
from serving.host.evaluation import Findings, Preparation
from serving.host.protocol import Buffer, decode_object

MAX_OUTPUT_NAME_CHARACTERS = 300
MAX_ERRORS_READ = 100

Header = TypeVar("Header", bound=BaseModel)


def read_gate(raw: Buffer) -> str:
    """Return the name of the gate in a GATE_STARTED frame."""
    fields = decode_object(raw)
    gate = fields.get("gate")
    if len(fields) != 1 or not isinstance(gate, str):
        raise ProtocolError("not the name of a gate")
    return gate


def read_result(raw: Buffer, most_seconds: float) -> GateResult:
    """Return the result in a GATE_RESULT frame, fit to be shown. The gate has not taken longer than `most_seconds`."""
    result = _validate(GateResult, decode_object(raw))
    seconds = result.duration_seconds
    if not isfinite(seconds) or seconds < 0:
        raise ProtocolError("a gate took a time that is none")
    evidence = one_line(result.evidence, MAX_EVIDENCE_CHARACTERS)
    return result.model_copy(update={"evidence": evidence, "duration_seconds": min(seconds, most_seconds)})


def read_preparation(raw: Buffer) -> Preparation:
    """Return what a PREPARED frame holds."""
    return _validate(Preparation, decode_object(raw))


def read_outputs(raw: Buffer) -> dict[Method, tuple[str, ...]]:
    """Return which outputs of the graph in a GRAPH frame answer each method."""
    fields = decode_object(raw)
    outputs = fields.get("outputs")
    if len(fields) != 1 or not isinstance(outputs, dict):
        raise ProtocolError("a graph does not say what it answers")
    found: dict[Method, tuple[str, ...]] = {}
    for method in get_args(Method):
        names = outputs.pop(method, [])
        if not isinstance(names, list) or not all(map(_is_output_name, names)):
            raise ProtocolError("a graph does not say which of its outputs answer a method")
        if names:
            found[method] = tuple(names)
    if outputs or not found:
        raise ProtocolError("a graph answers a method that there is not, or none")
    return found


def read_findings(raw: Buffer) -> Findings:
    """Return what a REPORT frame holds. Features are counted before anything is made of them."""
    fields = decode_object(raw)
    signature = fields.get("signature")
    features = signature.get("features") if isinstance(signature, dict) else None
    if isinstance(features, list) and len(features) > MAX_FEATURES:
        raise ProtocolError(f"a signature of {len(features)} features")
    return _validate(Findings, fields)


def _validate(kind: type[Header], fields: dict[str, Any]) -> Header:
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

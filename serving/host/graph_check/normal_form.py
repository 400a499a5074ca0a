"""Parses a graph and writes it anew from the parts it knows, so that a second parser reads the same graph.

Unknown parts are refused: fields that this version of ONNX does not name, functions, subgraphs, constants in other
files, operators without a rule, attributes that their schemas do not name. Parts that do not change the computation
(names of nodes, documentation, shapes of values in between) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, defs

from serving.domain.errors import GraphRefused
from serving.host.graph_check.constants import read_tensor
from serving.host.graph_check.operation import MICROSOFT, ML, RULES

MOST_NODES = 50_000
MOST_ATTRIBUTES = 64
_OPSETS = {"": range(9, 26), ML: range(1, 6), MICROSOFT: range(1, 2)}
_IR_VERSIONS = range(4, 13)  # from version 4 on, constants are no inputs
_ALIASES = {"ai.onnx": ""}

_MODEL = {"ir_version", "opset_import", "graph"}
_GRAPH = {"node", "name", "initializer", "input", "output"}
_LEFT_OUT = {
    "ModelProto": ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"),
    "GraphProto": ("doc_string", "value_info", "metadata_props", "quantization_annotation"),
    "NodeProto": ("name", "doc_string", "metadata_props"),
    "AttributeProto": ("doc_string",),
    "TensorProto": ("doc_string", "metadata_props"),
    "ValueInfoProto": ("doc_string", "metadata_props"),
}
_NODE = {"input", "output", "op_type", "domain", "attribute"}
_VALUES: dict[int, str] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
}
_TENSOR = {
    *("dims", "data_type", "float_data", "int32_data", "string_data", "int64_data", "name", "raw_data"),
    *("double_data", "uint64_data"),
}
_OF_MICROSOFT: dict[str, dict[str, int]] = {
    "CDist": {"metric": AttributeProto.STRING},
    "FusedMatMul": {
        "alpha": AttributeProto.FLOAT,
        **dict.fromkeys(("transA", "transB", "transBatchA", "transBatchB"), AttributeProto.INT),
    },
}


def write_normal_form(content: bytes | memoryview) -> Any:
    """Return the model in these bytes, with known parts only.

    Raises GraphRefused for bytes that are no model, and for a model with unknown parts. Takes several times the memory
    of the bytes.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(content))
    except (DecodeError, ValueError):
        raise GraphRefused("the bytes are no ONNX model") from None
    _keep_fields(model, _MODEL)
    versions = _check_opsets(model)
    if model.ir_version not in _IR_VERSIONS:
        raise GraphRefused(f"it is written in version {model.ir_version} of the format, which is not known")
    graph = model.graph
    _keep_fields(graph, _GRAPH)
    graph.name = "compiled"
    if len(graph.node) > MOST_NODES:
        raise GraphRefused(f"it has {len(graph.node)} nodes, at most {MOST_NODES} are allowed")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for value in (*graph.input, *graph.output):
        _keep_fields(value, {"name", "type"})
    for node in graph.node:
        _check_node(node, versions)
    model.DiscardUnknownFields()
    return model


def _check_opsets(model: Any) -> dict[str, int]:
    versions: dict[str, int] = {}
    for each in model.opset_import:
        _keep_fields(each, {"domain", "version"})
        each.domain = _ALIASES.get(each.domain, each.domain)
        if each.domain in versions:
            raise GraphRefused("it names two versions of one set of operators")
        versions[each.domain] = each.version
    for domain in versions.keys() & _OPSETS.keys():
        if versions[domain] not in _OPSETS[domain]:
            raise GraphRefused(f"it needs version {versions[domain]} of the operators of {domain or 'ai.onnx'!r}")
    used = {_ALIASES.get(node.domain, node.domain) for node in model.graph.node}
    kept = [each for each in model.opset_import if each.domain in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return versions


def _check_node(node: Any, versions: dict[str, int]) -> None:
    _keep_fields(node, _NODE)
    node.domain = _ALIASES.get(node.domain, node.domain)
    kind = f"{node.op_type:.60}"
    if (node.domain, node.op_type) not in RULES:
        of = f" of the domain {node.domain!r:.60}" if node.domain else ""
        raise GraphRefused(f"the operator {kind}{of} has no bounds that are known")
    if node.domain not in versions:
        raise GraphRefused(f"it does not say which version of {node.domain!r:.60} it needs")
    if len(node.attribute) > MOST_ATTRIBUTES:
        raise GraphRefused(f"{kind}: it has {len(node.attribute)} attributes")
    known, seen = _list_attributes(node, versions[node.domain]), set()
    for attribute in node.attribute:
        if attribute.name in seen or known.get(attribute.name) != attribute.type:
            raise GraphRefused(f"{kind}: the attribute {attribute.name:.60} is unknown, repeated or of another type")
        seen.add(attribute.name)
        _keep_fields(attribute, {"name", "type", _VALUES[attribute.type]})
        if attribute.type == AttributeProto.TENSOR:
            _check_tensor(attribute.t)


def _list_attributes(node: Any, version: int) -> dict[str, int]:
    """Return the types of the attributes that an operator may have, by name, without attributes that hold graphs."""
    if node.domain == MICROSOFT:
        return _OF_MICROSOFT.get(node.op_type, {})
    try:
        schema = defs.get_schema(node.op_type, version, node.domain)
    except defs.SchemaError:
        raise GraphRefused(f"the operator {node.op_type:.60} is not known in version {version}") from None
    own = {name: int(cast(Any, each.type).value) for name, each in schema.attributes.items()}
    return {name: kind for name, kind in own.items() if kind in _VALUES}


def _check_tensor(tensor: Any) -> None:
    read_tensor(tensor)
    _keep_fields(tensor, _TENSOR)


def _keep_fields(message: Any, names: Iterable[str]) -> None:
    """Clear the fields that change nothing, and refuse every other field that is set and not among `names`."""
    for name in _LEFT_OUT.get(type(message).__name__, ()):
        message.ClearField(name)
    for field, _ in message.ListFields():
        if field.name not in names:
            raise GraphRefused(f"it holds {field.name} of {type(message).__name__}, which is not allowed")

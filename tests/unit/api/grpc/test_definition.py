"""The messages are those of the public definition."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="no client of the protocol is installed")

from serving.api.grpc.inference_pb2 import DESCRIPTOR  # noqa: E402


def _fields(message: Any) -> dict[Any, Any]:
    own = {
        field.name: (
            *(field.number, field.type, field.is_repeated),
            field.containing_oneof.name if field.containing_oneof else None,
            field.message_type.full_name if field.message_type else None,
        )
        for field in message.fields
    }
    return own | {nested.name: _fields(nested) for nested in message.nested_types}


def test_every_field_has_the_number_and_type_that_clients_know() -> None:
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    for name, message in DESCRIPTOR.message_types_by_name.items():
        assert _fields(message) == _fields(theirs[name]), name


def test_every_method_is_one_that_clients_know() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    methods = DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    assert len(methods) == 9
    for method in methods:
        known = theirs[method.name]
        assert method.full_name == known.full_name
        assert (method.input_type.full_name, method.output_type.full_name) == (
            known.input_type.full_name,
            known.output_type.full_name,
        )


def test_the_names_stay_out_of_the_common_pool() -> None:
    """Else a client of the protocol in the same process, as here, could not be imported."""
    assert DESCRIPTOR.pool is not service_pb2.DESCRIPTOR.pool

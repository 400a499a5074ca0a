"""What MLflow says of a model's columns, read from the bytes it writes."""

from __future__ import annotations

import pytest

from serving.domain.mlmodel import NamedColumn, columns_of
from serving.domain.signature import Dtype

WRITTEN = b"""flavors:
  sklearn:
    pickled_model: model.pkl
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "string",
    "name": "town''s name", "required": true}, {"type": "boolean", "name": "flag", "required":
    true}]'
  outputs: '[{"type": "long", "required": true}]'
  params: null
"""


def test_names_and_types_of_columns_are_read_over_line_ends_and_quotes() -> None:
    assert columns_of(WRITTEN) == (
        NamedColumn("age", Dtype.NUMBER),
        NamedColumn("town's name", Dtype.STRING),
        NamedColumn("flag", Dtype.BOOL),
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"signature: null\n",
        b"signature:\n  outputs: '[]'\n",
        b'signature:\n  inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]\'\n',
        b'signature:\n  inputs: \'[{"type": "datetime", "name": "when"}]\'\n',
        b'signature:\n  inputs: \'[{"type": "double"}]\'\n',
        b'signature:\n  inputs: \'[{"type": [], "name": "a"}]\'\n',
        b'signature:\n  inputs: \'[{"type": "double", "name": 1}]\'\n',
        b"signature:\n  inputs: '7'\n",
        b"signature:\n  inputs: '{'\n",
        b"signature:\n  inputs: '" + b"[" * 100_000 + b"'\n",
        b'other:\n  inputs: \'[{"type": "double", "name": "a"}]\'\n',
    ],
)
def test_what_has_no_columns_to_be_read_says_nothing(raw: bytes) -> None:
    assert columns_of(raw) == ()

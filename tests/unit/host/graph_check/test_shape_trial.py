"""The described tensors, compared with the computed ones: a rule that is wrong about its kernel leads to a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.compiled_form import Guard
from serving.domain.errors import GraphRefused
from serving.host.graph_check.graph_check import bound_graphs, check_graphs
from serving.host.graph_check.operation import RULES, AbstractTensor, Operation, make_size_tensor
from serving.host.graph_check.sizes import ONE
from tests.unit.host.graph_check.graphs import graph_of, model, node, signature


def make_graph_with(kind: str) -> Any:
    """Return a graph with a node of `kind` between the shape of the rows and a tensor of that shape."""
    nodes = [
        node("Shape", "X", "rows"),
        node(kind, "rows", "size"),
        node("ConstantOfShape", "size", "blob"),
        node("Neg", "X", "y"),
    ]
    return graph_of(model(nodes))


def hide_sizes(operation: Operation) -> list[AbstractTensor]:
    return [make_size_tensor([ONE, ONE])]


def lose_an_axis(operation: Operation) -> list[AbstractTensor]:
    return [AbstractTensor(operation.get_input(0).dtype, (ONE,), sizes=(ONE,))]


@pytest.mark.parametrize("rule", [hide_sizes, lose_an_axis])
def test_a_wrong_rule_is_found(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_graphs([make_graph_with("Identity")], signature(), Guard(), most_rows=100).bounds.rows
    monkeypatch.setitem(RULES, ("", "Identity"), rule)
    bound_graphs([make_graph_with("Identity")], signature())  # by its shapes there is nothing wrong with it
    with pytest.raises(GraphRefused, match=r"Identity: with [13] rows its output differs from the analysis"):
        check_graphs([make_graph_with("Identity")], signature(), Guard(), most_rows=100)

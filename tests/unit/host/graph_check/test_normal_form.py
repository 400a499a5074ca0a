"""Parts that a host may put into a graph: unknown ones are refused, and the graph is always written anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.domain.compiled_form import Graph
from serving.domain.errors import GraphRefused
from serving.host.graph_check import normal_form
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.graph_check.normal_form import MOST_ATTRIBUTES
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node, signature

Change = Callable[[Any], None]


def make_plain_model() -> Any:
    return model([node("Mul", "X factor", "y")], [constant("factor", [2.0])])


def write_anew(made: Any) -> Any:
    """Return a model as the checker writes it."""
    (graph,) = bound_graphs([graph_of(made)], signature()).graphs
    return onnx.load_from_string(graph.content)


def subgraph() -> Any:
    out = helper.make_tensor_value_info("n", TensorProto.DOUBLE, None)
    return helper.make_graph([helper.make_node("Neg", ["X"], ["n"])], "body", [], [out])


def _external(made: Any) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="settings.toml")


def _external_beside_its_content(made: Any) -> None:
    made.graph.initializer[0].external_data.add(key="location", value="../../settings.toml")


def _external_in_an_attribute(made: Any) -> None:
    made.graph.node.insert(0, node("Constant", "", "more", value=constant("", [1.0])))
    tensor = made.graph.node[0].attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="settings.toml")


def _branch(made: Any) -> None:
    made.graph.initializer.append(constant("yes", True))
    made.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=subgraph(), else_branch=subgraph()))


def _loop(made: Any) -> None:
    made.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], body=subgraph()))


def _scan(made: Any) -> None:
    made.graph.node.append(helper.make_node("Scan", ["X"], ["z"], body=subgraph(), num_scan_inputs=1))


def _subgraph_of_what_has_none(made: Any) -> None:
    made.graph.node[0].attribute.append(helper.make_attribute("body", subgraph()))


def _function(made: Any) -> None:
    made.functions.append(
        helper.make_function(
            "own", "Mul", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 21)]
        )
    )


def _overloaded_function(made: Any) -> None:
    made.graph.node[0].overload = "other"


def _sparse(made: Any) -> None:
    values = helper.make_tensor("s", TensorProto.DOUBLE, [1], [1.0])
    places = helper.make_tensor("p", TensorProto.INT64, [1], [0])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1 << 40]))


def _training(made: Any) -> None:
    made.training_info.add()


def _own_domain(made: Any) -> None:
    made.graph.node[0].domain = "example.org"
    made.opset_import.append(helper.make_opsetid("example.org", 1))


def _of_microsoft(made: Any) -> None:
    made.graph.node[0].op_type, made.graph.node[0].domain = "BiasGelu", "com.microsoft"
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _unknown_operator(made: Any) -> None:
    made.graph.node[0].op_type = "Multiply\n\x1b[31m"


def _unknown_attribute(made: Any) -> None:
    made.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))


def _attribute_of_another_type(made: Any) -> None:
    made.graph.node[0].op_type = "Softmax"
    del made.graph.node[0].input[1:]
    made.graph.node[0].attribute.append(helper.make_attribute("axis", "1"))


def _attribute_twice(made: Any) -> None:
    made.graph.node[0].op_type = "Softmax"
    del made.graph.node[0].input[1:]
    made.graph.node[0].attribute.extend([helper.make_attribute("axis", 1), helper.make_attribute("axis", 0)])


def _referred_attribute(made: Any) -> None:
    made.graph.node[0].op_type = "Softmax"
    del made.graph.node[0].input[1:]
    made.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    made.graph.node[0].attribute[0].ref_attr_name = "axis"


def _two_versions(made: Any) -> None:
    made.opset_import.append(helper.make_opsetid("ai.onnx", 13))


def _no_version(made: Any) -> None:
    del made.opset_import[:]


def _future_version(made: Any) -> None:
    made.opset_import[0].version = 1000


def _old_format(made: Any) -> None:
    made.ir_version = 3


def _constant_twice(made: Any) -> None:
    made.graph.initializer.append(constant("factor", [3.0]))


def _constant_over_an_input(made: Any) -> None:
    made.graph.initializer.append(constant("X", [[3.0]]))


def _result_over_an_input(made: Any) -> None:
    made.graph.node.append(node("Neg", "X", "X"))


def _in_a_circle(made: Any) -> None:
    made.graph.node[0].input[1] = "y"


def _longer_than_its_shape(made: Any) -> None:
    made.graph.initializer[0].dims[:] = [1 << 20]


def _of_two_contents(made: Any) -> None:
    made.graph.initializer[0].double_data.append(1.0)


def _of_a_negative_length(made: Any) -> None:
    made.graph.initializer[0].dims[:] = [-1, -1]


def _of_an_unknown_type(made: Any) -> None:
    made.graph.initializer[0].data_type = TensorProto.COMPLEX128


def _of_a_segment(made: Any) -> None:
    made.graph.initializer[0].segment.begin = 0


def _another_input(made: Any) -> None:
    made.graph.input.append(helper.make_tensor_value_info("Z", TensorProto.DOUBLE, [None, 1]))


def _no_input(made: Any) -> None:
    del made.graph.input[:]
    made.graph.node[0].input[0] = "factor"


def _wider_input(made: Any) -> None:
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, 2]))


def _input_of_another_type(made: Any) -> None:
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 1]))


def _input_of_a_fixed_number_of_rows(made: Any) -> None:
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("X", TensorProto.DOUBLE, [1, 1]))


def _input_that_is_a_sequence(made: Any) -> None:
    made.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("X", TensorProto.DOUBLE, [None, 1]))


def _more_outputs(made: Any) -> None:
    made.graph.output.append(helper.make_empty_tensor_value_info("X"))


def _output_that_is_not_computed(made: Any) -> None:
    made.graph.output[0].name = "z"


def _output_of_another_width(made: Any) -> None:
    made.graph.node[0].output[0] = "narrow"
    made.graph.node.append(node("Concat", "narrow narrow", "y", axis=1))


FORGED: dict[str, Change] = {
    name.removeprefix("_"): change
    for name, change in list(globals().items())
    if name.startswith("_") and callable(change)
}


@pytest.mark.parametrize("name", FORGED)
def test_unknown_parts_are_refused(name: str) -> None:
    made = make_plain_model()
    FORGED[name](made)
    with pytest.raises(GraphRefused) as caught:
        bound_graphs([graph_of(made)], signature())
    assert "\n" not in str(caught.value).replace("Multiply\n", "")


def test_the_numbers_of_nodes_and_attributes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_plain_model()
    made.graph.node[0].attribute.extend(helper.make_attribute(f"a{place}", 1) for place in range(MOST_ATTRIBUTES + 1))
    with pytest.raises(GraphRefused, match=f"it has {MOST_ATTRIBUTES + 1} attributes"):
        bound_graphs([graph_of(made)], signature())
    monkeypatch.setattr(normal_form, "MOST_NODES", len(made.graph.node) - 1)
    with pytest.raises(GraphRefused, match="nodes, at most"):
        bound_graphs([graph_of(made)], signature())


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 100, onnx.ModelProto().SerializeToString()])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(GraphRefused):
        bound_graphs([Graph(content, {"predict": ("y",)})], signature())


def test_unknown_fields_are_left_out() -> None:
    raw = make_plain_model().SerializeToString()
    unknown = bytes([0xFA, 0x7F, 5]) + b"extra"  # field 2047, five bytes
    (graph,) = bound_graphs([Graph(raw + unknown, {"predict": ("y",)})], signature()).graphs
    assert b"extra" not in bytes(graph.content)


def test_parts_that_change_nothing_are_left_out() -> None:
    made = make_plain_model()
    made.doc_string = made.graph.doc_string = made.graph.node[0].doc_string = "read me"
    made.producer_name, made.graph.node[0].name = "somebody", "a node"
    made.metadata_props.add(key="k", value="v")
    made.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.INT64, [1 << 40]))
    content = bytes(write_anew(made).SerializeToString())
    for text in (b"read me", b"somebody", b"a node", b"metadata"):
        assert text not in content
    assert not write_anew(made).graph.value_info


def test_outputs_are_declared_with_their_shapes() -> None:
    made = make_plain_model()
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, [7, 7]))
    (output,) = write_anew(made).graph.output
    declared = output.type.tensor_type
    assert declared.elem_type == TensorProto.DOUBLE
    assert [length.dim_value for length in declared.shape.dim] == [0, 1]


def test_the_normal_form_of_a_normal_form_is_the_same() -> None:
    once = write_anew(make_plain_model())
    assert write_anew(once) == once


def test_the_normal_form_computes_the_same() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(write_anew(make_plain_model()).SerializeToString())
    assert session.run(None, {"X": np.array([[1.5]])})[0].tolist() == [[3.0]]

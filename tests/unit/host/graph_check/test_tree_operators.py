"""Ensembles of trees: each relation that a kernel does not check, broken once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from serving.domain.errors import GraphRefused
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.graph_check.tree_operators import MOST_DEPTH
from serving.plane.graph import open_session
from tests.unit.host.graph_check.graphs import constant, graph_of, model, node, signature

ML = "ai.onnx.ml"
Attributes = dict[str, Any]


def new_form(**changes: Any) -> Any:
    """Return a model of two trees over two columns: one of depth two, one of depth one; `changes` are attributes."""
    attributes: Attributes = {
        "n_targets": 1,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": [0, 2],
        "nodes_featureids": [0, 1, 1],
        "nodes_splits": constant("", [0.0, 1.0, 2.0]),
        "nodes_modes": constant("", [0, 0, 0], np.uint8),
        "nodes_truenodeids": [1, 0, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [2, 1, 4],
        "nodes_falseleafs": [1, 1, 1],
        "leaf_targetids": [0] * 5,
        "leaf_weights": constant("", [1.0, 2.0, 3.0, 4.0, 5.0]),
    }
    given = {name: value for name, value in {**attributes, **changes}.items() if value is not None}
    return model([node("TreeEnsemble", "X", "y", domain=ML, **given)], width=2)


def old_form(**changes: Any) -> Any:
    """Return a model of one tree of depth two in the form of ``ai.onnx.ml`` 1 to 3."""
    attributes: Attributes = {
        "n_targets": 1,
        "nodes_treeids": [0] * 5,
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0, 1, 0, 0, 0],
        "nodes_values": [0.0, 1.0, 0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 3, 0, 0, 0],
        "nodes_falsenodeids": [2, 4, 0, 0, 0],
        "target_treeids": [0, 0, 0],
        "target_nodeids": [2, 3, 4],
        "target_ids": [0, 0, 0],
        "target_weights": [1.0, 2.0, 3.0],
    }
    given = {name: value for name, value in {**attributes, **changes}.items() if value is not None}
    made = node("TreeEnsembleRegressor", "X", "f", domain=ML, **given)
    cast = node("Cast", "f", "y", to=TensorProto.DOUBLE)
    return model([made, cast], width=2, opsets={"": 21, ML: 3})


def two_old_trees(**changes: Any) -> Any:
    """Return a model of two trees in that form: a node with two leaves, and a leaf."""
    attributes: Attributes = {
        "nodes_treeids": [0, 0, 0, 1],
        "nodes_nodeids": [0, 1, 2, 0],
        "nodes_featureids": [0] * 4,
        "nodes_values": [0.0] * 4,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 0],
        "target_treeids": [0, 0, 1],
        "target_nodeids": [1, 2, 0],
    }
    return old_form(**{**attributes, **changes})


def classifier(**changes: Any) -> Any:
    """Return the same as a classifier of three labels."""
    made = old_form()
    (ensemble_, _) = made.graph.node
    ensemble_.op_type = "TreeEnsembleClassifier"
    kept = [each for each in ensemble_.attribute if each.name != "n_targets"]
    for each in kept:
        each.name = each.name.replace("target_", "class_")
    given = {"class_ids": [0, 1, 2], "classlabels_int64s": [7, 8, 9], **changes}
    kept = [each for each in kept if each.name not in given]
    kept += [helper.make_attribute(name, value) for name, value in given.items() if value is not None]
    del ensemble_.attribute[:]
    ensemble_.attribute.extend(kept)
    ensemble_.output[:] = ["label", "f"]
    del made.graph.node[1:]
    made.graph.node.append(node("Cast", "label", "y", to=TensorProto.DOUBLE))
    return made


SOUND: dict[str, Callable[[], Any]] = {
    "leaves of their own": new_form,
    "missing values": lambda: new_form(nodes_missing_value_tracks_true=[1, 0, 1]),
    "a leaf on both sides": lambda: new_form(nodes_falsenodeids=[2, 0, 4]),
    "one list of nodes": old_form,
    "one list of two trees": two_old_trees,
    "labels": classifier,
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_trees_pass_and_compute(name: str) -> None:
    bounded = bound_graphs([graph_of(SOUND[name]())], signature(2))
    session = open_session(bytes(bounded.graphs[0].content))
    assert len(session.run(None, {"X": np.zeros((3, 2))})[0]) == 3


# by the reason of the refusal
BROKEN: dict[str, dict[str, Callable[[], Any]]] = {
    "a node reads a column that does not exist": {
        "a column that is not there": lambda: new_form(nodes_featureids=[0, 1, 2]),
        "a negative column": lambda: new_form(nodes_featureids=[0, -1, 1]),
        "old: a column that is not there": lambda: old_form(nodes_featureids=[0, 2, 0, 0, 0]),
    },
    "a child is no node": {
        "a child that is no node": lambda: new_form(nodes_truenodeids=[3, 0, 3]),
        "a child that is no leaf": lambda: new_form(nodes_truenodeids=[1, 0, 5]),
        "a negative child": lambda: new_form(nodes_truenodeids=[-1, 0, 3]),
        "old: a child that is no node": lambda: old_form(nodes_truenodeids=[1, 9, 0, 0, 0]),
        "old: a child in another tree": lambda: two_old_trees(nodes_truenodeids=[1 << 31, 0, 0, 0]),
    },
    "a node has two parents": {
        "a circle": lambda: new_form(nodes_trueleafs=[0, 0, 1], nodes_truenodeids=[1, 0, 3]),
        "a node that is its own child": lambda: new_form(nodes_trueleafs=[0, 0, 1], nodes_truenodeids=[1, 1, 3]),
        "a node with two parents": lambda: new_form(nodes_falseleafs=[0, 1, 1], nodes_falsenodeids=[1, 1, 4]),
        "a child in another tree": lambda: new_form(nodes_falseleafs=[0, 1, 1], nodes_falsenodeids=[2, 1, 4]),
        "a root twice": lambda: new_form(tree_roots=[0, 2, 2]),
        "old: a circle": lambda: old_form(nodes_truenodeids=[1, 0, 0, 0, 0]),
        "old: a node with two parents": lambda: old_form(nodes_falsenodeids=[1, 4, 0, 0, 0]),
    },
    "a root is no node": {
        "a root that is no node": lambda: new_form(tree_roots=[0, 3]),
    },
    "a node is reached from no root": {
        "a node that no root reaches": lambda: new_form(tree_roots=[0]),
    },
    "tree_roots is missing": {
        "no roots": lambda: new_form(tree_roots=None),
    },
    "a leaf adds to an output that does not exist": {
        "a target that is not there": lambda: new_form(leaf_targetids=[0, 0, 0, 0, 1]),
        "no targets": lambda: new_form(n_targets=0),
        "old: a target that is not there": lambda: old_form(target_ids=[0, 0, 1]),
        "labels: one too few": lambda: classifier(classlabels_int64s=[7, 8]),
    },
    "nodes_splits is not as it should be": {
        "fewer thresholds": lambda: new_form(nodes_splits=constant("", [0.0, 1.0])),
        "thresholds of another type": lambda: new_form(nodes_splits=constant("", [0.0, 1.0, 2.0], np.float32)),
    },
    "nodes_modes is not as it should be": {
        "fewer modes": lambda: new_form(nodes_modes=constant("", [0], np.uint8)),
    },
    "a node compares in a way not known": {
        "a mode that is not known": lambda: new_form(nodes_modes=constant("", [0, 0, 6], np.uint8)),
        "old: a mode that is not known": lambda: old_form(nodes_modes=["SETS", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"]),
    },
    "a node compares with a set": {
        "sets": lambda: new_form(membership_values=constant("", [0.0])),
    },
    "leaf_weights is not as it should be": {
        "fewer weights": lambda: new_form(leaf_weights=constant("", [1.0])),
    },
    "its lists of nodes have not one length": {
        "fewer children": lambda: new_form(nodes_falsenodeids=[2, 1]),
        "fewer directions": lambda: new_form(nodes_missing_value_tracks_true=[1]),
        "old: fewer directions": lambda: old_form(nodes_missing_value_tracks_true=[1]),
    },
    "nodes_falsenodeids is missing": {
        "no children": lambda: new_form(nodes_falsenodeids=None),
    },
    "two nodes have one number": {
        "old: two nodes of one number": lambda: old_form(nodes_nodeids=[0, 1, 2, 3, 3]),
    },
    "a number is not one of a node": {
        "old: a number beyond any": lambda: old_form(nodes_nodeids=[0, 1, 2, 3, 1 << 40]),
        "old: a weight of a number beyond any": lambda: old_form(target_nodeids=[2, 3, 1 << 40]),
    },
    "a weight belongs to no leaf": {
        "old: a weight of no leaf": lambda: old_form(target_nodeids=[1, 3, 4]),
        "old: a weight of no node": lambda: old_form(target_nodeids=[2, 3, 9]),
    },
    "a leaf has no weight": {
        "old: a leaf without a weight": lambda: old_form(target_nodeids=[2, 3, 3]),
    },
    "target_weights has not 3 numbers": {
        "old: fewer weights": lambda: old_form(target_weights=[1.0]),
    },
    "nodes_values has not 5 numbers": {
        "old: fewer thresholds": lambda: old_form(nodes_values=[1.0]),
    },
    "base_values are not one for each output": {
        "old: base values for others": lambda: old_form(base_values=[1.0, 2.0, 3.0]),
    },
    "its labels are neither texts nor integers": {
        "labels: of two kinds": lambda: classifier(classlabels_strings=["a", "b", "c"]),
        "labels: none": lambda: classifier(classlabels_int64s=None),
    },
    "nodes_values_as_tensor is not known": {
        "old: thresholds as a tensor": lambda: old_form(nodes_values_as_tensor=constant("", [0.0] * 5)),
    },
    "the nodes of a tree are not one after another": {
        "old: a tree in two parts": lambda: two_old_trees(nodes_treeids=[0, 1, 0, 0], nodes_nodeids=[0, 0, 1, 2]),
    },
    "predict gives .* values for a row": {
        "more targets than memory": lambda: new_form(n_targets=1 << 40),
    },
}  # fmt: skip


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, cases in BROKEN.items() for name in cases])
def test_a_broken_relation_is_refused(reason: str, name: str) -> None:
    with pytest.raises(GraphRefused, match=reason):
        bound_graphs([graph_of(BROKEN[reason][name]())], signature(2))


def chain(depth: int) -> Any:
    """Return a model of one tree in which every node has a leaf and the next node below it."""
    return new_form(
        tree_roots=[0],
        nodes_featureids=[0] * depth,
        nodes_splits=constant("", np.arange(depth, dtype=np.float64)),
        nodes_modes=constant("", np.zeros(depth, np.uint8)),
        nodes_truenodeids=list(range(depth)),
        nodes_trueleafs=[1] * depth,
        nodes_falsenodeids=list(range(1, depth + 1)),
        nodes_falseleafs=[0] * (depth - 1) + [1],
        leaf_targetids=[0] * (depth + 1),
        leaf_weights=constant("", np.ones(depth + 1)),
    )


def test_depth_is_bounded_and_counted() -> None:
    assert bound_graphs([graph_of(chain(MOST_DEPTH))], signature(2)).steps == MOST_DEPTH
    with pytest.raises(GraphRefused, match=f"deeper than {MOST_DEPTH} nodes"):
        bound_graphs([graph_of(chain(MOST_DEPTH + 1))], signature(2))
    assert bound_graphs([graph_of(new_form())], signature(2)).steps == 3

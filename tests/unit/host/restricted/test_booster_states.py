"""Boosters with wrong bytes: data that XGBoost and LightGBM would follow unchecked is refused before they read it."""

from __future__ import annotations

import copyreg
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from serving.domain.version import Format
from serving.host.boosters import load_native_file
from serving.host.model import LoadRefused
from serving.host.restricted import Distrusted, load_restricted
from serving.host.restricted.sound.booster_states import find_state_problem
from serving.host.restricted.sound.requirements import Unsound
from serving.host.restricted.sound.tree_walks import count_reached_nodes
from tests.hostile.boosters import resized
from tests.sound.composed import boosters

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 4))
LABELS = np.arange(200) % 3
SUMS = ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2]
CITIES = pd.DataFrame({"city": pd.Categorical(np.array(["Lima", "Oslo", "Rome"])[LABELS]), "size": ROWS[:, 0]})
CODES = np.column_stack([ROWS[:, 0], RANDOM.integers(0, 40, 200)])

Document = dict[str, Any]
Lie = Callable[[Any], None]


# --- XGBoost ----------------------------------------------------------------------------------------------------------


def fit_booster(**options: Any) -> xgboost.Booster:
    rows = xgboost.DMatrix(ROWS, options.pop("labels", SUMS))
    return xgboost.train({"nthread": 1, "verbosity": 0, **options}, rows, 3)


@cache
def save_as_json(kind: str) -> bytes:
    """Return a model in JSON, which a pickle holds in UBJSON."""
    if kind == "cities":
        rows = xgboost.DMatrix(CITIES, LABELS == 1, enable_categorical=True)
        made = xgboost.train({"max_cat_to_onehot": 1, "nthread": 1}, rows, 3)
    elif kind == "classes":
        made = fit_booster(objective="multi:softprob", num_class=3, labels=LABELS)
    elif kind == "several":
        made = fit_booster(multi_strategy="multi_output_tree", labels=np.column_stack([SUMS, -SUMS]))
    elif kind == "pruned":
        made = fit_booster(updater="grow_colmaker,prune", gamma=2.0, max_depth=6)
    else:
        made = fit_booster(booster=kind)
    model = json.loads(bytes(made.save_raw("json")))
    return json.dumps({"Model": model, "Config": json.loads(made.save_config())}).encode()


def learner(document: Document) -> Document:
    found: Document = document["Model"]["learner"]
    return found


def model(document: Document) -> Document:
    booster = learner(document)["gradient_booster"]
    found: Document = booster.get("gbtree", booster)["model"]
    return found


def put(where: Callable[[Document], Any], name: Any, value: Any) -> Lie:
    """Change one part of a document; a function gets the old value."""

    def lie(document: Document) -> None:
        place = where(document)
        place[name] = value(place[name]) if callable(value) else value

    return lie


def drop(where: Callable[[Document], Any], name: str) -> Lie:
    return lambda document: where(document).pop(name)


def in_tree(name: str, value: Any, place: int | None = None) -> Lie:
    """Change an array of the first tree, or one number in it."""

    def lie(document: Document) -> None:
        tree = model(document)["trees"][0]
        if place is None:
            tree[name] = value(tree[name]) if callable(value) else value
        else:
            tree[name][place] = value

    return lie


def shorten(found: list[Any]) -> list[Any]:
    return found[:-1]


def parameter(name: str, value: str) -> Lie:
    return put(lambda document: model(document)["trees"][0]["tree_param"], name, value)


def last_node(document: Document) -> int:
    return len(model(document)["trees"][0]["left_children"]) - 1


def loop(document: Document) -> None:
    """Make a leaf the parent of its own grandparent: a cycle beside a tree that is only a root."""
    tree = model(document)["trees"][0]
    tree["left_children"][0] = tree["right_children"][0] = -1
    first, second = 1, 2
    for node in (first, second):
        tree["left_children"][node] = tree["right_children"][node] = -1
    tree["left_children"][first], tree["right_children"][first] = 1, 2
    tree["parents"][first] = tree["parents"][second] = 1


def share(document: Document) -> None:
    """Give both children of the root the same children."""
    tree = model(document)["trees"][0]
    for name in ("left_children", "right_children"):
        tree[name][2] = tree[name][1]


def chain(document: Document) -> None:
    """Make a tree a single long path."""
    tree, depth = model(document)["trees"][0], 10_050
    count = 2 * depth + 1
    tree["left_children"] = [node + 1 if node % 2 == 0 and node < count - 1 else -1 for node in range(count)]
    tree["right_children"] = [child + 1 if child >= 0 else -1 for child in tree["left_children"]]
    tree["parents"] = [(1 << 31) - 1] + [(node - 1) // 2 * 2 for node in range(1, count)]
    for name in ("split_indices", "default_left", "split_type"):
        tree[name] = [0] * count
    for name in ("split_conditions", "base_weights", "loss_changes", "sum_hessian"):
        tree[name] = [0.5] * count
    tree["tree_param"]["num_nodes"] = str(count)


def delete_root(document: Document) -> None:
    put(lambda found: model(found)["trees"][0]["split_indices"], 0, (1 << 31) - 1)(document)


def softmax(value: str, part: str = "Model") -> Lie:
    return put(lambda found: found[part]["learner"]["objective"]["softmax_multiclass_param"], "num_class", value)


def encoding(document: Document) -> Document:
    found: Document = model(document)["cats"]
    return found


def city(document: Document) -> Document:
    found: Document = encoding(document)["enc"][0]
    return found


def options(document: Document) -> Document:
    found: Document = learner(document)["learner_model_param"]
    return found


def first_split(document: Document) -> int:
    found: list[int] = model(document)["trees"][0]["left_children"]
    return next(node for node, child in enumerate(found) if child < 0)


def split_leaf_by_category(document: Document) -> None:
    model(document)["trees"][0]["split_type"][first_split(document)] ^= 1


def ring(document: Document) -> None:
    """Make two nodes ancestors of each other, and the root a leaf, with matching parents."""
    tree = model(document)["trees"][0]
    tree["left_children"] = [-1, 3, -1, 1, -1]
    tree["right_children"] = [child + 1 if child >= 0 else -1 for child in tree["left_children"]]
    tree["parents"] = [(1 << 31) - 1, 3, 3, 1, 1]
    for name in ("split_indices", "default_left", "split_type"):
        tree[name] = [0] * 5
    for name in ("split_conditions", "base_weights", "loss_changes", "sum_hessian"):
        tree[name] = [0.5] * 5
    tree["tree_param"]["num_nodes"] = "5"


TREES = "gbtree"
XGBOOST_LIES: dict[str, tuple[str, Lie, str]] = {
    "a child before": (TREES, in_tree("left_children", 0, 0), "leads to a node that is not its child"),
    "a child beyond": (TREES, in_tree("left_children", 10**8, 0), "leads to a node that is not its child"),
    "a negative child": (TREES, in_tree("left_children", -5, 0), "leads to a node that is not its child"),
    "a right child beyond": (TREES, in_tree("right_children", 10**8, 0), "leads to a node that is not its child"),
    "a right child that is the left": (TREES, in_tree("right_children", 1, 0), "leads to a node that is not its child"),
    "one child": (TREES, in_tree("left_children", -1, 0), "has one child"),
    "a loop beside": (TREES, loop, "is not the child of its parent"),
    "a loop that agrees": (TREES, ring, "not reached from the root"),
    "shared children": (TREES, share, "is not the child of its parent"),
    "a chain": (TREES, chain, "more than 10000 levels"),
    "a parent beyond": (TREES, in_tree("parents", 10**8, 1), "a parent that does not exist"),
    "a negative parent": (TREES, in_tree("parents", -1, 1), "a parent that does not exist"),
    "another parent": (TREES, in_tree("parents", 3, 1), "not the child of its parent"),
    "a root with a parent": (TREES, in_tree("parents", 1, 0), "a root has a parent"),
    "a feature beyond": (TREES, in_tree("split_indices", 4, 0), "a feature it does not have"),
    "a feature before": (TREES, in_tree("split_indices", -1, 0), "a feature it does not have"),
    "a root that is deleted": (TREES, delete_root, "a feature it does not have"),
    "deleted nodes that are not": ("pruned", parameter("num_deleted", "0"), "number of deleted nodes is wrong"),
    "a parent of the deleted beyond": (
        "pruned",
        lambda document: in_tree("parents", 10**8, last_node(document))(document),
        "a parent that does not exist",
    ),
    "fewer parents": (TREES, in_tree("parents", shorten), "not as many as nodes"),
    "fewer conditions": (TREES, in_tree("split_conditions", shorten), "not as many as nodes"),
    "fewer directions": (TREES, in_tree("default_left", shorten), "not as many as nodes"),
    "fewer weights": (TREES, in_tree("base_weights", shorten), "not as many as nodes"),
    "more nodes than there are": (TREES, parameter("num_nodes", "1000000000"), "not as many as nodes"),
    "no nodes": (TREES, parameter("num_nodes", "0"), "num_nodes is 0"),
    "nodes that are no number": (TREES, parameter("num_nodes", "7 "), "num_nodes is no number"),
    "no children": (TREES, drop(lambda document: model(document)["trees"][0], "left_children"), "no left_children"),
    "leaves of more answers": (TREES, parameter("size_leaf_vector", "7"), "other answers than the model"),
    "children that are floats": (TREES, in_tree("left_children", 1.5, 0), "holds no integers"),
    "a split of no kind": (TREES, in_tree("split_type", 7, 0), "type of split that XGBoost does not know"),
    "fewer kinds of splits": (TREES, in_tree("split_type", shorten), "not as many as nodes"),
    "a category where none is": (TREES, in_tree("split_type", 1, 0), "categories for other nodes"),
    "sizes where no categories are": (TREES, in_tree("categories_sizes", [3]), "do not add up"),
    "two trees that are one": (
        TREES, put(lambda document: model(document)["trees"][0], "id", 1), "two trees have one id",
    ),
    "more trees": (
        TREES, put(lambda document: model(document)["gbtree_model_param"], "num_trees", "4"), "of trees is wrong",
    ),
    "no trees in a round": (
        TREES,
        put(lambda document: model(document)["gbtree_model_param"], "num_parallel_tree", "0"),
        "num_parallel_tree is 0",
    ),
    "a tree of no class": (
        "classes", put(lambda document: model(document)["tree_info"], 0, 3), "an answer that does not exist",
    ),
    "a tree of a negative class": (
        "classes", put(lambda document: model(document)["tree_info"], 0, -1), "an answer that does not exist",
    ),
    "a round beyond": (
        TREES, put(lambda document: model(document)["iteration_indptr"], 1, 99), "rounds are not made",
    ),
    "a round before": (
        TREES, put(lambda document: model(document)["iteration_indptr"], 0, -4), "rounds are not made",
    ),
    "rounds that end early": (TREES, put(model, "iteration_indptr", shorten), "rounds are not made"),
    "neither rounds nor trees": (
        TREES,
        put(learner, "gradient_booster", {"name": "gbtree", "model": {
            "gbtree_model_param": {"num_trees": "0"}, "tree_info": [], "trees": [],
        }}),
        "neither rounds nor trees",
    ),
    "fewer dropped": (
        "dart", put(lambda document: learner(document)["gradient_booster"], "weight_drop", shorten),
        "a weight for each tree",
    ),
    "fewer linear weights": ("gblinear", put(model, "weights", shorten), "weight for each feature"),
    "no linear weights": ("gblinear", drop(model, "weights"), "KeyError"),
    "another booster": (
        TREES, put(lambda document: learner(document)["gradient_booster"], "name", "gbforest"), "its booster is",
    ),
    "an objective of no classes": ("classes", softmax("0"), "another number of classes"),
    "an objective of more classes": ("classes", softmax("9"), "another number of classes"),
    "options of more classes": ("classes", softmax("9", "Config"), "another number of classes"),
    "a model of fewer classes": ("classes", put(options, "num_class", "2"), "another number of classes"),
    "no objective": (TREES, drop(learner, "objective"), "KeyError"),
    "features that are no number": (TREES, put(options, "num_feature", "four"), "num_feature is no number"),
    "fewer features": (TREES, put(options, "num_feature", "1"), "a feature it does not have"),
    "more names": (TREES, put(learner, "feature_names", ["a"] * 9), "not those of its features"),
    "names that are numbers": (TREES, put(learner, "feature_types", [1, 2, 3, 4]), "not those of its features"),
    "a best round before the first": (
        TREES, put(lambda document: learner(document)["attributes"], "best_iteration", "-5"), "best_iteration",
    ),
    "attributes that are numbers": (
        TREES, put(lambda document: learner(document)["attributes"], "x", 5), "its attributes are no texts",
    ),
    "a category beyond": ("cities", in_tree("categories", 1 << 25, 0), "has no place"),
    "a category before": ("cities", in_tree("categories", -1, 0), "has no place"),
    "more categories": ("cities", in_tree("categories_sizes", 99, 0), "do not add up"),
    "no categories": ("cities", in_tree("categories_sizes", 0, 0), "do not add up"),
    "categories from elsewhere": ("cities", in_tree("categories_segments", 50, 0), "do not add up"),
    "categories of another node": ("cities", in_tree("categories_nodes", 2, 0), "categories for other nodes"),
    "a leaf by category": ("cities", split_leaf_by_category, "categories for other nodes"),
    "a name that ends beyond": (
        "cities", put(lambda document: city(document)["offsets"], -1, 1000), "encoding does not add up",
    ),
    "a name that ends before": (
        "cities", put(lambda document: city(document)["offsets"], 1, -5), "encoding does not add up",
    ),
    "more named categories": (
        "cities", put(lambda document: encoding(document)["feature_segments"], -1, 99), "does not add up",
    ),
    "an order beyond": ("cities", put(lambda document: encoding(document)["sorted_idx"], 0, 99), "not in order"),
    "an order before": ("cities", put(lambda document: encoding(document)["sorted_idx"], 0, -1), "not in order"),
    "a shorter order": ("cities", put(encoding, "sorted_idx", shorten), "not in order"),
    "names of fewer features": ("cities", put(encoding, "enc", shorten), "other features"),
    "an answer beyond": (
        "several",
        lambda document: in_tree("right_children", 99, first_split(document))(document),
        "an answer that does not exist",
    ),
    "fewer answers": ("several", in_tree("leaf_weights", shorten), "answers of another size"),
    "no answers": ("several", drop(lambda document: model(document)["trees"][0], "leaf_weights"), "before 3.2"),
    "no kinds of splits": (
        "several", drop(lambda document: model(document)["trees"][0], "split_type"), "in which way it splits",
    ),
    "fewer gains": ("several", in_tree("loss_changes", shorten), "not as many as nodes"),
    "an objective without a name": (
        TREES, put(lambda document: learner(document)["objective"], "name", 5), "its objective has no name",
    ),
    "trees by name": (TREES, put(model, "trees", {}), "no list of trees"),
    "an encoding by name": ("cities", put(encoding, "enc", {}), "no list"),
    "an order of nothing": (TREES, put(encoding, "sorted_idx", [0]), "has no columns"),
    "categories of no type": (
        "cities", put(lambda document: encoding(document)["enc"], 1, {"values": [], "type": "x"}), "has no type",
    ),
    "letters of no name": (
        "cities", put(lambda document: encoding(document)["enc"], 1, {"values": [7], "offsets": []}), "not add up",
    ),
    "no gains": ("several", drop(lambda document: model(document)["trees"][0], "loss_changes"), "KeyError"),
}  # fmt: skip


def problem(kind: type, state: Any) -> str:
    return find_state_problem(kind, state) or ""


@pytest.mark.parametrize("name", XGBOOST_LIES)
def test_a_wrong_xgboost_model_is_refused(name: str) -> None:
    kind, lie, said = XGBOOST_LIES[name]
    assert problem(xgboost.Booster, {"handle": bytearray(save_as_json(kind))}) == ""
    document = json.loads(save_as_json(kind))
    lie(document)
    assert said in problem(xgboost.Booster, {"handle": bytearray(json.dumps(document).encode())})


def test_a_shared_node_ends_the_walk_early() -> None:
    left = np.array([1, 2, 3, -1])
    with pytest.raises(Unsound, match="two parents"):
        count_reached_nodes(left, left, np.array([0]))


def test_leaves_with_several_answers_of_older_xgboost_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xgboost, "__version__", "3.1.3")
    document = json.loads(save_as_json("several"))
    for tree in model(document)["trees"]:
        del tree["leaf_weights"]
    assert problem(xgboost.Booster, {"handle": bytearray(json.dumps(document).encode())}) == ""
    in_tree("base_weights", shorten)(document)
    assert "answers of another size" in problem(xgboost.Booster, {"handle": bytearray(json.dumps(document).encode())})


def test_a_pruned_tree_has_deleted_nodes() -> None:
    trees = model(json.loads(save_as_json("pruned")))["trees"]
    assert int(trees[0]["tree_param"]["num_deleted"]) > 0


LONG = struct.Struct(">q")
SOUND = bytes(fit_booster().__getstate__()["handle"])
MODEL = json.loads(bytes(fit_booster().save_raw("json")))


def replace_bytes(old: bytes, new: bytes) -> bytes:
    """Return the bytes of a model with the first occurrence of `old` replaced."""
    assert old in SOUND
    return SOUND.replace(old, new, 1)


def claim_count(name: str, count: int) -> bytes:
    """Return the bytes of a model in which an array claims to have `count` numbers."""
    place = re.search(name.encode() + rb"\[\$.#L", SOUND)
    assert place
    return SOUND[: place.end()] + LONG.pack(count) + SOUND[place.end() + 8 :]


BYTES: dict[str, tuple[Any, str]] = {
    "half": (SOUND[: len(SOUND) // 2], "its bytes end early"),
    "all but one": (SOUND[:-1], "its bytes end early"),
    "one more": (SOUND + b"}", "something follows"),
    "a key beyond": (replace_bytes(LONG.pack(6) + b"Config", LONG.pack(1 << 40) + b"Config"), "its bytes end early"),
    "a negative key": (replace_bytes(LONG.pack(6) + b"Config", LONG.pack(-1) + b"Config"), "its bytes end early"),
    "a short length": (replace_bytes(b"{L" + LONG.pack(6) + b"Config", b"{i\6Config"), "not of 64 bits"),
    "an array beyond": (claim_count("left_children", 1 << 40), "its bytes end early"),
    "a negative array": (claim_count("left_children", -1), "its bytes end early"),
    "an array that swallows others": (claim_count("base_weights", 40), "do not fit|marker|end early|64 bits"),
    "an array of another type": (replace_bytes(b"left_children[$l", b"left_children[$d"), "of another type"),
    "conditions of another type": (replace_bytes(b"split_conditions[$d", b"split_conditions[$l"), "of another type"),
    "an array of no type": (replace_bytes(b"left_children[$l", b"left_children[$q"), "of no known type"),
    "an unknown marker": (
        replace_bytes(LONG.pack(5) + b"ModelX"[:5] + b"{", LONG.pack(5) + b"Model@"),
        "the marker 64",
    ),
    "the same part twice": (
        replace_bytes(b"L" + LONG.pack(5) + b"Model{", b"L" + LONG.pack(6) + b"ConfigZL" + LONG.pack(5) + b"Model{"),
        "the part Config twice",
    ),
    "a deep one": (b"{L" + LONG.pack(5) + b"Model" + b"[" * 100_000, "nested more than"),
    "a deep text": (b'{"Model":' + b"[" * 100_000, "RecursionError"),
    "a text with a part twice": (b'{"Model": {}, "Model": {}}', "one of its parts twice"),
    "a text with spelled characters": (b'{"Model": {}, "M\\u006fdel": {}}', "spells characters"),
    "options beside a bare model": (json.dumps({**MODEL, "Config": {}}).encode(), "options but no model"),
    "a text that ends beyond": (b"{L" + LONG.pack(1) + b"aSL" + LONG.pack(20) + b"b" * 12, "its bytes end early"),
    "numbers that end beyond": (b"{L" + LONG.pack(1) + b"a[$L#L" + LONG.pack(9) + b"b" * 12, "its bytes end early"),
    "a binary model": (b"binf" + bytes(200), "a format of XGBoost before 3.1"),
    "a binary snapshot": (b"CONFIG-offset:" + bytes(200), "a format of XGBoost before 3.1"),
    "nothing": (b"", "no model"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_xgboost_model_are_refused(name: str) -> None:
    raw, said = BYTES[name]
    assert problem(xgboost.Booster, {"handle": bytearray(SOUND)}) == ""
    assert re.search(said, problem(xgboost.Booster, {"handle": bytearray(raw)}))


def test_linear_weights_of_another_type_are_refused() -> None:
    sound = bytes(fit_booster(booster="gblinear").__getstate__()["handle"])
    assert problem(xgboost.Booster, {"handle": bytearray(sound)}) == ""
    assert b"weights[$d" in sound
    forged = sound.replace(b"weights[$d", b"weights[$l", 1)
    assert "of another type" in problem(xgboost.Booster, {"handle": bytearray(forged)})


def test_a_tree_in_another_order_is_read_too() -> None:
    weights = re.search(rb"L\0{7}\x0cbase_weights\[\$d#L.{7}(.)", SOUND, re.DOTALL)
    assert weights
    end = weights.end() + 4 * weights[1][0]
    piece = SOUND[weights.start() : end]
    param = SOUND.index(b"L" + LONG.pack(10) + b"tree_param", end)
    other = SOUND[: weights.start()] + SOUND[end:param] + piece + SOUND[param:]
    assert problem(xgboost.Booster, {"handle": bytearray(other)}) == ""


# --- LightGBM ---------------------------------------------------------------------------------------------------------


@cache
def text(kind: str) -> str:
    quiet = {"verbose": -1, "num_threads": 1, "num_leaves": 5, "min_data_in_leaf": 3, "min_data_per_group": 1}
    if kind == "categories":
        rows = lightgbm.Dataset(CODES, LABELS == 1, categorical_feature=[1])
        made = lightgbm.train({**quiet, "cat_smooth": 0}, rows, 3)
    elif kind == "classes":
        made = lightgbm.train({**quiet, "objective": "multiclass", "num_class": 3}, lightgbm.Dataset(ROWS, LABELS), 3)
    else:
        made = lightgbm.train({**quiet, "linear_tree": kind == "linear"}, lightgbm.Dataset(ROWS, SUMS), 3)
    found: str = made.model_to_string()
    return found


def line(name: str, change: Callable[[list[str]], list[Any]], tree: int = 0) -> Callable[[str], str]:
    """Return a function that changes the numbers in the line `name`, of one tree or in the head."""

    def lie(found: str) -> str:
        match = list(re.finditer(rf"^{name}=(.*)$", found, flags=re.MULTILINE))[tree]
        return resized(found[: match.start(1)] + " ".join(map(str, change(match[1].split()))) + found[match.end(1) :])

    return lie


def number(value: Any, place: int = 0) -> Callable[[list[str]], list[Any]]:
    return lambda found: [*found[:place], value, *found[place + 1 :]]


def drop_last(found: list[str]) -> list[Any]:
    return found[:-1]


def more(name: str, value: str) -> Callable[[str], str]:
    """Return a function that puts a line before the first line `name`."""
    return lambda found: resized(re.sub(rf"^{name}=", f"{value}\n{name}=", found, count=1, flags=re.MULTILINE))


def without(name: str) -> Callable[[str], str]:
    return lambda found: resized(re.sub(rf"^{name}=.*\n", "", found, count=1, flags=re.MULTILINE))


def swap(old: str, new: str) -> Callable[[str], str]:
    def lie(found: str) -> str:
        assert old in found
        return found.replace(old, new, 1)

    return lie


def first_twice(found: list[str]) -> list[Any]:
    return [found[1] if place == 0 else value for place, value in enumerate(found)]


def ring_of_leaves(found: str) -> str:
    """Give the root two leaves, and make two nodes each other's children, with the rest of the leaves."""
    changed = re.sub(r"^left_child=.*$", "left_child=-1 2 1 -3", found, count=1, flags=re.MULTILINE)
    return re.sub(r"^right_child=.*$", "right_child=-2 3 -5 -4", changed, count=1, flags=re.MULTILINE)


SPLITS = "trees"
LIGHTGBM_LIES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "a child that is the root": (SPLITS, line("left_child", number(0)), "leads to a node that does not exist"),
    "a child beyond": (SPLITS, line("left_child", number(10**7)), "leads to a node that does not exist"),
    "a leaf beyond": (SPLITS, line("right_child", number(-(10**8))), "leads to a node that does not exist"),
    "a leaf one beyond": (SPLITS, line("right_child", number(-6)), "leads to a node that does not exist"),
    "a shared child": (SPLITS, line("left_child", first_twice), "two parents, or none"),
    "a loop": (SPLITS, lambda found: resized(ring_of_leaves(found)), "not reached from the root"),
    "a feature beyond": (SPLITS, line("split_feature", number(4)), "a feature it does not have"),
    "a feature before": (SPLITS, line("split_feature", number(-1)), "a feature it does not have"),
    "fewer features": (SPLITS, line("split_feature", drop_last), "not as many as it counts"),
    "fewer children": (SPLITS, line("left_child", drop_last), "not as many as it counts"),
    "fewer thresholds": (SPLITS, line("threshold", drop_last), "not as many as it counts"),
    "fewer values": (SPLITS, line("leaf_value", drop_last), "not as many as it counts"),
    "fewer weights": (SPLITS, line("leaf_weight", drop_last), "not as many as it counts"),
    "fewer decisions": (SPLITS, line("decision_type", drop_last), "not as many as it counts"),
    "more leaves": (SPLITS, line("num_leaves", number(10**9)), "not as many as it counts"),
    "no leaves": (SPLITS, line("num_leaves", number(0)), "no leaves"),
    "leaves that are no number": (SPLITS, line("num_leaves", number("x")), "numbers is malformed"),
    "a child that is no number": (SPLITS, line("left_child", number("1e3")), "numbers is malformed"),
    "a child in the billions": (SPLITS, line("left_child", number(1 << 40)), "numbers is malformed"),
    "a value that is no number": (SPLITS, line("leaf_value", number("x")), "numbers is malformed"),
    "a value that is a sign": (SPLITS, line("leaf_value", number("-")), "numbers is malformed"),
    "a value that is not there": (SPLITS, line("leaf_value", number("")), "numbers is malformed"),
    "a gain that is none": (SPLITS, line("split_gain", number("0x")), "numbers is malformed"),
    "a shrinkage that is none": (SPLITS, line("shrinkage", number("?")), "numbers is malformed"),
    "a decision beyond": (SPLITS, line("decision_type", number(99)), "decision type that LightGBM does not know"),
    "a category where none is": (SPLITS, line("decision_type", number(1)), "categories it does not have"),
    "no categories": (SPLITS, line("num_cat", number(2)), "KeyError"),
    "fewer categories than none": (SPLITS, line("num_cat", number(-1)), "num_cat is no number"),
    "leaves twice": (SPLITS, line("num_leaves", number("5 5")), "num_leaves is no number"),
    "a line without a name": (SPLITS, swap("num_class=1", "num_class=1\n="), "has no name"),
    "no children": (SPLITS, without("left_child"), "KeyError"),
    "no values": (SPLITS, without("leaf_value"), "KeyError"),
    "a formula that is not there": (SPLITS, line("is_linear", number(1)), "KeyError"),
    "linear in another way": (SPLITS, line("is_linear", number(2)), "is_linear"),
    "a line twice": (SPLITS, more("num_cat", "num_leaves=5"), "says something twice"),
    "a line without a value": (SPLITS, more("num_cat", "nothing"), "ValueError"),
    "too many lines": (
        SPLITS, more("num_cat", "\n".join(f"x{each}=1" for each in range(9))), "says something twice",
    ),
    "a tree of the wrong number": (SPLITS, swap("\nTree=1\n", "\nTree=7\n"), "not where it says"),
    "a size that is too long": (
        SPLITS, lambda found: re.sub(r"^(tree_sizes=)\d+", r"\g<1>99999999", found, flags=re.MULTILINE), "as long as",
    ),
    "a size that is shorter": (
        SPLITS, lambda found: re.sub(r"^(tree_sizes=)\d+", r"\g<1>100", found, flags=re.MULTILINE), "not where it says",
    ),
    "a negative size": (
        SPLITS, lambda found: re.sub(r"^(tree_sizes=)\d+", r"\g<1>-100", found, flags=re.MULTILINE), "as long as",
    ),
    "no sizes": (SPLITS, lambda found: re.sub(r"^tree_sizes=.*\n", "", found, flags=re.MULTILINE), "how long"),
    "one size less": (
        SPLITS, lambda found: re.sub(r"^(tree_sizes=.*) \d+$", r"\g<1>", found, flags=re.MULTILINE), "as long as",
    ),
    "no sizes of trees that are there": (
        SPLITS, lambda found: re.sub(r"^tree_sizes=.*$", "tree_sizes=", found, flags=re.MULTILINE), "of trees is wrong",
    ),
    "a second head": (SPLITS, swap("num_class=1", "num_class=1\nnum_class=1"), "says num_class twice"),
    "a name before the name": (SPLITS, swap("num_class=1", "=num_class=1=1"), "two values"),
    "no classes": (SPLITS, swap("num_class=1", "num_class=0"), "no answers"),
    "fewer answers than trees": (
        SPLITS, swap("num_tree_per_iteration=1", "num_tree_per_iteration=3"), "its classes differ",
    ),
    "classes that are not those": ("classes", swap("num_class:3", "num_class:9"), "another number of classes"),
    "no classes in the objective": ("classes", swap("num_class:3", "x:3"), "another number of classes"),
    "a round that is cut": ("classes", lambda found: found.replace("=3", "=2", 2).replace(":3", ":2", 1), "each round"),
    "an objective that is none": (SPLITS, swap("objective=regression", "objective=x"), "its objective is"),
    "an empty objective": (SPLITS, swap("objective=regression", "objective="), "its objective is"),
    "another number of columns": (SPLITS, swap("max_feature_idx=3", "max_feature_idx=2"), "not those of its features"),
    "columns that are no number": (SPLITS, swap("max_feature_idx=3", "max_feature_idx=-3"), "is no number"),
    "an end of text": (SPLITS, swap("num_class=1", "num_class=1\0"), "the end of a line"),
    "an end of a line": (SPLITS, swap("num_class=1", "num_class=1\r"), "the end of a line"),
    "a parameter without a value": (SPLITS, swap("[boosting: gbdt]", "[boosting]"), "has no value"),
    "words that end beyond": ("categories", line("cat_boundaries", number(99, -1)), "do not add up"),
    "words that end before": ("categories", line("cat_boundaries", number(-2, 1)), "do not add up"),
    "fewer words": ("categories", line("cat_threshold", drop_last), "do not add up"),
    "fewer boundaries": ("categories", line("cat_boundaries", drop_last), "do not add up"),
    "a category beyond": (
        "categories", lambda found: resized(re.sub(r"^threshold=.*$", lambda match: "threshold=" + " ".join(
            ["9"] * len(match[0].split())), found, count=1, flags=re.MULTILINE)), "categories it does not have",
    ),
    "fewer formulas": ("linear", line("num_features", drop_last), "not as many as it counts"),
    "formulas of more features": ("linear", line("num_features", number(999), 2), "do not add up"),
    "a formula of a negative size": ("linear", line("num_features", number(-1), 2), "a negative number of features"),
    "fewer constants": ("linear", line("leaf_const", drop_last), "not as many as it counts"),
    "fewer coefficients": ("linear", line("leaf_coeff", drop_last, 2), "do not add up"),
    "a formula of a feature beyond": ("linear", line("leaf_features", number(4), 2), "a feature it does not have"),
    "a coefficient that is none": ("linear", line("leaf_coeff", number("x"), 2), "numbers is malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIGHTGBM_LIES)
def test_a_wrong_lightgbm_model_is_refused(name: str) -> None:
    kind, lie, said = LIGHTGBM_LIES[name]
    assert problem(lightgbm.Booster, {"_handle": text(kind)}) == ""
    assert said in problem(lightgbm.Booster, {"_handle": lie(text(kind))})


def test_numbers_may_be_infinite_or_nan() -> None:
    for value in ("nan", "-nan", "inf", "-inf", "1e-300", "-5", "+7.25e+10"):
        changed = line("leaf_value", number(value))(text(SPLITS))
        assert problem(lightgbm.Booster, {"_handle": changed}) == "", value


# --- files ------------------------------------------------------------------------------------------------------------


def forge(kind: type, state: Any) -> Any:
    """Return an object whose pickle is that of an object of `kind` with this state."""

    class Forged:
        __class__ = property(lambda _: kind)  # type: ignore[assignment]

        def __reduce_ex__(self, _: Any) -> Any:
            return copyreg.__newobj__, (kind,), state  # type: ignore[attr-defined]

    return Forged()


@pytest.mark.parametrize("handle", [None, -1, 7, 1 << 40, 1.5, "text", b"bytes", [1], True], ids=repr)
def test_a_handle_is_never_an_address(handle: Any, tmp_path: Path) -> None:
    for kind, name in ((xgboost.Booster, "handle"), (lightgbm.Booster, "_handle"), (lightgbm.Booster, "handle")):
        joblib.dump(forge(kind, {name: handle}), tmp_path / "blob")
        with pytest.raises(Distrusted, match="holds a Booster that is not sound"):
            load_restricted(str(tmp_path / "blob"))


def test_a_state_is_a_dict_with_a_handle(tmp_path: Path) -> None:
    for kind in (xgboost.Booster, lightgbm.Booster):
        for state in ({}, {"x": 1}, ({"handle": None}, {"handle": None}), [("handle", -1)], 5):
            joblib.dump(forge(kind, state), tmp_path / "blob")
            with pytest.raises(Distrusted, match="Booster"):
                load_restricted(str(tmp_path / "blob"))


def test_an_older_name_of_the_handle_is_read(tmp_path: Path) -> None:
    joblib.dump(forge(lightgbm.Booster, {"handle": text(SPLITS)}), tmp_path / "blob")
    found = load_restricted(str(tmp_path / "blob"))
    assert found.num_trees() == 3


def test_native_files_are_checked(tmp_path: Path) -> None:
    document = json.loads(bytes(fit_booster().save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 10**8
    (tmp_path / "model.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(LoadRefused, match="not sound: a node leads to a node that is not its child"):
        load_native_file(str(tmp_path / "model.json"), Format.XGBOOST)
    (tmp_path / "model.txt").write_text(line("left_child", number(10**7))(text(SPLITS)), encoding="utf-8")
    with pytest.raises(LoadRefused, match="not sound: a node leads to a node that does not exist"):
        load_native_file(str(tmp_path / "model.txt"), Format.LIGHTGBM)


def test_every_sound_booster_passes() -> None:
    counts = {"xgboost": 0, "lightgbm": 0}
    for fitted in boosters():
        estimator = fitted.estimator[-1] if hasattr(fitted.estimator, "steps") else fitted.estimator
        booster = estimator.get_booster() if hasattr(estimator, "get_booster") else None
        booster = booster or getattr(estimator, "booster_", estimator)
        assert find_state_problem(type(booster), booster.__getstate__()) is None, fitted.label
        counts[type(booster).__module__.partition(".")[0]] += 1
    print(counts)
    assert min(counts.values()) >= 30


# --- chance -----------------------------------------------------------------------------------------------------------


def assert_survives(count: int, seed: int) -> None:
    """Change boosters in a new process: a fork of this one would lack the threads of the libraries."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.hostile.boosters", str(count), str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    print(counts)
    assert set(counts) == {"refused", "raised", "answered"}
    assert sum(counts.values()) == count


def test_a_changed_booster_never_ends_the_process() -> None:
    assert_survives(400, seed=5)


@pytest.mark.soak
def test_many_changed_boosters_never_end_the_process() -> None:
    assert_survives(20_000, seed=11)

"""Boosters of LightGBM: what its reader and its predictor believe of the text of a model.

After ``src/boosting/gbdt_model_text.cpp``, ``src/io/tree.cpp`` and ``include/LightGBM/tree.h`` of LightGBM 4.7. Its
reader ends the process where a number is none, because it reads trees in threads. Lines are split as it splits them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.number_texts import integers_in, need_numbers
from serving.host.restricted.sound.requirements import need
from serving.host.restricted.sound.tree_walks import Places, count_reached, first_places

Tree = dict[bytes, bytes]

# a tree's reader stops after so many lines
_MOST_LINES = 22
_OBJECTIVES = frozenset(
    {
        *("regression", "regression_l1", "quantile", "huber", "fair", "poisson", "mape", "gamma", "tweedie", "binary"),
        *(
            "lambdarank",
            "rank_xendcg",
            "multiclass",
            "multiclassova",
            "cross_entropy",
            "cross_entropy_lambda",
            "custom",
        ),
    }
)
_SEVERAL = ("multiclass", "multiclassova")
_CATEGORICAL, _DECISIONS = 1, 16
_FLOATS = (
    *(b"split_gain", b"threshold", b"leaf_value", b"leaf_weight", b"internal_value", b"internal_weight"),
    *(b"leaf_const", b"shrinkage"),
)


def check_lightgbm(model: str | bytes) -> None:
    """Raise Unsound, or an ordinary exception, unless `model` is a whole model of LightGBM."""
    content = model.encode() if isinstance(model, str) else model
    need(b"\0" not in content and b"\r" not in content, "it has characters that LightGBM takes for the end of a line")
    begin = content.find(b"\nTree=") + 1 or len(content)
    head = _head(content[:begin].decode())
    features = _integer(head, "max_feature_idx") + 1
    groups = _check_head(head, features)
    need("tree_sizes" in head, "it does not say how long its trees are: save it with LightGBM 2.2 or later")
    sizes = integers_in(head["tree_sizes"].encode())
    need(len(sizes) % groups == 0, "it does not have a tree for each class in each round")
    trees = _split(content, begin, sizes)
    need(bool(trees) == (begin < len(content)), "it has other trees than it counts")
    if trees:
        _Trees(trees, features).check()
        _check_parameters(content[begin + int(sizes.sum()) :].split(b"\n"))


# --- the head ---------------------------------------------------------------------------------------------------------


def _head(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in filter(None, text.split("\n")):
        parts = [part for part in line.split("=") if part]
        need(parts, "one of its lines has no name")
        need(
            len(parts) <= 2 or parts[0] in ("feature_names", "monotone_constraints"), "one of its lines has two values"
        )
        need(parts[0] not in found, f"it says {parts[0][:40]} twice")
        found[parts[0]] = "=".join(parts[1:])
    return found


def _integer(head: dict[str, str], name: str) -> int:
    text = head.get(name, "")
    need(text.isascii() and text.isdigit() and len(text) < 10, f"{name} is no number")
    return int(text)


def _check_head(head: dict[str, str], features: int) -> int:
    """Return how many trees there are in a round, one for each class."""
    _integer(head, "label_index")
    groups = _integer(head, "num_class")
    need(groups > 0, "it has no answers")
    need(
        "num_tree_per_iteration" not in head or _integer(head, "num_tree_per_iteration") == groups, "its classes differ"
    )
    for name in ("feature_names", "feature_infos"):
        need(len(head[name].split()) == features, f"{name} are not those of its features")
    if "objective" in head:
        name, *options = head["objective"].split() or [""]
        need(name in _OBJECTIVES, f"its objective is {name[:40]!r}")
        counts = [option for option in options if option.startswith("num_class")]
        need(
            name not in _SEVERAL or counts == [f"num_class:{groups}"], "its objective is for another number of classes"
        )
    return groups


def _split(content: bytes, begin: int, sizes: Places) -> list[Tree]:
    """Return the lines of each tree by name."""
    need((sizes > 0).all() and int(sizes.sum()) <= len(content) - begin, "its trees are not as long as it says")
    places = (first_places(sizes) + begin).tolist()
    trees: list[Tree] = []
    for index, (start, stop) in enumerate(pairwise(places)):
        first, *lines = content[start : stop - 2].rstrip(b"\n").split(b"\n")
        need(first == b"Tree=%d" % index and content[stop - 2 : stop] == b"\n\n", "a tree is not where it says")
        tree = dict(cast("list[tuple[bytes, bytes]]", [line.split(b"=", 1) for line in lines]))  # others raise
        need(len(tree) == len(lines) <= _MOST_LINES, "a tree says something twice")
        trees.append(tree)
    need(content.startswith(b"end of trees", places[-1]) or not trees, "its trees are not as long as it says")
    return trees


def _check_parameters(lines: list[bytes]) -> None:
    """Look at the options of the training, each ``[name: value]``: LightGBM believes that there is a value."""
    begin = lines.index(b"parameters:") + 1 if b"parameters:" in lines else len(lines)
    for line in lines[begin:]:
        if line == b"end of parameters":
            return
        need(not line or len(list(filter(None, line.split(b":")))) > 1, "one of its parameters has no value")


# --- trees ------------------------------------------------------------------------------------------------------------


class _Trees:
    """All trees of a model: those with splits are looked at together, one behind the other."""

    def __init__(self, trees: list[Tree], features: int) -> None:
        self._trees = trees
        self._features = features
        self._leaves = self._column(b"num_leaves")
        self._categories = self._column(b"num_cat")
        self._is_linear = self._column(b"is_linear", b"0")

    def _column(self, name: bytes, default: bytes | None = None) -> Places:
        """Return one number of each tree."""
        texts = [tree[name] if default is None else tree.get(name, default) for tree in self._trees]
        found = integers_in(b" ".join(texts))
        need(len(found) == len(texts), f"{name.decode()} is no number")
        return found

    def check(self) -> None:
        need((self._leaves >= 1).all(), "a tree has no leaves")
        need((self._categories >= 0).all(), "num_cat is no number")
        need(((self._is_linear == 0) | (self._is_linear == 1)).all(), "is_linear is no number")
        need_numbers(b" ".join(text for tree in self._trees for name in _FLOATS if (text := tree.get(name))))
        self._need_counts(self._trees, b"leaf_value", self._leaves)
        is_split = self._leaves > 1
        split = [self._trees[place] for place in np.flatnonzero(is_split)]
        if split:
            self._check_splits(split, self._leaves[is_split])
        for place in np.flatnonzero(self._is_linear):
            self._check_linear(self._trees[place], int(self._leaves[place]))
        for place in np.flatnonzero((self._categories > 0) & (is_split | (self._is_linear > 0))):
            self._check_categories(self._trees[place], int(self._categories[place]))

    def _need_counts(self, trees: list[Tree], name: bytes, counts: Places) -> None:
        found = [text.count(b" ") + 1 if (text := tree[name]) else 0 for tree in trees]
        need(np.array_equal(found, counts), f"{name.decode()} are not as many as it counts")

    def _integers(self, trees: list[Tree], name: bytes, counts: Places) -> Places:
        self._need_counts(trees, name, counts)
        return integers_in(b" ".join(tree[name] for tree in trees))

    def _check_splits(self, trees: list[Tree], leaves: Places) -> None:
        """Inner nodes are numbered from 0, leaves from -1 downwards."""
        inner = leaves - 1
        self._need_counts(trees, b"threshold", inner)
        weighted = [place for place, tree in enumerate(trees) if b"leaf_weight" in tree]
        self._need_counts([trees[place] for place in weighted], b"leaf_weight", leaves[weighted])
        left, right = (self._integers(trees, name, inner) for name in (b"left_child", b"right_child"))
        features = self._integers(trees, b"split_feature", inner)
        need(((features >= 0) & (features < self._features)).all(), "it splits on a feature it does not have")
        most_left, most_right = np.repeat(inner, inner), -np.repeat(leaves, inner)
        for children in (left, right):
            is_there = (children >= most_right) & (children < most_left) & (children != 0)
            need(is_there.all(), "a node leads to what is not there")
        decided = [place for place, tree in enumerate(trees) if b"decision_type" in tree]
        decisions = self._integers([trees[place] for place in decided], b"decision_type", inner[decided])
        need(((decisions >= 0) & (decisions < _DECISIONS)).all(), "it decides in a way that is none")
        _need_trees(left, right, leaves)
        self._need_categorical(trees, decisions, np.repeat(np.asarray(decided, np.int64), inner[decided]))

    def _need_categorical(self, trees: list[Tree], decisions: Places, owners: Places) -> None:
        is_categorical = (decisions & _CATEGORICAL).astype(np.bool_)
        for owner in np.unique(owners[is_categorical]):
            tree = trees[owner]
            chosen = np.flatnonzero(is_categorical[owners == owner])
            thresholds = np.array([float(each) for each in tree[b"threshold"].split()])[chosen]
            known = int(tree[b"num_cat"])
            is_known = (thresholds >= 0) & (thresholds < known) & (thresholds == np.floor(thresholds))
            need(is_known.all(), "it splits on categories it does not have")

    def _check_categories(self, tree: Tree, count: int) -> None:
        ends, words = integers_in(tree[b"cat_boundaries"]), integers_in(tree[b"cat_threshold"])
        is_right = len(ends) == count + 1 and ends[0] == 0 and ends[-1] == len(words) and (np.diff(ends) >= 0).all()
        need(is_right and (words >= 0).all(), "its categories do not add up")

    def _check_linear(self, tree: Tree, leaves: int) -> None:
        """A leaf may have a formula of its own, of several features."""
        self._need_counts([tree], b"leaf_const", np.array([leaves]))
        counts = self._integers([tree], b"num_features", np.array([leaves]))
        need((counts >= 0).all(), "a formula has fewer features than none")
        features = integers_in(b" ".join(tree[b"leaf_features"].split()))
        total = int(counts.sum())
        factors = tree[b"leaf_coeff"].split()  # LightGBM writes more spaces here
        need(len(features) == len(factors) == total, "its formulas do not add up")
        need_numbers(b" ".join(factors))
        need(((features >= 0) & (features < self._features)).all(), "a formula is of a feature it does not have")


def _need_trees(left: Places, right: Places, leaves: Places) -> None:
    """Raise Unsound unless each node and each leaf is reached in one way; leaves get places behind the nodes."""
    inner = leaves - 1
    starts = first_places(inner + leaves)
    begin = np.repeat(starts[:-1], inner)
    behind = begin + np.repeat(inner, inner)
    places = np.arange(len(left)) + np.repeat(first_places(leaves)[:-1], inner)
    to: list[NDArray[Any]] = []
    for children in (left, right):
        found = np.full(int(starts[-1]), -1, np.int64)
        found[places] = np.where(children >= 0, children + begin, behind - children - 1)
        to.append(found)
    ways = np.bincount(np.concatenate([to[0][places], to[1][places]]), minlength=int(starts[-1]))
    ways[starts[:-1]] += 1
    need((ways == 1).all(), "a node has two parents, or none")
    need(count_reached(to[0], to[1], starts[:-1]) == int(starts[-1]), "a node is not reached from the root")

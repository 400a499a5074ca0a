"""Checks the text of a LightGBM model for everything that LightGBM's reader and predictor do not check themselves.

From ``src/boosting/gbdt_model_text.cpp``, ``src/io/tree.cpp`` and ``include/LightGBM/tree.h`` of LightGBM 4.7. Its
reader works in threads, and ends the process at text that is no number. Lines are split here as LightGBM splits them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.number_texts import parse_integers, require_numbers
from serving.host.restricted.sound.requirements import require
from serving.host.restricted.sound.tree_walks import Places, count_reached_nodes, find_starts

Tree = dict[bytes, bytes]

# LightGBM's reader of a tree stops after this many lines
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
    require(
        b"\0" not in content and b"\r" not in content, "it has characters that LightGBM takes for the end of a line"
    )
    begin = content.find(b"\nTree=") + 1 or len(content)
    head = _read_head(content[:begin].decode())
    features = _read_integer(head, "max_feature_idx") + 1
    groups = _check_head(head, features)
    require("tree_sizes" in head, "it does not say how long its trees are: save it with LightGBM 2.2 or later")
    sizes = parse_integers(head["tree_sizes"].encode())
    require(len(sizes) % groups == 0, "it does not have a tree for each class in each round")
    trees = _split_trees(content, begin, sizes)
    require(bool(trees) == (begin < len(content)), "its number of trees is wrong")
    if trees:
        _TreeChecker(trees, features).check()
        _check_parameters(content[begin + int(sizes.sum()) :].split(b"\n"))


# --- the head ---------------------------------------------------------------------------------------------------------


def _read_head(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in filter(None, text.split("\n")):
        parts = [part for part in line.split("=") if part]
        require(parts, "one of its lines has no name")
        require(
            len(parts) <= 2 or parts[0] in ("feature_names", "monotone_constraints"), "one of its lines has two values"
        )
        require(parts[0] not in found, f"it says {parts[0][:40]} twice")
        found[parts[0]] = "=".join(parts[1:])
    return found


def _read_integer(head: dict[str, str], name: str) -> int:
    text = head.get(name, "")
    require(text.isascii() and text.isdigit() and len(text) < 10, f"{name} is no number")
    return int(text)


def _check_head(head: dict[str, str], features: int) -> int:
    """Return the number of trees in a round: one for each class."""
    _read_integer(head, "label_index")
    groups = _read_integer(head, "num_class")
    require(groups > 0, "it has no answers")
    require(
        "num_tree_per_iteration" not in head or _read_integer(head, "num_tree_per_iteration") == groups,
        "its classes differ",
    )
    for name in ("feature_names", "feature_infos"):
        require(len(head[name].split()) == features, f"{name} are not those of its features")
    if "objective" in head:
        name, *options = head["objective"].split() or [""]
        require(name in _OBJECTIVES, f"its objective is {name[:40]!r}")
        counts = [option for option in options if option.startswith("num_class")]
        require(
            name not in _SEVERAL or counts == [f"num_class:{groups}"], "its objective is for another number of classes"
        )
    return groups


def _split_trees(content: bytes, begin: int, sizes: Places) -> list[Tree]:
    """Return the values of each tree by the names of their lines."""
    require((sizes > 0).all() and int(sizes.sum()) <= len(content) - begin, "its trees are not as long as it says")
    places = (find_starts(sizes) + begin).tolist()
    trees: list[Tree] = []
    for index, (start, stop) in enumerate(pairwise(places)):
        first, *lines = content[start : stop - 2].rstrip(b"\n").split(b"\n")
        require(first == b"Tree=%d" % index and content[stop - 2 : stop] == b"\n\n", "a tree is not where it says")
        tree = dict(
            cast("list[tuple[bytes, bytes]]", [line.split(b"=", 1) for line in lines])
        )  # a line without "=" raises
        require(len(tree) == len(lines) <= _MOST_LINES, "a tree says something twice")
        trees.append(tree)
    require(content.startswith(b"end of trees", places[-1]) or not trees, "its trees are not as long as it says")
    return trees


def _check_parameters(lines: list[bytes]) -> None:
    """Check the training options, each ``[name: value]``: LightGBM expects a value without checking."""
    begin = lines.index(b"parameters:") + 1 if b"parameters:" in lines else len(lines)
    for line in lines[begin:]:
        if line == b"end of parameters":
            return
        require(not line or len(list(filter(None, line.split(b":")))) > 1, "one of its parameters has no value")


# --- trees ------------------------------------------------------------------------------------------------------------


class _TreeChecker:
    """Checks all trees of a model. Trees with splits are checked together, in arrays of one tree after another."""

    def __init__(self, trees: list[Tree], features: int) -> None:
        self._trees = trees
        self._features = features
        self._leaves = self._read_column(b"num_leaves")
        self._categories = self._read_column(b"num_cat")
        self._is_linear = self._read_column(b"is_linear", b"0")

    def _read_column(self, name: bytes, default: bytes | None = None) -> Places:
        """Return one integer of each tree, shape (trees,)."""
        texts = [tree[name] if default is None else tree.get(name, default) for tree in self._trees]
        found = parse_integers(b" ".join(texts))
        require(len(found) == len(texts), f"{name.decode()} is no number")
        return found

    def check(self) -> None:
        require((self._leaves >= 1).all(), "a tree has no leaves")
        require((self._categories >= 0).all(), "num_cat is no number")
        require(((self._is_linear == 0) | (self._is_linear == 1)).all(), "is_linear is no number")
        require_numbers(b" ".join(text for tree in self._trees for name in _FLOATS if (text := tree.get(name))))
        self._require_counts(self._trees, b"leaf_value", self._leaves)
        is_split = self._leaves > 1
        split = [self._trees[place] for place in np.flatnonzero(is_split)]
        if split:
            self._check_splits(split, self._leaves[is_split])
        for place in np.flatnonzero(self._is_linear):
            self._check_linear(self._trees[place], int(self._leaves[place]))
        for place in np.flatnonzero((self._categories > 0) & (is_split | (self._is_linear > 0))):
            self._check_categories(self._trees[place], int(self._categories[place]))

    def _require_counts(self, trees: list[Tree], name: bytes, counts: Places) -> None:
        found = [text.count(b" ") + 1 if (text := tree[name]) else 0 for tree in trees]
        require(np.array_equal(found, counts), f"{name.decode()} are not as many as it counts")

    def _read_integers(self, trees: list[Tree], name: bytes, counts: Places) -> Places:
        self._require_counts(trees, name, counts)
        return parse_integers(b" ".join(tree[name] for tree in trees))

    def _check_splits(self, trees: list[Tree], leaves: Places) -> None:
        """Check trees with splits. Inner nodes are numbered from 0 up, leaves from -1 down."""
        inner = leaves - 1
        self._require_counts(trees, b"threshold", inner)
        weighted = [place for place, tree in enumerate(trees) if b"leaf_weight" in tree]
        self._require_counts([trees[place] for place in weighted], b"leaf_weight", leaves[weighted])
        left, right = (self._read_integers(trees, name, inner) for name in (b"left_child", b"right_child"))
        features = self._read_integers(trees, b"split_feature", inner)
        require(((features >= 0) & (features < self._features)).all(), "it splits on a feature it does not have")
        most_left, most_right = np.repeat(inner, inner), -np.repeat(leaves, inner)
        for children in (left, right):
            is_there = (children >= most_right) & (children < most_left) & (children != 0)
            require(is_there.all(), "a node leads to a node that does not exist")
        decided = [place for place, tree in enumerate(trees) if b"decision_type" in tree]
        decisions = self._read_integers([trees[place] for place in decided], b"decision_type", inner[decided])
        require(
            ((decisions >= 0) & (decisions < _DECISIONS)).all(), "it has a decision type that LightGBM does not know"
        )
        _require_trees(left, right, leaves)
        self._require_categories(trees, decisions, np.repeat(np.asarray(decided, np.int64), inner[decided]))

    def _require_categories(self, trees: list[Tree], decisions: Places, owners: Places) -> None:
        is_categorical = (decisions & _CATEGORICAL).astype(np.bool_)
        for owner in np.unique(owners[is_categorical]):
            tree = trees[owner]
            chosen = np.flatnonzero(is_categorical[owners == owner])
            thresholds = np.array([float(each) for each in tree[b"threshold"].split()])[chosen]
            known = int(tree[b"num_cat"])
            is_known = (thresholds >= 0) & (thresholds < known) & (thresholds == np.floor(thresholds))
            require(is_known.all(), "it splits on categories it does not have")

    def _check_categories(self, tree: Tree, count: int) -> None:
        ends, words = parse_integers(tree[b"cat_boundaries"]), parse_integers(tree[b"cat_threshold"])
        is_right = len(ends) == count + 1 and ends[0] == 0 and ends[-1] == len(words) and (np.diff(ends) >= 0).all()
        require(is_right and (words >= 0).all(), "its categories do not add up")

    def _check_linear(self, tree: Tree, leaves: int) -> None:
        """Check a tree whose leaves have a formula of several features."""
        self._require_counts([tree], b"leaf_const", np.array([leaves]))
        counts = self._read_integers([tree], b"num_features", np.array([leaves]))
        require((counts >= 0).all(), "a formula has a negative number of features")
        features = parse_integers(b" ".join(tree[b"leaf_features"].split()))
        total = int(counts.sum())
        factors = tree[b"leaf_coeff"].split()  # LightGBM writes several spaces here
        require(len(features) == len(factors) == total, "its formulas do not add up")
        require_numbers(b" ".join(factors))
        require(((features >= 0) & (features < self._features)).all(), "a formula is of a feature it does not have")


def _require_trees(left: Places, right: Places, leaves: Places) -> None:
    """Raise Unsound unless exactly one path leads to each node and leaf. Leaves get places after the nodes."""
    inner = leaves - 1
    starts = find_starts(inner + leaves)
    begin = np.repeat(starts[:-1], inner)
    behind = begin + np.repeat(inner, inner)
    places = np.arange(len(left)) + np.repeat(find_starts(leaves)[:-1], inner)
    to: list[NDArray[Any]] = []
    for children in (left, right):
        found = np.full(int(starts[-1]), -1, np.int64)
        found[places] = np.where(children >= 0, children + begin, behind - children - 1)
        to.append(found)
    ways = np.bincount(np.concatenate([to[0][places], to[1][places]]), minlength=int(starts[-1]))
    ways[starts[:-1]] += 1
    require((ways == 1).all(), "a node has two parents, or none")
    require(count_reached_nodes(to[0], to[1], starts[:-1]) == int(starts[-1]), "a node is not reached from the root")

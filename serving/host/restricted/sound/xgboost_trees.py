"""Checks an XGBoost model in UBJSON or JSON for everything that XGBoost's reader and predictor do not check themselves.

From ``src/learner.cc``, ``src/gbm/``, ``src/tree/tree_model.cc``, ``src/tree/multi_target_tree_model.cc`` and
``src/predictor/cpu_predictor.cc`` of XGBoost 3.2, which goes from a node to its left child or to the node after that.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.restricted.sound.requirements import require
from serving.host.restricted.sound.tree_walks import Places, count_reached_nodes, find_starts
from serving.host.restricted.sound.ubjson import DTYPES, UbjsonReader

_NO_NODE = (1 << 31) - 1  # also what a deleted node splits on
_LEAF = -1
_MOST_CATEGORIES = 1 << 24
# markers of types in UBJSON
_INT, _LONG, _INDEX, _BYTE, _FLOAT = b"l", b"L", b"lL", b"U", b"d"
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_ESCAPED = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_OF_NODES = (
    ("left_children", _INT), ("right_children", _INT), ("parents", _INT), ("split_indices", _INDEX),
    ("split_conditions", _FLOAT), ("default_left", _BYTE),
)  # fmt: skip
_OF_CATEGORIES = (
    ("categories_nodes", _INT), ("categories_segments", _LONG), ("categories_sizes", _LONG), ("categories", _INT),
)  # fmt: skip
_OF_SCALAR_NODES = ("base_weights", "loss_changes", "sum_hessian")
_OLD_FORMAT = "it is in a format of XGBoost before 3.1: load it there, and save it as .ubj or .json"


def check_xgboost(content: bytes | bytearray) -> None:
    """Raise Unsound, or an ordinary exception, unless `content` is a whole model, pickled or saved, of XGBoost."""
    require(content[:1] == b"{", _OLD_FORMAT if content[:4] in (b"binf", b"CONF") else "its bytes are no model")
    is_json = re.match(rb'\{\s*"', content) is not None
    document = _read_json(content) if is_json else UbjsonReader(content).read()
    saved = document.get("Model", document)
    learner = saved["learner"]
    _ModelChecker(learner, content).check()
    if "Config" in document:
        require("Model" in document, "it has options but no model")
        configured = document["Config"].get("learner", {})
        _check_objective(learner, configured.get("objective", {}))


def _read_json(content: bytes | bytearray) -> Any:
    require(_ESCAPED.search(content) is None, "it spells characters as numbers, which XGBoost reads otherwise")
    return json.loads(bytes(content), object_pairs_hook=_make_dict)


def _make_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    require(len(found) == len(pairs), "it has one of its parts twice")
    return found


def _read_integer(parameters: dict[str, Any], name: str, low: int = 0, default: str | None = None) -> int:
    """Return a parameter, which XGBoost writes as text; raises Unsound unless it is an integer of at least `low`."""
    text = parameters.get(name, default)
    require(isinstance(text, str) and _INTEGER.fullmatch(text), f"{name} is no number")
    number = int(str(text))
    require(low <= number < 1 << 32, f"{name} is {number}")
    return number


def _read_tree_sizes(parameters: dict[str, Any]) -> tuple[int, int, int]:
    """Return how many nodes a tree has, how many of them are deleted, and how many numbers a leaf answers."""
    answers = _read_integer(parameters, "size_leaf_vector", default="1")
    return _read_integer(parameters, "num_nodes", 1), _read_integer(parameters, "num_deleted"), answers


def _count_groups(learner: dict[str, Any]) -> int:
    parameters = learner["learner_model_param"]
    return max(_read_integer(parameters, "num_class"), _read_integer(parameters, "num_target", default="1"), 1)


def _check_objective(learner: dict[str, Any], objective: dict[str, Any]) -> None:
    """Check the number of classes of the objective, which divides the answers among classes."""
    if str(learner["objective"]["name"]).startswith("multi:"):
        classes = _read_integer(objective["softmax_multiclass_param"], "num_class")
        require(classes == _count_groups(learner), "its objective is for another number of classes")


class _ModelChecker:
    """Checks what a model has learned. `content` has the bytes of its arrays."""

    def __init__(self, learner: dict[str, Any], content: bytes | bytearray) -> None:
        self._learner = learner
        self._view = memoryview(content)
        self._features = _read_integer(learner["learner_model_param"], "num_feature")
        self._groups = _count_groups(learner)

    def check(self) -> None:
        learner = self._learner
        require(type(learner["objective"]["name"]) is str, "its objective has no name")
        _check_objective(learner, learner["objective"])
        self._check_names()
        booster = learner["gradient_booster"]
        name = booster["name"]
        require(name in ("gbtree", "dart", "gblinear"), f"its booster is {str(name)[:40]}")
        if name == "gblinear":
            weights = booster["model"]["weights"]
            wanted = (self._features + 1) * self._groups
            require(
                self._count_items(weights, _FLOAT) in (0, wanted),
                "it does not have a weight for each feature and class",
            )
            return
        forest = booster["gbtree"]["model"] if name == "dart" else booster["model"]
        self._check_forest(forest)
        if name == "dart":
            dropped = booster["weight_drop"]
            require(
                type(dropped) is list and len(dropped) == len(forest["trees"]),
                "it does not have a weight for each tree",
            )

    def _check_names(self) -> None:
        for name in ("feature_names", "feature_types"):
            named = self._learner.get(name, [])
            are_texts = type(named) is list and all(type(each) is str for each in named)
            require(are_texts and len(named) in (0, self._features), f"{name} are not those of its features")
        attributes = self._learner["attributes"]
        require(all(type(each) is str for each in attributes.values()), "its attributes are no texts")
        best = attributes.get("best_iteration", "0")
        require(_INTEGER.fullmatch(best) and int(best) >= 0, "best_iteration is no round")

    # --- arrays -------------------------------------------------------------------------------------------------------

    def _count_items(self, value: Any, markers: bytes) -> int:
        if type(value) is list:
            return len(value)
        require(type(value) is tuple and value[0] in markers, "one of its arrays is of another type")
        return int(value[2])

    def _count_items_of_each(self, trees: list[dict[str, Any]], name: str, markers: bytes) -> Places:
        require(all(name in tree for tree in trees), f"a tree has no {name}")
        values = [tree[name] for tree in trees]
        if set(map(type, values)) != {tuple}:
            return np.array([self._count_items(value, markers) for value in values], np.int64)
        found, _, counts = zip(*values, strict=True)  # ten thousand trees are usual
        require(set(found) <= set(markers), "one of its arrays is of another type")
        return np.array(counts, np.int64)

    def _read_integers(self, values: list[Any], markers: bytes) -> Places:
        """Return the integers in several arrays of one type, one array after another, shape (integers,)."""
        if any(type(value) is list for value in values):
            return np.concatenate([self._read_few_integers(value) for value in values])
        found = {value[0] for value in values}
        require(len(found) == 1 and next(iter(found)) in markers, "one of its arrays is of another type")
        dtype = np.dtype(DTYPES[found.pop()])
        pieces = [self._view[start : start + count * dtype.itemsize] for _, start, count in values]
        return np.frombuffer(b"".join(pieces), dtype).astype(np.int64)

    def _read_few_integers(self, value: Any) -> Places:
        if type(value) is tuple:
            return self._read_integers([value], bytes(DTYPES))
        found = np.array(value) if value else np.zeros(0, np.int64)
        require(found.ndim == 1 and found.dtype.kind in "iub", "one of its arrays holds no integers")
        return found.astype(np.int64)

    # --- trees --------------------------------------------------------------------------------------------------------

    def _check_forest(self, forest: dict[str, Any]) -> None:
        trees, groups = forest["trees"], self._read_few_integers(forest["tree_info"])
        require(type(trees) is list and all(type(tree) is dict for tree in trees), "its trees are no list of trees")
        parameters = forest["gbtree_model_param"]
        _read_integer(parameters, "num_parallel_tree", 1, "1")
        require(len(trees) == len(groups) == _read_integer(parameters, "num_trees"), "its number of trees is wrong")
        ids = [tree["id"] for tree in trees]
        require(
            all(type(each) is int for each in ids) and sorted(ids) == list(range(len(trees))), "two trees have one id"
        )
        require(((groups >= 0) & (groups < self._groups)).all(), "a tree adds to an answer that does not exist")
        if "iteration_indptr" in forest:
            rounds = self._read_few_integers(forest["iteration_indptr"])
            is_right = rounds.size and rounds[0] == 0 and rounds[-1] == len(trees) and (np.diff(rounds) >= 0).all()
            require(is_right, "its rounds are not made of its trees")
        else:
            require(trees, "it has neither rounds nor trees")
        if "cats" in forest:
            self._check_encoding(forest["cats"])
        if trees:
            self._check_trees(trees)

    def _check_trees(self, trees: list[dict[str, Any]]) -> None:
        parameters = [tree["tree_param"] for tree in trees]
        known = {id(each): _read_tree_sizes(each) for each in parameters}  # many trees have the same
        nodes, deleted, width = np.array([known[id(each)] for each in parameters], np.int64).T
        is_vector = width > 1
        require((~is_vector | (width == self._groups)).all(), "a tree has other answers than the model")
        for name, markers in _OF_NODES:
            counts = self._count_items_of_each(trees, name, markers)
            require(np.array_equal(counts, nodes), f"{name} are not as many as nodes")
        scalars = trees if not is_vector.any() else [trees[place] for place in np.flatnonzero(~is_vector)]
        for name in _OF_SCALAR_NODES:
            counts = self._count_items_of_each(scalars, name, _FLOAT)
            require(np.array_equal(counts, nodes[~is_vector]), f"{name} are not as many as nodes")
        arrays = {
            name: self._read_integers([tree[name] for tree in trees], markers)
            for name, markers in _OF_NODES
            if markers != _FLOAT
        }
        self._check_nodes(arrays, nodes, deleted, np.repeat(is_vector, nodes))
        starts = find_starts(nodes)
        for place in np.flatnonzero(is_vector):
            inside = slice(starts[place], starts[place + 1])
            self._check_vectors(trees[place], arrays["left_children"][inside], arrays["right_children"][inside])
        self._check_categories([tree for tree in trees if "split_type" in tree])

    def _check_nodes(
        self, arrays: dict[str, Places], nodes: Places, deleted: Places, is_vector: NDArray[np.bool_]
    ) -> None:
        """Check where the nodes lead, for all trees at once: `arrays` hold one tree after another."""
        starts = find_starts(nodes)
        roots, total = starts[:-1], int(starts[-1])
        start, count = np.repeat(roots, nodes), np.repeat(nodes, nodes)
        left, right, parents = arrays["left_children"], arrays["right_children"], arrays["parents"]
        features = arrays["split_indices"]
        is_gone = (features == _NO_NODE) & (arrays["default_left"] == 1) & ~is_vector
        is_gone[roots] = False
        require(
            np.array_equal(np.add.reduceat(is_gone, roots, dtype=np.int64), deleted),
            "its number of deleted nodes is wrong",
        )
        is_inner = (left != _LEAF) & ~is_gone
        require((is_inner | is_gone | is_vector | (right == _LEAF)).all(), "a node has one child")
        inner = np.flatnonzero(is_inner)
        is_near = (left[inner] > 0) & (right[inner] == left[inner] + 1) & (right[inner] < count[inner])
        require(is_near.all(), "a node leads to a node that is not its child")
        require(
            ((features[inner] >= 0) & (features[inner] < self._features)).all(),
            "it splits on a feature it does not have",
        )
        is_root = np.zeros(total, np.bool_)
        is_root[roots] = True
        require(((parents[roots] == _NO_NODE) | (parents[roots] == -1)).all(), "a root has a parent")
        require((is_root | ((parents >= 0) & (parents < count))).all(), "a node has a parent that does not exist")
        first = left[inner] + start[inner]
        wanted = np.full(total, -1, np.int64)
        wanted[first] = wanted[first + 1] = inner
        require((is_root | is_gone | (wanted == parents + start)).all(), "a node is not the child of its parent")
        to = np.full(total, -1, np.int64)
        to[inner] = first
        require(
            count_reached_nodes(to, to + 1, roots) == total - int(deleted.sum()), "a node is not reached from the root"
        )

    def _check_vectors(self, tree: dict[str, Any], left: Places, right: Places) -> None:
        """Check the leaves of a tree with several answers: for a leaf, `right` is the place of its answers."""
        is_leaf = left == _LEAF
        require("split_type" in tree, "it does not say in which way it splits")
        weights = self._count_items(tree["base_weights"], _FLOAT)
        if "leaf_weights" in tree:
            leaves, rest = divmod(self._count_items(tree["leaf_weights"], _FLOAT), self._groups)
            require(rest == 0 and weights % len(left) == 0 and weights > 0, "its leaves have answers of another size")
            require(((right >= 0) & (right < leaves))[is_leaf].all(), "a leaf has an answer that does not exist")
            for name in ("loss_changes", "sum_hessian"):
                require(self._count_items(tree[name], _FLOAT) == len(left), f"{name} are not as many as nodes")
        else:
            require(_is_library_before(3, 2), "its trees of several answers are of XGBoost before 3.2")
            require(weights == len(left) * self._groups, "its leaves have answers of another size")

    # --- categories ---------------------------------------------------------------------------------------------------

    def _check_categories(self, trees: list[dict[str, Any]]) -> None:
        if not trees:
            return
        nodes = self._count_items_of_each(trees, "left_children", _INT)
        require(
            np.array_equal(self._count_items_of_each(trees, "split_type", _BYTE), nodes),
            "split_type are not as many as nodes",
        )
        splits = self._read_integers([tree["split_type"] for tree in trees], _BYTE)
        require((splits <= 1).all() and (splits >= 0).all(), "it has a type of split that XGBoost does not know")
        starts = find_starts(nodes)
        counts = np.array([self._count_items_of_each(trees, name, markers) for name, markers in _OF_CATEGORIES])
        expected = np.add.reduceat(splits, starts[:-1])
        require(np.array_equal(expected, counts[0]), "it has categories for other nodes")
        for place in np.flatnonzero(counts.any(axis=0)):
            self._check_tree_categories(trees[place], splits[starts[place] : starts[place + 1]])

    def _check_tree_categories(self, tree: dict[str, Any], splits: Places) -> None:
        places, first, sizes, known = (self._read_few_integers(tree[name]) for name, _ in _OF_CATEGORIES)
        require(np.array_equal(places, np.flatnonzero(splits)), "it has categories for other nodes")
        ends = find_starts(sizes)
        is_right = len(first) == len(sizes) == len(places) and (sizes > 0).all()
        require(
            is_right and np.array_equal(first, ends[:-1]) and ends[-1] == len(known), "its categories do not add up"
        )
        require(((known >= 0) & (known < _MOST_CATEGORIES)).all(), "one of its categories has no place")

    def _check_encoding(self, encoding: dict[str, Any]) -> None:
        """Check the names of the categories, one list for each feature."""
        columns = encoding["enc"]
        require(type(columns) is list, "its encoding is no list")
        segments, order = (
            self._read_few_integers(encoding["feature_segments"]),
            self._read_few_integers(encoding["sorted_idx"]),
        )
        if not columns:
            require(not segments.size and not order.size, "its encoding has no columns")
            return
        sizes = np.array([self._count_categories(column) for column in columns], np.int64)
        require(len(columns) == self._features, "its encoding is for other features")
        require(np.array_equal(segments, find_starts(sizes)), "its encoding does not add up")
        require(len(order) == segments[-1], "its encoding is not in order")
        place_in = np.arange(len(order)) - np.repeat(segments[:-1], sizes)
        in_order = np.lexsort((order, np.repeat(np.arange(len(sizes)), sizes)))
        require(np.array_equal(order[in_order], place_in), "its encoding is not in order")

    def _count_categories(self, column: dict[str, Any]) -> int:
        """Return the number of categories in a column."""
        values = self._read_few_integers(column["values"])
        if "offsets" not in column:
            require(type(column["type"]) is int, "a column of its encoding has no type")
            return len(values)
        offsets = self._read_few_integers(column["offsets"])
        if not offsets.size:
            require(not values.size, "its encoding does not add up")
            return 0
        is_right = offsets[0] == 0 and (np.diff(offsets) >= 0).all() and offsets[-1] == len(values)
        require(is_right, "its encoding does not add up")
        return len(offsets) - 1


def _is_library_before(major: int, minor: int) -> bool:
    import xgboost  # noqa: PLC0415  (optional, and the file has asked for it)

    found = re.match(r"(\d+)\.(\d+)", xgboost.__version__)
    return found is not None and (int(found[1]), int(found[2])) < (major, minor)

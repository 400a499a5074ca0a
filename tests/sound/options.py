"""What a parameter of an estimator may be, by scikit-learn's own constraints: one value for each way to set it."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn import (
    cluster,
    dummy,
    ensemble,
    feature_selection,
    linear_model,
    metrics,
    model_selection,
    neighbors,
    preprocessing,
    svm,
    tree,
)
from sklearn.gaussian_process import kernels
from sklearn.metrics import pairwise

from benchmarks.older_declarations import list_values

constraints: Any
try:
    from sklearn.utils import _param_validation as constraints
except ImportError:  # before 1.2
    constraints = None

# these print or fork, say where to write, or make a fit so slow that it teaches nothing
_LEFT_OUT = frozenset({"verbose", "n_jobs", "memory", "max_iter", "n_estimators", "warm_start", "copy", "copy_X"})
_CLASS_WEIGHTS = ({0: 1.0, 1: 2.0, 2: 1.0}, {"a": 1.0, "b": 2.0, "c": 0.5})

# values that no constraint can tell, by the name of the parameter
_MORE: dict[str, tuple[Any, ...]] = {
    "class_weight": _CLASS_WEIGHTS,
    "metric": (pairwise.euclidean_distances, pairwise.cosine_distances),
    "metric_params": ({"p": 3}, {}),
    "kernel": (pairwise.rbf_kernel, pairwise.cosine_similarity, kernels.RBF() + kernels.WhiteKernel()),
    "kernel_params": ({"gamma": 0.5}, {}),
    "func": (np.log1p, np.sqrt, np.abs),
    "inverse_func": (np.expm1, np.square),
    "score_func": (feature_selection.f_classif, feature_selection.mutual_info_classif, feature_selection.chi2),
    "scoring": (
        "accuracy",
        "r2",
        ["accuracy", "f1_macro"],
        {"one": "accuracy", "two": metrics.make_scorer(metrics.log_loss)},
        metrics.make_scorer(metrics.f1_score, average="macro"),
        metrics.get_scorer("neg_mean_squared_error"),
    ),
    "importance_getter": ("auto", "coef_", "feature_importances_"),
    "estimator": (
        linear_model.LogisticRegression(),
        linear_model.Ridge(),
        tree.DecisionTreeClassifier(max_depth=2),
        tree.DecisionTreeRegressor(max_depth=2),
        svm.SVC(probability=False),
        preprocessing.StandardScaler(),
        cluster.KMeans(2, n_init=1),
    ),
    "final_estimator": (linear_model.LogisticRegression(), linear_model.Ridge(), ensemble.RandomForestClassifier(3)),
    "init": (dummy.DummyClassifier(), dummy.DummyRegressor(), linear_model.LogisticRegression()),
    "cv": (3, model_selection.KFold(3), model_selection.StratifiedKFold(3), model_selection.ShuffleSplit(2)),
    "dtype": (np.float32, np.float64, np.int64, float, int, "numeric", object, np.uint8),
    "param_grid": ({}, [{}]),
    "feature_names_out": ("one-to-one", None),
    "kw_args": ({}, None),
    "categories": ("auto",),
    "drop": ("first", "if_binary"),
    "priors": (np.array([0.2, 0.3, 0.5]),),
    "warm_start": (True,),
    "metadata": (),
    "monotonic_cst": ([1, 0, -1, 0, 0, 0], {"x0": 1}),
    "interaction_cst": ("pairwise", "no_interactions", [{0, 1}, {2, 3, 4, 5}]),
    "categorical_features": ([0], "from_dtype", [True] + [False] * 5),
    "threshold": ("mean", "1.25*mean", "median", 0.1),
    "feature_range": ((0, 2),),
    "quantile_range": ((10.0, 90.0),),
    "ngram_range": ((1, 2),),
    "stop_words": ("english", ["the", "a"], {"the"}, frozenset({"a"}), None),
    "alphas": ([0.1, 1.0], np.array([0.1, 1.0]), (0.1, 1.0)),
    "hidden_layer_sizes": ((5,), [4, 3], 6),
    "feature_name_combiner": ("concat",),
    "remainder": ("drop", "passthrough", preprocessing.StandardScaler()),
    "loss": (),
    "distance_metric": (neighbors.VALID_METRICS["ball_tree"][0],),
}


def options_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield parameter and value, one for each alternative that the constraints of `kind` name, and some they cannot."""
    if constraints is None:
        yield from _options_before_constraints(kind)
    declared = getattr(kind, "_parameter_constraints", {})
    taken = set(kind.__init__.__code__.co_varnames) if hasattr(kind.__init__, "__code__") else set()
    for name, alternatives in declared.items():
        if name in _LEFT_OUT or name not in taken or isinstance(alternatives, str):
            continue
        for value in _MORE.get(name, ()):
            yield name, value
        for alternative in alternatives:
            for value in _values(alternative):
                yield name, value


def _options_before_constraints(kind: type) -> Iterator[tuple[str, Any]]:
    values = list_values(kind)
    for name in dict.fromkeys(name for name, _ in values):
        if name not in _LEFT_OUT:
            yield from ((name, value) for value in _MORE.get(name, ()))
    yield from (each for each in values if each[0] not in _LEFT_OUT)


def _values(alternative: Any) -> list[Any]:
    if isinstance(alternative, constraints.Hidden):
        return _values(alternative.constraint)
    if isinstance(alternative, constraints.Options):
        return sorted(alternative.options, key=str)
    if isinstance(alternative, constraints.Interval):
        return [_inside(alternative)]
    if type(alternative).__name__ == "MissingValues":
        return [np.nan, None, -1, "?"]
    is_word = alternative is None or isinstance(alternative, (str, type))
    return _BY_WORD[alternative]() if is_word and alternative in _BY_WORD else []


_BY_WORD: dict[Any, Callable[[], list[Any]]] = {
    None: lambda: [None],
    "boolean": lambda: [True, False],
    "random_state": lambda: [0, np.random.RandomState(0)],
    numbers.Integral: lambda: [2],
    numbers.Real: lambda: [0.5],
    float: lambda: [0.5],
    kernels.Kernel: lambda: [kernels.RBF()],
    metrics.DistanceMetric: lambda: [metrics.DistanceMetric.get_metric("manhattan")],
}


def _inside(interval: Any) -> Any:
    """Return a small number within an interval."""
    is_whole = interval.type is numbers.Integral
    low = 0 if interval.left is None else interval.left
    high = low + 4 if interval.right is None or not np.isfinite(float(interval.right)) else interval.right
    middle = (low + high) / 2
    return int(np.ceil(middle)) if is_whole else float(middle)

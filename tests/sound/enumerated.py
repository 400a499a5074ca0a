"""What scikit-learn has a closed list of, beside the parameters of estimators: each member, in a model that uses it.

Splitters, scorers, functions of one argument, kernels, sources of random numbers, requests for metadata, callbacks.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn
from scipy import special, stats
from sklearn import (
    calibration,
    compose,
    ensemble,
    gaussian_process,
    linear_model,
    metrics,
    model_selection,
    multioutput,
    naive_bayes,
    pipeline,
    preprocessing,
    svm,
)
from sklearn.gaussian_process import kernels

from benchmarks.older_declarations import list_scorer_names
from tests.sound.construction import ignore_warnings
from tests.sound.estimators import ROWS, Fitted, table

X, Y = table()
GROUPS = np.arange(ROWS) % 6
# as few as every splitter can split
ROWS_SPLIT = 30
FEW = X[:ROWS_SPLIT]
_SPLITTERS_WITH_ARGUMENTS: dict[str, dict[str, Any]] = {
    "LeavePOut": {"p": 1},
    "LeavePGroupsOut": {"n_groups": 1},
    "PredefinedSplit": {"test_fold": np.arange(ROWS_SPLIT) % 3},
}
# as many fits as there are rows
_SLOW = frozenset({model_selection.LeaveOneOut, model_selection.LeavePOut})
# metrics that take other things than answers and what was said of them
_NO_SCORES = frozenset({"check_scoring", "get_scorer", "get_scorer_names", "make_scorer", "metric_at_thresholds"})
# functions of NumPy that are no ufuncs, compute of one array and change nothing
_NUMPY = (
    *("angle", "argsort", "around", "asarray", "array", "atleast_1d", "atleast_2d", "average", "cumprod", "cumsum"),
    *("diff", "fix", "flip", "fliplr", "flipud", "i0", "imag", "isreal", "max", "mean", "median", "min"),
    *("nan_to_num", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanstd", "nansum", "nanvar", "prod"),
    *("ravel", "real", "real_if_close", "round", "sinc", "sort", "squeeze", "std", "sum", "transpose", "var"),
)


def enumerated() -> Iterator[Fitted]:
    """Yield everything here; what cannot be fitted raises. Blocks for a minute."""
    with ignore_warnings(), np.errstate(all="ignore"):
        yield from _splitters()
    yield from members()


def members() -> Iterator[Fitted]:
    """Yield a model for each member of each list, without fitting it with every splitter. Blocks for some seconds."""
    for make in (_held, _scorers, _functions, _kernels, _random_numbers, _distributions, _requests, _callbacks):
        with ignore_warnings(), np.errstate(all="ignore"):
            yield from make()


def _held() -> Iterator[Fitted]:
    """A search that holds each splitter, as one does that was fitted with it."""
    search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=2).fit(X, Y)
    for splitter in splitters():
        other = copy.deepcopy(search)
        other.cv, other._checked_cv_orig = splitter, model_selection.check_cv(splitter)
        yield _model(f"a search that holds {type(splitter).__name__}", other)


def splitters() -> list[Any]:
    """Return one of each splitter there is, without the abstract ones, and splits as a list."""
    kinds = [
        kind
        for name, kind in vars(model_selection).items()
        if inspect.isclass(kind) and hasattr(kind, "get_n_splits") and not name.startswith("Base")
    ]
    made = [kind(**_SPLITTERS_WITH_ARGUMENTS.get(kind.__name__, {})) for kind in kinds]
    seeded = [
        model_selection.RepeatedKFold(n_splits=2, n_repeats=2, random_state=np.random.RandomState(0)),
        model_selection.RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
        model_selection.ShuffleSplit(2, test_size=0.3, random_state=np.random.RandomState(0)),
    ]
    return [*made, *seeded, list(model_selection.KFold(3).split(FEW))]


def _splitters() -> Iterator[Fitted]:
    quick = naive_bayes.GaussianNB()
    grid: dict[str, Any] = {"var_smoothing": [1e-9, 1e-8]}
    for splitter in splitters():
        which = type(splitter).__name__
        for kind in (model_selection.GridSearchCV, model_selection.RandomizedSearchCV):
            few = {"n_iter": 2} if kind is model_selection.RandomizedSearchCV else {}
            search = kind(quick, grid, cv=splitter, **few)
            fitted = search.fit(FEW, Y[:ROWS_SPLIT], groups=GROUPS[:ROWS_SPLIT])
            yield _model(f"{kind.__name__} by {which}", fitted)
        for search in _halving_searches(quick, grid):
            if which not in ("LeavePOut", "PredefinedSplit", "list", "LeaveOneOut", "TimeSeriesSplit"):
                search.cv = splitter
                yield from _if_fits(
                    f"{type(search).__name__} by {which}",
                    lambda made=search: made.fit(FEW, Y[:ROWS_SPLIT], groups=GROUPS[:ROWS_SPLIT]),
                )
        if type(splitter) not in _SLOW:
            yield from _estimators_with_splits(splitter, which)


def _halving_searches(estimator: Any, grid: dict[str, Any]) -> list[Any]:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (without it the classes are not there)

    given: dict[str, Any] = {"min_resources": 18, "random_state": 0}
    return [
        model_selection.HalvingGridSearchCV(estimator, grid, **given),
        model_selection.HalvingRandomSearchCV(estimator, grid, n_candidates=2, **given),
    ]


def _estimators_with_splits(splitter: Any, which: str) -> Iterator[Fitted]:
    """Every other estimator that takes a splitter; those that cannot fit with it are left out."""
    logistic = linear_model.LogisticRegression()
    both = np.column_stack([Y == 1, Y == 2]).astype(int)
    some: list[tuple[Any, Any]] = [
        (calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=splitter), Y),
        (ensemble.StackingClassifier([("a", naive_bayes.GaussianNB())], logistic, cv=splitter), Y),
        (linear_model.LassoCV(alphas=[0.1, 1.0], cv=splitter), Y),
        (multioutput.ClassifierChain(logistic, cv=splitter), both),
    ]
    if hasattr(model_selection, "TunedThresholdClassifierCV"):  # since 1.5
        some.append((model_selection.TunedThresholdClassifierCV(naive_bayes.GaussianNB(), cv=splitter), Y % 2))
    for estimator, answers in some:
        yield from _if_fits(
            f"{type(estimator).__name__} by {which}",
            lambda made=estimator, target=answers: made.fit(FEW, target[:ROWS_SPLIT]),
        )


def _scorers() -> Iterator[Fitted]:
    search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=3).fit(X, Y)
    for scorer in scorers():
        search.scoring = search.scorer_ = scorer
        yield _model(f"scorer {scorer}", search)
    for name in ("accuracy", "r2", "neg_log_loss"):
        logistic = linear_model.LogisticRegressionCV(Cs=2, scoring=name, cv=2)
        yield from _if_fits(f"LogisticRegressionCV, {name}", lambda made=logistic: made.fit(X, Y))
    labelled = metrics.make_scorer(metrics.f1_score, pos_label="spam")
    words = np.array(["ham", "spam"])[Y % 2]
    yield _model(
        "a scorer with a label of the owner's",
        model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, scoring=labelled, cv=2).fit(
            X, words
        ),
    )
    tuned = model_selection.TunedThresholdClassifierCV(naive_bayes.GaussianNB(), scoring=labelled, cv=2)
    yield _model("a threshold tuned for a label of the owner's", tuned.fit(X, words))


def scorers() -> list[Any]:
    """Return a scorer of each metric that compares answers, with what its other parameters may be by their names."""
    made = [metrics.get_scorer(name) for name in list_scorer_names()]
    for name, function in vars(metrics).items():
        if not inspect.isfunction(function) or name in _NO_SCORES or name.startswith("pairwise"):
            continue
        if name.startswith(("nan_", "euclid", "plot")):
            continue
        made.append(metrics.make_scorer(function))
        made.append(metrics.make_scorer(function, greater_is_better=False, response_method="predict_proba"))
        made.append(metrics.make_scorer(function, response_method=("decision_function", "predict_proba")))
        given = {
            parameter: value
            for parameter in inspect.signature(function).parameters
            for value in _KEYWORDS.get(parameter, ())
        }
        made += [
            metrics.make_scorer(function, **{parameter: value}) for parameter in given for value in _KEYWORDS[parameter]
        ]
    return made


_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "adjusted": (True,),
    "alpha": (0.5,),
    "average": ("micro", "macro", "weighted", "samples", "binary", None),
    "average_method": ("min", "geometric", "arithmetic", "max"),
    "beta": (2.0,),
    "force_finite": (False,),
    "k": (2,),
    "labels": ([0, 1], ["a", "b"]),
    "max_fpr": (0.1,),
    "multi_class": ("ovr", "ovo"),
    "multioutput": ("raw_values", "uniform_average", "variance_weighted", [0.5, 0.5]),
    "normalize": (False, "true", "pred", "all"),
    "pos_label": ("yes", 1),
    "power": (1.5,),
    "squared": (False,),
    "weights": ("linear", "quadratic"),
    "zero_division": ("warn", 0, 1, np.nan),
}


def functions_of_one() -> list[Any]:
    """Return the ufuncs of one argument that NumPy and SciPy have, each once, and functions of NumPy like them."""
    found = [
        function
        for module in (np, special)
        for function in vars(module).values()
        if isinstance(function, np.ufunc) and function.nin == 1
    ]
    return list(dict.fromkeys([*found, *(getattr(np, name) for name in _NUMPY), special.softmax, special.log_softmax]))


def _functions() -> Iterator[Fitted]:
    for function in functions_of_one():
        for given in ({"func": function}, {"inverse_func": function}):
            made = preprocessing.FunctionTransformer(**given, check_inverse=False)
            yield _model(f"{next(iter(given))} {function.__name__}", made)
    target = compose.TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1)
    fitted = target.fit(X, Y)
    for function in functions_of_one():
        for name in ("func", "inverse_func"):
            other = copy.deepcopy(fitted)
            setattr(other, name, function)
            setattr(other.transformer_, name, function)
            yield _model(f"a target by {name} {function.__name__}", other)


def _kernels() -> Iterator[Fitted]:
    parts: list[Any] = [
        kernels.ConstantKernel(2.0, "fixed"),
        kernels.WhiteKernel(),
        kernels.RBF([1.0, 2.0]),
        kernels.Matern(nu=np.inf),
        kernels.RationalQuadratic(),
        kernels.ExpSineSquared(),
        kernels.DotProduct(),
        kernels.PairwiseKernel(metric="polynomial", pairwise_kernels_kwargs={"degree": 2}),
    ]
    parts += [kernels.Exponentiation(parts[2], 2), parts[0] * parts[2] + parts[1], parts[5] * parts[2]]
    rows = X[:20, :2]
    made: list[Any] = [kind(one, two) for one in parts for two in parts for kind in (kernels.Sum, kernels.Product)]
    made += [kernels.Exponentiation(part, 2) for part in parts]
    for part in made:
        process = gaussian_process.GaussianProcessRegressor(part, alpha=10.0, optimizer=None)
        yield from _if_fits(f"kernel {part}", lambda one=process: one.fit(rows, Y[:20]))
    for metric in ("linear", "additive_chi2", "chi2", "poly", "rbf", "laplacian", "sigmoid", "cosine"):
        process = gaussian_process.GaussianProcessRegressor(
            kernels.PairwiseKernel(metric=metric), alpha=10.0, optimizer=None
        )
        yield from _if_fits(f"kernel by {metric}", lambda one=process: one.fit(rows, Y[:20]))


def _random_numbers() -> Iterator[Fitted]:
    bits = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
    states = [np.random.RandomState(getattr(np.random, name)(0)) for name in bits]
    states += [np.random.Generator(getattr(np.random, name)(0)) for name in bits]
    states += [np.random.RandomState(0), np.int32(3), np.random.Generator(np.random.PCG64(0)).spawn(1)[0]]
    for state in states:
        made = ensemble.RandomForestClassifier(2, random_state=0).fit(X, Y)
        made.random_state = state
        yield _model(f"random numbers of {state}", made)
        split = model_selection.ShuffleSplit(2, random_state=state)
        search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=2).fit(X, Y)
        search.cv = search._checked_cv_orig = split
        yield _model(f"splits by random numbers of {state}", search)


def _distributions() -> Iterator[Fitted]:
    drawn: list[Any] = [
        stats.loguniform(1e-2, 1),
        stats.reciprocal(1e-2, 1),
        stats.uniform(0.1, 1),
        stats.norm(1, 0.01),
        stats.expon(scale=1.0),
        stats.gamma(2.0),
        stats.beta(2.0, 3.0),
        stats.lognorm(0.5),
        stats.truncnorm(-1, 1, 2, 0.1),
        stats.randint(1, 4),
        stats.poisson(2, loc=1),
        stats.geom(0.5),
        stats.binom(4, 0.5, loc=1),
    ]
    for distribution in drawn:
        search = model_selection.RandomizedSearchCV(svm.SVC(), {"C": distribution}, n_iter=2, random_state=0, cv=2)
        yield _model(f"drawn from {distribution.dist.name}", search.fit(X, Y))
    listed = [{"C": stats.uniform(1, 2)}, {"kernel": ["linear"], "C": stats.loguniform(0.1, 1)}]
    search = model_selection.RandomizedSearchCV(svm.SVC(), listed, n_iter=2, random_state=0, cv=2)
    yield _model("drawn from a list", search.fit(X, Y))


def _requests() -> Iterator[Fitted]:
    """What a model says of metadata; the switch has to be on when it is said."""
    with sklearn.config_context(enable_metadata_routing=True):
        for asked in (True, False, None, "my_weights"):
            logistic = linear_model.LogisticRegression().set_fit_request(sample_weight=asked)
            logistic.set_score_request(sample_weight=asked)
            yield _model(f"asks for weights, {asked}", logistic.fit(X, Y))
            scaler = preprocessing.StandardScaler().set_fit_request(sample_weight=asked)
            steps = pipeline.make_pipeline(scaler, copy.deepcopy(logistic))
            search = model_selection.GridSearchCV(
                steps,
                {"logisticregression__C": [1.0]},
                cv=model_selection.GroupKFold(2),
                scoring=metrics.make_scorer(metrics.accuracy_score).set_score_request(sample_weight=asked),
            )
            yield _model(f"a search asks for weights, {asked}", search.fit(X, Y, groups=GROUPS))
        search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=2).fit(X, Y)
        for split in splitters():
            if hasattr(split, "set_split_request"):
                other = copy.deepcopy(search)
                other.cv = other._checked_cv_orig = split.set_split_request(groups="my_groups")
                yield _model(f"asks for groups by {type(split).__name__}", other)


def _callbacks() -> Iterator[Fitted]:
    """What watches a fit, since 1.9."""
    try:
        from sklearn import callback
    except ImportError:
        return
    made = [callback.ProgressBar(), callback.ScoringMonitor(scoring="accuracy")]
    for watcher in made:
        model = linear_model.LogisticRegression(solver="lbfgs", max_iter=5)
        if hasattr(model, "set_callbacks"):
            yield _model(f"watched by {type(watcher).__name__}", model.set_callbacks(watcher).fit(X, Y))
    search = model_selection.GridSearchCV(linear_model.LogisticRegression(max_iter=5), {"C": [1.0]}, cv=2)
    if hasattr(search, "set_callbacks"):
        yield _model("a search that is watched", search.set_callbacks(callback.ProgressBar()).fit(X, Y))


def _model(label: str, estimator: Any) -> Fitted:
    return Fitted(label, estimator, X)


def _if_fits(label: str, fit: Callable[[], Any]) -> Iterator[Fitted]:
    try:
        fitted = fit()
    except (ValueError, TypeError, AttributeError):  # splits or answers that it does not take
        return
    yield _model(label, fitted)

"""Estimators inside estimators, what callers hand over, and models of XGBoost and LightGBM, as people save them."""

from __future__ import annotations

import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn import (
    calibration,
    cluster,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    feature_selection,
    frozen,
    gaussian_process,
    impute,
    kernel_approximation,
    linear_model,
    metrics,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    semi_supervised,
    svm,
    tree,
)
from sklearn.gaussian_process import kernels

from benchmarks.older_declarations import list_scorer_names
from tests.sound.construction import ignore_warnings
from tests.sound.estimators import ROWS, TEXTS, Fitted, table

X, Y = table()
FRAME = pd.DataFrame(X, columns=["age", "income", "height", "weight", "rank", "rate"])
MIXED = FRAME.assign(city=np.array(["Lima", "Oslo", "Rome"])[Y], note=TEXTS, plan=list("ab") * 30, on=Y == 1)
# functions of one argument that practitioners give to FunctionTransformer and TransformedTargetRegressor
FUNCTIONS = (
    np.log1p,
    np.log,
    np.log2,
    np.log10,
    np.exp,
    np.exp2,
    np.expm1,
    np.sqrt,
    np.cbrt,
    np.square,
    np.abs,
    np.absolute,
    np.fabs,
    np.sin,
    np.cos,
    np.tan,
    np.arcsin,
    np.arccos,
    np.arctan,
    np.sinh,
    np.cosh,
    np.tanh,
    np.arcsinh,
    np.arccosh,
    np.arctanh,
    np.reciprocal,
    np.negative,
    np.positive,
    np.sign,
    np.floor,
    np.ceil,
    np.rint,
    np.trunc,
    np.deg2rad,
    np.rad2deg,
    np.degrees,
    np.radians,
    np.isnan,
    np.isfinite,
    np.isinf,
    np.logical_not,
    np.signbit,
    np.nan_to_num,
    np.round,
    np.around,
    np.fix,
    np.real,
    np.ravel,
    np.cumsum,
    np.nancumsum,
    np.mean,
    np.sum,
    np.clip,
)
_HAS_TARGET_ENCODER = hasattr(preprocessing, "TargetEncoder")  # since 1.3
SPLITTERS = (
    "KFold",
    "ShuffleSplit",
    "RepeatedKFold",
    "StratifiedKFold",
    "StratifiedShuffleSplit",
    "TimeSeriesSplit",
    "GroupKFold",
    "GroupShuffleSplit",
    "LeaveOneOut",
    "RepeatedStratifiedKFold",
    "StratifiedGroupKFold",
    "LeaveOneGroupOut",
)


def compositions() -> Iterator[Fitted]:
    """Yield everything here; what cannot be fitted raises."""
    for make in (
        _pipelines,
        _searches,
        _wrappers,
        _more_wrappers,
        _texts,
        _functions,
        _kernels,
        _neighbours,
        _callers,
        _parameters,
    ):
        with ignore_warnings(), np.errstate(all="ignore"):
            yield from make()


def boosters() -> Iterator[Fitted]:
    """Yield models of XGBoost and LightGBM with the options that change what they hold."""
    with ignore_warnings():
        yield from _xgboost()
        yield from _lightgbm()


def _model(label: str, estimator: Any, rows: Any = X) -> Fitted:
    return Fitted(label, estimator, rows)


def _columns(**options: Any) -> Any:
    numbers = pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler())
    filled = pipeline.make_pipeline(
        impute.SimpleImputer(strategy="constant", fill_value="?"), preprocessing.OneHotEncoder(handle_unknown="ignore")
    )
    return compose.ColumnTransformer(
        [
            ("numbers", numbers, ["age", "income"]),
            ("filled", filled, ["city"]),
            ("ordered", preprocessing.OrdinalEncoder(), ["plan"]),
            ("texts", feature_extraction.text.TfidfVectorizer(), "note"),
            *((("target", preprocessing.TargetEncoder(), ["rank"]),) if _HAS_TARGET_ENCODER else ()),
            ("dropped", "drop", ["on"]),
            ("kept", "passthrough", ["rate"]),
        ],
        **options,
    )


def _pipelines() -> Iterator[Fitted]:
    logistic = linear_model.LogisticRegression()
    for remainder in ("drop", "passthrough", preprocessing.MinMaxScaler()):
        for verbose in (True, False, "{transformer_name}__{feature_name}"):
            columns = _columns(remainder=remainder, verbose_feature_names_out=verbose)
            yield _model(
                f"columns, {remainder}, {verbose}", pipeline.make_pipeline(columns, logistic).fit(MIXED, Y), MIXED
            )
    for output in ("pandas", "default"):
        scaled = preprocessing.StandardScaler().set_output(transform=output)
        yield _model(f"output {output}", pipeline.make_pipeline(scaled, logistic).fit(FRAME, Y), FRAME)
        several = pipeline.make_pipeline(
            compose.make_column_transformer((impute.SimpleImputer(), [FRAME.columns[0]]), remainder="passthrough"),
            preprocessing.PolynomialFeatures(),
            feature_selection.SelectKBest(k=4),
            decomposition.PCA(2),
            logistic,
        )
        yield _model(f"output {output} of all", several.set_output(transform=output).fit(FRAME, Y), FRAME)
    chosen = compose.make_column_transformer(
        (preprocessing.StandardScaler(), compose.make_column_selector(dtype_include=np.number)),
        (preprocessing.OneHotEncoder(), compose.make_column_selector("plan", dtype_include=object)),
    )
    yield _model("selected columns", pipeline.make_pipeline(chosen, logistic).fit(MIXED, Y), MIXED)
    for columns in ([0, 1], slice(2, 4), [True, False, True, False, False, False], np.array([0, 3]), 2):
        which = [columns] if isinstance(columns, int) else columns
        one = compose.ColumnTransformer([("a", preprocessing.StandardScaler(), which)], remainder="passthrough")
        yield _model(f"columns {columns}", pipeline.make_pipeline(one, logistic).fit(X, Y))
    place = str(Path(tempfile.gettempdir(), "serving-tests-memory"))  # joblib makes the directory
    for memory in ("somewhere", joblib.Memory(place, verbose=0)):
        kept = pipeline.Pipeline([("a", preprocessing.StandardScaler()), ("b", logistic)]).fit(X, Y)
        kept.memory = memory
        yield _model("memory", kept)
    yield _model("passthrough", pipeline.Pipeline([("a", "passthrough"), ("b", None), ("c", logistic)]).fit(X, Y))
    union = pipeline.FeatureUnion([("a", decomposition.PCA(2)), ("b", "passthrough")], transformer_weights={"a": 2.0})
    yield _model("union", pipeline.make_pipeline(union, logistic).fit(X, Y))
    yield _model("dropped union", pipeline.FeatureUnion([("a", decomposition.PCA(2)), ("b", "drop")]).fit(X, Y))
    named = pipeline.Pipeline([("my scaler", preprocessing.StandardScaler()), ("клас", logistic)]).fit(X, Y)
    yield _model("steps with names of one's own", named)
    nested = pipeline.make_pipeline(
        pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(2)), logistic
    )
    yield _model("nested pipelines", nested.fit(X, Y))


def _searches() -> Iterator[Fitted]:
    grids: list[Any] = [
        {"C": [0.1, 1.0], "class_weight": [None, "balanced", {0: 1.0, 1: 2.0, 2: 1.0}]},
        [{"kernel": ["linear"], "C": np.logspace(-1, 0, 2)}, {"kernel": ["rbf"], "gamma": ["scale", 0.1]}],
    ]
    for number, grid in enumerate(grids):
        yield _model(f"grid {number}", model_selection.GridSearchCV(svm.SVC(), grid, cv=3).fit(X, Y))
    steps = pipeline.Pipeline([("scale", preprocessing.StandardScaler()), ("model", svm.SVC())])
    swapped: dict[str, Any] = {
        "scale": [preprocessing.MinMaxScaler(), "passthrough", preprocessing.FunctionTransformer(np.log1p)],
        "model": [svm.SVC(), linear_model.LogisticRegression(), ensemble.RandomForestClassifier(3)],
    }
    yield _model("grid of estimators", model_selection.GridSearchCV(steps, swapped, cv=2).fit(X, Y))
    kernel: dict[str, Any] = {"kernel": [kernels.RBF(), kernels.Matern() + kernels.WhiteKernel()]}
    process = gaussian_process.GaussianProcessRegressor()
    yield _model("grid of kernels", model_selection.GridSearchCV(process, kernel, cv=2).fit(X, Y))
    random = model_selection.RandomizedSearchCV(
        svm.SVC(), {"C": np.logspace(-2, 1, 5), "kernel": ["rbf"]}, n_iter=2, random_state=np.random.RandomState(0)
    )
    yield _model("random search", random.fit(X, Y))
    drawn = {"C": stats.loguniform(1e-2, 1), "degree": stats.randint(2, 4), "tol": stats.uniform(1e-4, 1e-3)}
    searched = model_selection.RandomizedSearchCV(svm.SVC(), drawn, n_iter=2, random_state=0)
    yield _model("random search in distributions", searched.fit(X, Y))
    split = list(model_selection.KFold(3).split(X))
    listed = model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1.0]}, cv=split)
    yield _model("splits of the caller's", listed.fit(X, Y))
    several = model_selection.GridSearchCV(
        linear_model.LogisticRegression(),
        {"C": [1.0]},
        refit="f1",
        scoring={"f1": "f1_macro", "loss": metrics.make_scorer(metrics.hamming_loss, greater_is_better=False)},
    )
    yield _model("several scores", several.fit(X, Y))
    for name in SPLITTERS:
        splitter = getattr(model_selection, name)()
        search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=3).fit(X, Y)
        search.cv = splitter
        yield _model(f"splitter {name}", search)
    for name in list_scorer_names():
        search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=3).fit(X, Y)
        search.scoring = search.scorer_ = metrics.get_scorer(name)
        yield _model(f"scorer {name}", search)


def _wrappers() -> Iterator[Fitted]:
    logistic, ridge, forest = (
        linear_model.LogisticRegression(),
        linear_model.Ridge(),
        ensemble.RandomForestClassifier(3),
    )
    yield _model("frozen", frozen.FrozenEstimator(logistic.fit(X, Y)))
    chosen = feature_selection.SelectFromModel(frozen.FrozenEstimator(forest.fit(X, Y))).fit(X, Y)
    yield _model("selected by a frozen one", chosen)
    path = feature_selection.SelectFromModel(
        compose.TransformedTargetRegressor(ridge), importance_getter="regressor_.coef_"
    )
    yield _model("a path of importances", path.fit(X, Y))
    yield _model("recursive elimination", feature_selection.RFE(forest, n_features_to_select=2).fit(X, Y))
    for method in ("sigmoid", "isotonic"):
        for split in (3, model_selection.StratifiedKFold(3)):
            made = calibration.CalibratedClassifierCV(svm.LinearSVC(), method=method, cv=split)
            yield _model(f"calibrated, {method}", made.fit(X, Y))
    pairs: list[Any] = [("lr", logistic), ("nb", naive_bayes.GaussianNB()), ("dropped", "drop")]
    for stack in ("auto", "predict_proba", "predict"):
        made = ensemble.StackingClassifier(pairs, final_estimator=logistic, stack_method=stack, passthrough=True, cv=2)
        yield _model(f"stacked, {stack}", made.fit(X, Y))
    stacked = ensemble.StackingRegressor([("r", ridge), ("t", tree.DecisionTreeRegressor())], cv=2)
    yield _model("stacked regressors", stacked.fit(X, Y))
    for voting in ("hard", "soft"):
        made = ensemble.VotingClassifier(pairs, voting=voting, weights=[1, 2, 1], flatten_transform=False)
        yield _model(f"voting, {voting}", made.fit(X, np.array(["a", "b", "c"])[Y]))
    for kind in (multiclass.OneVsRestClassifier, multiclass.OneVsOneClassifier, multiclass.OutputCodeClassifier):
        yield _model(kind.__name__, kind(svm.LinearSVC()).fit(X, Y))
    constant = np.column_stack([Y == 1, np.zeros(ROWS, int)])
    yield _model("constant labels", multiclass.OneVsRestClassifier(logistic).fit(X, constant))
    both = np.column_stack([Y == 1, Y == 2]).astype(int)
    for method in ("predict_proba", "predict", ["predict_proba", "decision_function"]):
        yield _model(
            f"chain, {method}", multioutput.ClassifierChain(logistic, chain_method=method, order=[1, 0]).fit(X, both)
        )
    yield _model("chain of regressors", multioutput.RegressorChain(ridge, order="random", random_state=0).fit(X, both))
    yield _model("several outputs", multioutput.MultiOutputClassifier(forest).fit(X, both))
    for response in ("auto", "predict_proba", "decision_function"):
        made = model_selection.FixedThresholdClassifier(logistic, threshold=0.4, response_method=response, pos_label=1)
        yield _model(f"threshold, {response}", made.fit(X, Y % 2))
    tuned = model_selection.TunedThresholdClassifierCV(
        logistic, scoring=metrics.make_scorer(metrics.fbeta_score, beta=2.0), cv=2, store_cv_results=True
    )
    yield _model("tuned threshold", tuned.fit(X, Y % 2))


def _more_wrappers() -> Iterator[Fitted]:
    logistic, _ridge = linear_model.LogisticRegression(), linear_model.Ridge()
    forest = ensemble.RandomForestClassifier(3)
    unknown = np.where(np.arange(ROWS) % 2, Y, -1)
    yield _model("self-training", semi_supervised.SelfTrainingClassifier(logistic).fit(X, unknown))
    for first in (None, logistic, "zero"):
        made = ensemble.GradientBoostingClassifier(n_estimators=2, init=first)
        yield _model(f"boosted from {first}", made.fit(X, Y))
    yield _model("bagged", ensemble.BaggingClassifier(svm.SVC(), 3, max_features=0.5).fit(X, Y))
    yield _model("boosted", ensemble.AdaBoostClassifier(forest, n_estimators=2).fit(X, Y))
    yield _model("robust", linear_model.RANSACRegressor(loss="squared_error", random_state=0).fit(X, X[:, 0]))
    imputer = _iterative_imputer(tree.ExtraTreeRegressor(random_state=0)).fit(np.where(X > 9, np.nan, X))
    yield _model("imputed in turn", imputer)
    routed = linear_model.LogisticRegression()
    yield _model("metadata", routed.fit(X, Y))
    yield _model("tree embedding", pipeline.make_pipeline(ensemble.RandomTreesEmbedding(3), logistic).fit(X, Y))
    yield _model("bisected", cluster.BisectingKMeans(4, random_state=0).fit(X))
    coder = decomposition.SparseCoder(np.eye(6))
    yield _model("coder", coder.fit(X) if hasattr(coder, "fit") else coder)
    centerer = preprocessing.KernelCenterer().fit(X @ X.T)
    yield _model("centred", centerer, X @ X.T)
    mahalanobis = discriminant_analysis.LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=_covariance()
    ).fit(X, Y)
    yield _model("an estimator of covariances", mahalanobis)


def _covariance() -> Any:
    from sklearn.covariance import OAS

    return OAS()


def _iterative_imputer(estimator: Any) -> Any:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (without it the class is not there)

    return impute.IterativeImputer(estimator, max_iter=2, random_state=0)


def _texts() -> Iterator[Fitted]:
    text = feature_extraction.text
    options: list[dict[str, Any]] = [
        {},
        {"ngram_range": (1, 2), "stop_words": "english"},
        {"analyzer": "char_wb", "ngram_range": (2, 3)},
        {"stop_words": ["the", "a"], "strip_accents": "unicode", "lowercase": False},
        {"binary": True},
        {"vocabulary": ["cat", "dog", "bird"]},
        {"vocabulary": {"cat": 0, "dog": 1}},
        {"max_features": 3, "min_df": 2},
        {"token_pattern": r"(?u)\b\w+\b", "encoding": "latin-1", "decode_error": "replace"},
        {"dtype": np.float32},
    ]
    for number, given in enumerate(options):
        for name in ("CountVectorizer", "TfidfVectorizer"):
            kind = getattr(text, name)
            made = pipeline.make_pipeline(kind(**given), naive_bayes.MultinomialNB()).fit(TEXTS, Y)
            yield _model(f"{name} {number}", made, TEXTS)
    hashed = pipeline.make_pipeline(
        text.HashingVectorizer(n_features=64, alternate_sign=False),
        text.TfidfTransformer(sublinear_tf=True),
        linear_model.SGDClassifier(),
    )
    yield _model("hashed texts", hashed.fit(TEXTS, Y), TEXTS)
    reduced = pipeline.make_pipeline(text.TfidfVectorizer(), decomposition.TruncatedSVD(2), svm.LinearSVC())
    yield _model("latent semantics", reduced.fit(TEXTS, Y), TEXTS)
    for labels in (["a", "b"], [1, 2], [True, False]):
        yield _model("label encoder", preprocessing.LabelEncoder().fit(labels), labels)
        yield _model("label binarizer", preprocessing.LabelBinarizer().fit(labels), labels)
        yield _model("labels", preprocessing.MultiLabelBinarizer().fit([labels]), [labels])
    yield _model("labels given", preprocessing.MultiLabelBinarizer(classes=["a", "b"]).fit([["a"]]), [["a"]])


def _functions() -> Iterator[Fitted]:
    for function in FUNCTIONS:
        made = preprocessing.FunctionTransformer(function)
        yield _model(f"function {function.__name__}", made)
    for function in _special_functions():
        yield _model(f"function {function.__name__}", preprocessing.FunctionTransformer(function))
    keywords: list[tuple[Any, dict[str, Any]]] = [
        (np.round, {"decimals": 2}),
        (np.clip, {"a_min": 0.0, "a_max": 1.0}),
        (np.nan_to_num, {"nan": 0.0}),
        (np.mean, {"axis": 1, "keepdims": True}),
    ]
    for function, given in keywords:
        yield _model(
            f"{function.__name__} with {given}", preprocessing.FunctionTransformer(function, kw_args=given).fit(X)
        )
    both = preprocessing.FunctionTransformer(np.log1p, np.expm1, validate=True, feature_names_out="one-to-one")
    yield _model("function and inverse", pipeline.make_pipeline(both, linear_model.Ridge()).fit(X, Y))
    for function, inverse in ((np.log1p, np.expm1), (np.sqrt, np.square), (np.log, np.exp)):
        made = compose.TransformedTargetRegressor(linear_model.Ridge(), func=function, inverse_func=inverse)
        yield _model(f"target by {function.__name__}", made.fit(X, Y + 1.0))
    scaled = compose.TransformedTargetRegressor(
        linear_model.Ridge(), transformer=preprocessing.QuantileTransformer(n_quantiles=10)
    )
    yield _model("target by a transformer", scaled.fit(X, Y))
    for name in ("chi2", "f_classif", "f_regression", "mutual_info_classif", "mutual_info_regression", "r_regression"):
        made = feature_selection.SelectKBest(getattr(feature_selection, name), k=2).fit(np.abs(X), Y)
        yield _model(f"chosen by {name}", made)


def _special_functions() -> list[Any]:
    from scipy import special

    names = ("expit", "logit", "log_ndtr", "ndtr", "ndtri", "erf", "erfinv", "exp10", "log1p", "expm1", "xlogy", "cbrt")
    return [getattr(special, name) for name in names if getattr(special, name).nin == 1]


def _kernels() -> Iterator[Fitted]:
    parts = (
        kernels.ConstantKernel(),
        kernels.RBF([1.0]),
        kernels.WhiteKernel(),
        kernels.Matern(nu=2.5),
        kernels.DotProduct(),
        kernels.RationalQuadratic(),
        kernels.ExpSineSquared(),
        kernels.PairwiseKernel(metric="laplacian"),
        kernels.Exponentiation(kernels.RBF(), 2),
        kernels.RBF() * kernels.ConstantKernel(2.0, "fixed"),
        kernels.RBF() + kernels.WhiteKernel(),
    )
    for part in parts:
        made = gaussian_process.GaussianProcessRegressor(part, alpha=10.0, optimizer=None).fit(X[:20, :1], Y[:20])
        yield _model(f"kernel {part}", made)
        yield _model(
            f"classes by {part}", gaussian_process.GaussianProcessClassifier(part, optimizer=None).fit(X[:, :1], Y)
        )
    yield _model("compound kernels", gaussian_process.GaussianProcessClassifier().fit(X, Y))
    for name in ("rbf", "linear", "poly", "sigmoid", "cosine", "laplacian", "chi2"):
        yield _model(f"Nystroem {name}", kernel_approximation.Nystroem(name, n_components=5).fit(X))


def _neighbours() -> Iterator[Fitted]:
    special: dict[str, dict[str, Any]] = {
        "seuclidean": {"V": np.ones(6)},
        "mahalanobis": {"VI": np.eye(6)},
        "minkowski": {"p": 3},
        "p": {"p": 3},
    }
    for algorithm in ("kd_tree", "ball_tree", "brute"):
        for metric in sorted(set(neighbors.VALID_METRICS[algorithm]) - {"pyfunc", "precomputed", "wminkowski"}):
            rows = X[:, :2] if metric == "haversine" else X
            given = special.get(metric)
            try:
                made = neighbors.KNeighborsClassifier(2, algorithm=algorithm, metric=metric, metric_params=given).fit(
                    rows, Y
                )
            except ValueError:
                continue
            yield _model(f"neighbours, {algorithm}, {metric}", made, rows)
            if algorithm != "brute":
                yield _model(
                    f"density, {algorithm}, {metric}",
                    neighbors.KernelDensity(algorithm=algorithm, metric=metric, metric_params=given).fit(rows),
                    rows,
                )
    yield _model(
        "sparse neighbours", neighbors.KNeighborsClassifier().fit(sparse.csr_matrix(X), Y), sparse.csr_matrix(X)
    )
    graph = neighbors.KNeighborsTransformer(n_neighbors=5)
    yield _model(
        "a graph of neighbours",
        pipeline.make_pipeline(graph, neighbors.KNeighborsClassifier(3, metric="precomputed")).fit(X, Y),
    )
    yield _model("novelty", neighbors.LocalOutlierFactor(novelty=True).fit(X))
    components = neighbors.NeighborhoodComponentsAnalysis(2, max_iter=2)
    yield _model("components", pipeline.make_pipeline(components, neighbors.KNeighborsClassifier(3)).fit(X, Y))


def _callers() -> Iterator[Fitted]:
    """What callers hand over and estimators keep."""
    for weights in ({0: 1.0, 1: 2.0, 2: 1.0}, {0: 1, 1: 2}, "balanced"):
        for kind in (linear_model.LogisticRegression, tree.DecisionTreeClassifier, svm.SVC, linear_model.SGDClassifier):
            yield _model(f"{kind.__name__} with weights", kind(class_weight=weights).fit(X, Y))
    texts = np.array(["a", "b", "c"])[Y]
    yield _model(
        "weights by text", ensemble.RandomForestClassifier(3, class_weight={"a": 1.0, "b": 2.0, "c": 1.0}).fit(X, texts)
    )
    both = np.column_stack([Y, Y % 2])
    listed = [{0: 1.0, 1: 2.0, 2: 1.0}, {0: 1.0, 1: 1.0}]
    yield _model("weights by output", ensemble.RandomForestClassifier(3, class_weight=listed).fit(X, both))
    for state in (0, np.int64(3), np.random.RandomState(0), np.random.mtrand._rand):
        yield _model("a random state", ensemble.RandomForestClassifier(3, random_state=state).fit(X, Y))
    monotonic = ensemble.HistGradientBoostingRegressor(max_iter=3, monotonic_cst={"age": 1, "rate": -1})
    yield _model("constraints by name", monotonic.fit(FRAME, Y), FRAME)
    categories = MIXED[["age", "plan", "city"]].astype({"plan": "category", "city": "category"})
    for features in ("from_dtype", ["plan", "city"], [False, True, True]):
        made = ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features=features)
        yield _model(f"categories {features}", made.fit(categories, Y), categories)
    numbers = np.column_stack([X[:, 0], Y, X[:, 1]])
    for kind in (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor):
        yield _model("categories by place", kind(max_iter=3, categorical_features=[1]).fit(numbers, Y), numbers)
    for given in ([np.array(["Lima", "Oslo", "Rome"], dtype=object)], [["Lima", "Oslo", "Rome"]], "auto"):
        yield _model(
            "categories given", preprocessing.OneHotEncoder(categories=given).fit(MIXED[["city"]]), MIXED[["city"]]
        )
    for drop in ("first", "if_binary", ["Lima"], None, np.array(["Oslo"], dtype=object)):
        yield _model(f"drop {drop}", preprocessing.OneHotEncoder(drop=drop).fit(MIXED[["city"]]), MIXED[["city"]])
    both = np.array([["Lima", 1], ["Oslo", 2.5], ["Rome", None], ["Rome", np.nan]] * 15, dtype=object)
    for kind in (preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder):
        yield _model("categories of several kinds", kind().fit(both[:, 1:]), both[:, 1:])
        yield _model("categories that are bools", kind().fit(MIXED[["on"]]), MIXED[["on"]])
        yield _model("categories that are numbers", kind().fit(FRAME[["rank"]]), FRAME[["rank"]])
        objects = FRAME[["rank"]].round().astype(object)
        yield _model("categories that are objects", kind().fit(objects), objects)
    # older releases compare the most frequent ones, so that None may not be one of them
    filled = impute.SimpleImputer(strategy="most_frequent").fit(both[:-2])
    yield _model("filled with several kinds", filled, both)
    yield _model("rare ones", preprocessing.OneHotEncoder(max_categories=2).fit(MIXED[["city"]]), MIXED[["city"]])
    yield _model("priors", naive_bayes.GaussianNB(priors=[0.2, 0.3, 0.5]).fit(X, Y))
    yield _model("layers", neural_network.MLPClassifier((4, 3), max_iter=3).fit(X, Y))
    yield _model("scatter", svm.SVC(probability=False, kernel="precomputed").fit(X @ X.T, Y), X @ X.T)


def _parameters() -> Iterator[Fitted]:
    """What may stand in a parameter whatever the estimator."""
    for random in (np.random.RandomState(0), np.random.default_rng(0), *map(_generator, _BITS)):
        made = preprocessing.QuantileTransformer(n_quantiles=10, random_state=0).fit(X)
        made.random_state = random
        yield _model("random numbers", made)
    for name in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr"):
        for layout in ("matrix", "array"):
            rows = getattr(sparse, f"{name}_{layout}")(X)
            made = neighbors.NearestNeighbors(algorithm="brute").fit(X)
            made._fit_X = rows
            yield _model(f"{name} {layout}", made)
    for kind in (
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.int32,
        np.int64,
        np.uint8,
        np.uint64,
        np.bool_,
        float,
        int,
        bool,
        object,
    ):
        made = preprocessing.OrdinalEncoder().fit(MIXED[["city"]])
        made.dtype = kind
        yield _model(f"dtype {kind.__name__}", made, MIXED[["city"]])
    text = feature_extraction.text.CountVectorizer().fit(TEXTS)
    for words in ({"the"}, frozenset({"a"}), ["the"], ("the", "a")):
        text.stop_words = words
        yield _model("words left out", text, TEXTS)
    for classes in (2, 3):
        yield _model("boosted classes", ensemble.GradientBoostingClassifier(n_estimators=2).fit(X, Y % classes))
    exponential = ensemble.GradientBoostingClassifier(n_estimators=2, loss="exponential")
    yield _model("exponential loss", exponential.fit(X, Y % 2))
    compound = gaussian_process.GaussianProcessClassifier().fit(X, Y)
    compound.kernel = kernels.CompoundKernel([kernels.RBF()])
    yield _model("a compound kernel", compound)
    yield _model("many classes by kernels", gaussian_process.GaussianProcessClassifier(kernels.RBF()).fit(X, Y))


def own_attributes() -> Iterator[Fitted]:
    """Yield models whose owner has noted something on them: attributes that no code reads."""
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(X, Y)
    steps.note, steps.thresholds, steps.columns = "version of May", {"low": 0.2}, ["age", "income"]
    steps.version, steps.feature_cols, steps.model_name = "1.2", list("abc"), "churn"
    yield _model("notes", steps)
    holder = preprocessing.StandardScaler().fit(X)
    holder.extra = [
        OrderedDict(a=1),
        defaultdict(int, a=1),
        defaultdict(list),
        slice(1, 2),
        range(3),
        bytearray(b"a"),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.array(["a", None, 1.5], dtype=object),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.array([1j]),
        np.timedelta64(1, "D"),
        *(getattr(np, name)(1) for name in ("int8", "uint16", "float32", "float16", "bool_", "complex64")),
        [getattr(np, name) for name in ("int8", "uint16", "float32", "float16", "bool_", "int32", "int16", "uint32")],
        np.dtype("float32"),
        sparse.csr_matrix(X[:2]),
        {"scaler": preprocessing.MinMaxScaler().fit(X)},
        kernels.CompoundKernel([kernels.RBF()]),
    ]
    yield _model("plain data of every kind", holder)


_BITS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def _generator(name: str) -> Any:
    return np.random.Generator(getattr(np.random, name)(0))


# --- XGBoost and LightGBM ---------------------------------------------------------------------------------------------


def _xgboost() -> Iterator[Fitted]:
    import xgboost

    for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"):
        yield _model(name, getattr(xgboost, name)(n_estimators=3).fit(X, Y))
    yield _model("XGBRanker", xgboost.XGBRanker(n_estimators=3).fit(X, Y, qid=np.arange(ROWS) // 20))
    options: list[dict[str, Any]] = [
        {"booster": "gblinear"},
        {"booster": "dart", "rate_drop": 0.1},
        {"tree_method": "exact"},
        {"tree_method": "hist"},
        {"grow_policy": "lossguide", "max_leaves": 4},
        {"eval_metric": "mlogloss"},
        {"eval_metric": ["mlogloss", "merror"]},
        {"importance_type": "gain"},
        {"monotone_constraints": "(1,0,0,0,0,0)"},
        {"monotone_constraints": (1, 0, 0, 0, 0, 0)},
        {"interaction_constraints": "[[0, 1], [2, 3, 4, 5]]"},
        {"random_state": np.random.RandomState(0)},
        {"device": "cpu"},
        {"sampling_method": "uniform"},
        {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
        {"base_score": 0.5},
        {"early_stopping_rounds": 2},
        {"missing": -1.0},
        {"seed": 3},
        {"validate_parameters": True},
        {"feature_types": ["q"] * 6},
        {"nthread": 1},
        {"verbosity": 0},
        {"max_cat_to_onehot": 4},
    ]
    for given in options:
        evaluated = {"eval_set": [(X, Y)], "verbose": False} if "early_stopping_rounds" in given else {}
        yield _model(f"XGBClassifier {given}", xgboost.XGBClassifier(n_estimators=3, **given).fit(X, Y, **evaluated))
    objectives = (
        "reg:squarederror",
        "reg:absoluteerror",
        "reg:gamma",
        "reg:tweedie",
        "reg:pseudohubererror",
        "count:poisson",
        "reg:squaredlogerror",
        "reg:logistic",
        "binary:logistic",
        "binary:hinge",
        "survival:cox",
        "rank:pairwise",
    )
    for objective in objectives:
        target = (Y % 2) if objective.startswith(("reg:logistic", "binary")) else Y + 1.0
        if objective.startswith("rank"):
            continue
        yield _model(
            f"XGBRegressor {objective}", xgboost.XGBRegressor(n_estimators=3, objective=objective).fit(X, target)
        )
    stops = xgboost.callback.EarlyStopping(rounds=2, save_best=True)
    watched = xgboost.XGBClassifier(n_estimators=3, callbacks=[stops])
    yield _model("callbacks", watched.fit(X, Y, eval_set=[(X, Y)], verbose=False))
    yield _model("two classes", xgboost.XGBClassifier(n_estimators=3).fit(X, Y % 2))
    yield _model("a table", xgboost.XGBClassifier(n_estimators=3).fit(FRAME, Y), FRAME)
    categories = MIXED[["age", "city"]].astype({"city": "category"})
    yield _model(
        "categories", xgboost.XGBClassifier(n_estimators=3, enable_categorical=True).fit(categories, Y), categories
    )
    yield _model("the booster", xgboost.XGBRegressor(n_estimators=3).fit(X, Y).get_booster())
    named = xgboost.XGBRegressor(n_estimators=3).fit(FRAME, Y).get_booster()
    yield _model("the booster of a table", named, FRAME)
    yield _model("trained", xgboost.train({"max_depth": 2}, xgboost.DMatrix(X, Y), 3))
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), xgboost.XGBClassifier(n_estimators=3))
    yield _model("in a pipeline", steps.fit(X, Y))


def _lightgbm() -> Iterator[Fitted]:
    import lightgbm

    quiet: dict[str, Any] = {"n_estimators": 3, "verbose": -1}
    for name in ("LGBMClassifier", "LGBMRegressor"):
        yield _model(name, getattr(lightgbm, name)(**quiet).fit(X, Y))
    ranker = lightgbm.LGBMRanker(**quiet).fit(X, Y, group=[20, 20, 20])
    yield _model("LGBMRanker", ranker)
    yield _model("the booster", ranker.booster_)
    options: list[dict[str, Any]] = [
        {"boosting_type": "dart"},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"boosting_type": "gbdt"},
        {"data_sample_strategy": "goss"},
        {"importance_type": "gain"},
        {"class_weight": "balanced"},
        {"objective": "multiclassova"},
        {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}},
        {"random_state": np.random.RandomState(0)},
        {"metric": ["multi_logloss"]},
        {"monotone_constraints": [1, 0, 0, 0, 0, 0]},
        {"linear_tree": True, "objective": "multiclass"},
        {"force_col_wise": True},
        {"num_threads": 1},
        {"seed": 3},
        {"max_bin": 15},
        {"device_type": "cpu"},
        {"num_class": 3},
    ]
    for given in options:
        try:
            yield _model(f"LGBMClassifier {given}", lightgbm.LGBMClassifier(**quiet, **given).fit(X, Y))
        except lightgbm.basic.LightGBMError:
            continue
    for objective in (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
    ):
        yield _model(f"LGBMRegressor {objective}", lightgbm.LGBMRegressor(**quiet, objective=objective).fit(X, Y + 1.0))
    stopped = lightgbm.LGBMClassifier(**quiet).fit(
        X, Y, eval_set=[(X, Y)], callbacks=[lightgbm.early_stopping(1, verbose=False)], eval_metric="multi_logloss"
    )
    yield _model("stopped early", stopped)
    yield _model("text labels", lightgbm.LGBMClassifier(**quiet).fit(X, np.array(["a", "b", "c"])[Y]))
    yield _model("a table", lightgbm.LGBMClassifier(**quiet).fit(FRAME, Y), FRAME)
    categories = MIXED[["age", "city"]].astype({"city": "category"})
    yield _model("categories", lightgbm.LGBMClassifier(**quiet).fit(categories, Y), categories)
    yield _model("trained", lightgbm.train({"verbose": -1, "max_depth": 2}, lightgbm.Dataset(X, Y), 3))
    rows = lightgbm.Dataset(X, Y)
    compared = lightgbm.train({"verbose": -1, "metric": "l2"}, rows, 3, valid_sets=[rows], valid_names=["first"])
    yield _model("trained beside other rows", compared)
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), lightgbm.LGBMRegressor(**quiet))
    yield _model("in a pipeline", steps.fit(X, Y))


EVERYTHING: tuple[Callable[[], Iterator[Fitted]], ...] = (compositions, boosters)

"""Estimators for the sceptic: all that have a compiled form, with the settings that change their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn import (
    calibration,
    cluster,
    compose,
    covariance,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    impute,
    isotonic,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    mixture,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    random_projection,
    svm,
    tree,
)
from sklearn.datasets import make_classification
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.pipeline import make_pipeline

from tests.unit.host.test_every_estimator import SERVED, fit_estimator

ROWS, CLASSES = make_classification(300, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)
POSITIVE = np.abs(ROWS) + 1e-3
UNEVEN = ROWS * np.array([1e-8, 1, 1e-17, 1e5, 1e-12, 1e3])  # columns in very different units
VALUES = ROWS @ np.arange(1.0, 7.0) + 30
ABOVE = np.abs(VALUES) + 0.1
TWO = (CLASSES > 0).astype(int)
WORDS = np.array(["b", "a", "c"])[CLASSES]
SEVERAL = np.column_stack([TWO, CLASSES > 1]).astype(int)
PAIR = np.column_stack([VALUES, -VALUES])
SEED: dict[str, Any] = {"random_state": 0}
FEW: dict[str, Any] = {"random_state": 0, "n_estimators": 7}

Case = tuple[str, Callable[[], Any]]


def list_cases() -> list[Case]:
    """Return a name and a function that fits, for each; nothing is fitted yet."""
    made = [
        *_yield_transformers(),
        *_yield_kernels(),
        *_yield_classifiers(),
        *_yield_regressors(),
        *_yield_others(),
        *_yield_boosters(),
    ]
    named = [
        (f"{place:03d} {' '.join(str(each[0]).split())[:100]}", lambda each=each: each[0].fit(*each[1:]))
        for place, each in enumerate(made)
    ]
    return named + [(f"every {name}", lambda name=name: fit_estimator(name)[0]) for name in SERVED]


def _yield_transformers() -> Iterator[tuple[Any, ...]]:
    p = preprocessing
    for norm in ("l1", "l2", "max"):
        yield p.Normalizer(norm), ROWS
        yield make_pipeline(p.Normalizer(norm), linear_model.LogisticRegression()), ROWS, TWO
        yield TfidfTransformer(norm=None if norm == "max" else norm, sublinear_tf=norm == "max"), POSITIVE
    constant = ROWS.copy()
    constant[:, 2:4] = 3.0, 1e-300
    for rows in (ROWS, UNEVEN, constant):
        yield p.StandardScaler(), rows
        yield p.StandardScaler(with_mean=False), rows
        yield p.RobustScaler(unit_variance=True), rows
        yield p.MaxAbsScaler(), rows
        yield p.MinMaxScaler(clip=True), rows
        yield p.MinMaxScaler((-1e-9, 1e9)), rows
        yield make_pipeline(p.StandardScaler(), linear_model.LogisticRegression()), rows, WORDS
        yield make_pipeline(p.RobustScaler(), ensemble.RandomForestClassifier(**FEW)), rows, CLASSES
    for standardize in (True, False):
        yield p.PowerTransformer(standardize=standardize), ROWS
        yield p.PowerTransformer("box-cox", standardize=standardize), POSITIVE
    for encode in ("ordinal", "onehot-dense"):
        yield p.KBinsDiscretizer(5, encode=encode, quantile_method="averaged_inverted_cdf"), ROWS
        yield p.KBinsDiscretizer(5, encode=encode, strategy="uniform"), ROWS
    yield p.QuantileTransformer(n_quantiles=50), ROWS
    for extrapolation, degree in (("constant", 1), ("constant", 3), ("linear", 2), ("linear", 3)):
        yield p.SplineTransformer(4, degree=degree, extrapolation=extrapolation), ROWS
    for degree in (2, 3):
        yield make_pipeline(p.PolynomialFeatures(degree), linear_model.LogisticRegression()), ROWS, CLASSES
        yield p.PolynomialFeatures(degree, interaction_only=True, include_bias=False), ROWS
    for function in (np.log, np.sqrt, np.abs, np.tanh, np.floor, np.negative, np.sign, np.log1p, np.square):
        yield make_pipeline(p.FunctionTransformer(function), p.MinMaxScaler()), POSITIVE
    yield p.Binarizer(threshold=1e-300), ROWS
    yield p.OneHotEncoder(handle_unknown="ignore"), np.resize([0, 5e-324, 1e-300, 1e-16, 1e16, -0.0, 1], (21, 2))
    yield p.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), np.round(ROWS)
    yield p.TargetEncoder(random_state=0), np.round(ROWS), VALUES
    for strategy in ("mean", "median", "most_frequent", "constant"):
        yield impute.SimpleImputer(strategy=strategy), np.where(ROWS > 1.5, np.nan, ROWS)
        yield impute.SimpleImputer(missing_values=0.0, strategy=strategy), np.round(ROWS)
    yield make_pipeline(p.Normalizer(), p.PolynomialFeatures(2), linear_model.LogisticRegression()), ROWS, CLASSES


def _yield_kernels() -> Iterator[tuple[Any, ...]]:
    for kernel in ("linear", "poly", "rbf", "sigmoid"):
        yield svm.SVC(kernel=kernel), ROWS, CLASSES
        yield svm.SVC(kernel=kernel), ROWS, TWO
        yield svm.NuSVC(kernel=kernel, nu=0.3), ROWS, WORDS
        yield svm.SVR(kernel=kernel), ROWS, VALUES
        yield svm.OneClassSVM(kernel=kernel), ROWS
        yield kernel_ridge.KernelRidge(kernel=kernel), ROWS, VALUES
        yield decomposition.KernelPCA(3, kernel=kernel), ROWS
        yield kernel_approximation.Nystroem(kernel, n_components=20, random_state=0), ROWS
    yield svm.SVC(break_ties=True), ROWS, CLASSES
    yield svm.SVC(decision_function_shape="ovo"), ROWS, CLASSES
    yield make_pipeline(preprocessing.StandardScaler(), svm.SVC()), UNEVEN, CLASSES
    yield svm.SVC(), ROWS * 1e-9, CLASSES
    wide = np.hstack([ROWS] * 6)
    for gamma in (1.0, "scale", 0.01):
        for rows in (ROWS, wide):
            sampler = kernel_approximation.RBFSampler(gamma=gamma, n_components=12, random_state=0)
            yield sampler, rows
            yield make_pipeline(sampler, linear_model.LogisticRegression()), rows, TWO
    for steps in (1, 2, 3):
        yield kernel_approximation.AdditiveChi2Sampler(sample_steps=steps), POSITIVE
    for skewedness in (1.0, 1e-12):
        yield kernel_approximation.SkewedChi2Sampler(skewedness=skewedness, n_components=8, random_state=0), POSITIVE


def _yield_classifiers() -> Iterator[tuple[Any, ...]]:
    m, e, logistic, bayes = linear_model, ensemble, linear_model.LogisticRegression(), naive_bayes.GaussianNB()
    lda = discriminant_analysis.LinearDiscriminantAnalysis
    both = [("a", logistic), ("b", bayes)]
    for labels in (CLASSES, TWO, WORDS):
        for made in (
            m.LogisticRegression(), m.LogisticRegression(fit_intercept=False), m.RidgeClassifier(), m.Perceptron(),
            m.SGDClassifier(**SEED), m.SGDClassifier(loss="log_loss", **SEED), svm.LinearSVC(),
            naive_bayes.GaussianNB(), naive_bayes.BernoulliNB(), lda(), lda(solver="lsqr"),
            discriminant_analysis.QuadraticDiscriminantAnalysis(), tree.DecisionTreeClassifier(max_depth=4),
            e.RandomForestClassifier(**FEW), e.ExtraTreesClassifier(**FEW),
            e.GradientBoostingClassifier(**FEW), e.HistGradientBoostingClassifier(max_iter=7),
            e.AdaBoostClassifier(**FEW), e.BaggingClassifier(**FEW), e.BaggingClassifier(logistic, **FEW),
            calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
            calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic", cv=2),
            calibration.CalibratedClassifierCV(bayes, method="isotonic", cv=2),
            multiclass.OneVsRestClassifier(logistic), multiclass.OneVsOneClassifier(logistic),
            multiclass.OneVsOneClassifier(bayes), multiclass.OutputCodeClassifier(logistic, **SEED),
            e.VotingClassifier([*both, ("c", svm.LinearSVC())]), e.VotingClassifier(both, voting="soft"),
            e.StackingClassifier([*both, ("c", svm.LinearSVC())], cv=2, passthrough=True),
            neighbors.NearestCentroid(), neighbors.NearestCentroid(priors="empirical", shrink_threshold=0.5),
        ):  # fmt: skip
            yield made, ROWS, labels
        for kind in (naive_bayes.MultinomialNB(), naive_bayes.ComplementNB()):
            yield kind, POSITIVE, labels
    for activation in ("identity", "logistic", "tanh", "relu"):
        for labels in (CLASSES, TWO, SEVERAL):
            network = neural_network.MLPClassifier((5, 3), activation=activation, max_iter=50, random_state=0)
            yield network, ROWS, labels
    for kind, scale in ((logistic, 1e-9), (bayes, 1e-9), (lda(), 1e-9), (tree.DecisionTreeClassifier(), 1e-44)):
        yield kind, ROWS * scale, CLASSES
    yield e.HistGradientBoostingClassifier(max_iter=7), np.round(ROWS * 10) * 5e-324, CLASSES
    yield e.RandomForestClassifier(**FEW), ROWS, SEVERAL
    yield multioutput.MultiOutputClassifier(logistic), ROWS, SEVERAL
    yield multioutput.ClassifierChain(logistic), ROWS, SEVERAL


def _yield_regressors() -> Iterator[tuple[Any, ...]]:
    m, e, linear = linear_model, ensemble, linear_model.LinearRegression()
    several = [("a", linear), ("b", linear_model.Ridge())]
    for made in (
        m.LinearRegression(), m.LinearRegression(fit_intercept=False), m.Lasso(), m.ElasticNet(), m.HuberRegressor(),
        m.BayesianRidge(), m.PoissonRegressor(), m.GammaRegressor(), m.TweedieRegressor(power=1.5),
        m.SGDRegressor(**SEED), svm.LinearSVR(), tree.DecisionTreeRegressor(max_depth=4),
        e.RandomForestRegressor(**FEW), e.GradientBoostingRegressor(**FEW), e.HistGradientBoostingRegressor(max_iter=7),
        e.HistGradientBoostingRegressor(max_iter=7, loss="poisson"), e.AdaBoostRegressor(**FEW),
        e.AdaBoostRegressor(linear, **FEW), e.BaggingRegressor(linear, **FEW), e.VotingRegressor(several),
        e.StackingRegressor(several, cv=2), neighbors.KNeighborsRegressor(3),
        cross_decomposition.PLSRegression(2), cross_decomposition.CCA(1), m.RANSACRegressor(**SEED),
        compose.TransformedTargetRegressor(linear, func=np.log, inverse_func=np.exp),
        compose.TransformedTargetRegressor(linear, func=np.log1p, inverse_func=np.expm1),
        compose.TransformedTargetRegressor(linear, transformer=preprocessing.StandardScaler()),
        *(neural_network.MLPRegressor(hidden_layer_sizes=(5,), activation=each, max_iter=50, random_state=0)
          for each in ("identity", "logistic", "tanh", "relu")),
    ):  # fmt: skip
        yield made, ROWS, ABOVE
    for scale in (1e-200, 1e-30, 1e200):
        yield m.LinearRegression(fit_intercept=False), ROWS * scale, VALUES
    yield m.PoissonRegressor(), UNEVEN, ABOVE
    yield m.LinearRegression(), ROWS, PAIR
    yield e.RandomForestRegressor(**FEW), ROWS, PAIR
    yield multioutput.RegressorChain(linear), ROWS, PAIR


def _yield_others() -> Iterator[tuple[Any, ...]]:
    d, c = decomposition, cluster
    for whiten in (True, False):
        yield d.PCA(4, whiten=whiten), ROWS
        yield d.PCA(5, whiten=whiten), UNEVEN
        yield d.IncrementalPCA(4, whiten=whiten), ROWS
    yield from ((made, ROWS) for made in (d.TruncatedSVD(3), d.FactorAnalysis(3), d.FastICA(3, **SEED)))
    for kind in (c.KMeans(3, n_init=1, **SEED), c.MiniBatchKMeans(3, n_init=1, **SEED), c.Birch(n_clusters=3)):
        yield kind, ROWS
        yield kind, ROWS * 1e-10
        yield make_pipeline(kind, linear_model.LogisticRegression()), ROWS, CLASSES
    yield from ((kind, ROWS) for kind in (c.MeanShift(), c.AffinityPropagation(**SEED), c.FeatureAgglomeration(3)))
    for shape in ("full", "tied", "diag", "spherical"):
        yield mixture.GaussianMixture(3, covariance_type=shape, **SEED), ROWS
        yield mixture.BayesianGaussianMixture(n_components=3, covariance_type=shape, **SEED), ROWS
    yield covariance.EllipticEnvelope(**SEED), ROWS
    yield ensemble.IsolationForest(**FEW), ROWS
    yield ensemble.RandomTreesEmbedding(5, **SEED), ROWS
    yield linear_model.SGDOneClassSVM(**SEED), ROWS
    yield random_projection.SparseRandomProjection(3, dense_output=True, **SEED), ROWS
    for bounds in ("clip", "nan"):
        yield isotonic.IsotonicRegression(out_of_bounds=bounds), ROWS[:, :1], VALUES
    close = np.array([[0.0], [5e-324], [1e-310], [1e-300], [1.0], [np.nextafter(1, 2)], [2.0]])
    yield isotonic.IsotonicRegression(out_of_bounds="clip"), close, np.arange(7.0)


def _yield_boosters() -> Iterator[tuple[Any, ...]]:
    for scale in (1.0, 1e-35, 1e-40):
        yield xgboost.XGBRegressor(n_estimators=7, n_jobs=1), ROWS * scale, VALUES
        yield lightgbm.LGBMRegressor(n_estimators=7, verbose=-1, n_jobs=1), ROWS * scale, VALUES
    for labels in (CLASSES, TWO):
        yield xgboost.XGBClassifier(n_estimators=7, n_jobs=1), ROWS, labels
        yield lightgbm.LGBMClassifier(n_estimators=7, verbose=-1, n_jobs=1), ROWS, labels

"""Models of listed classes that would make their classes call, name, open or write what they should not.

Each is a sound model in which an attribute holds something else: the name of another method, a function, an array to
write into, an object that only looks like what belongs there. No class in them is a stranger, so a list of names lets
all of them in.
"""

from __future__ import annotations

import builtins
import copy
import functools
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import (
    calibration,
    cluster,
    compose,
    decomposition,
    dummy,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    metrics,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    random_projection,
    semi_supervised,
    svm,
    tree,
)
from sklearn.gaussian_process import kernels
from sklearn.utils import Bunch

from tests.sound.estimators import TEXTS, table

X, Y = table()
LOGISTIC = linear_model.LogisticRegression
ARRAY = np.zeros(3)
INTO = np.array(["a path"], dtype=object)


def tampered(model: Any, **attributes: Any) -> Any:
    """Return a model with other attributes, without asking it."""
    vars(model).update(attributes)
    return model


def inside(path: str, model: Any, **attributes: Any) -> Any:
    """Return a model in which a part, reached by names and places with dots between, has other attributes."""
    part = model
    for step in path.split("."):
        part = part[int(step)] if step.isdigit() else getattr(part, step)
    vars(part).update(attributes)
    return model


def function(**attributes: Any) -> Any:
    """Return a transformer by a function."""
    return tampered(preprocessing.FunctionTransformer(np.exp, kw_args={}).fit(X), **attributes)


def stacked() -> Any:
    """Return a stacked classifier that nobody else has."""
    return copy.deepcopy(_stacked_once())


@functools.cache
def _stacked_once() -> Any:
    return ensemble.StackingClassifier([("a", LOGISTIC()), ("b", naive_bayes.GaussianNB())], cv=2).fit(X, Y)


def words(**attributes: Any) -> Any:
    """Return a vectorizer of texts."""
    return tampered(feature_extraction.text.TfidfVectorizer().fit(TEXTS), **attributes)


def scored(**attributes: Any) -> Any:
    """Return a search whose scorer has other attributes."""
    search = model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9]}, cv=2).fit(X, Y)
    search.scorer_ = tampered(metrics.make_scorer(metrics.f1_score, average="macro"), **attributes)
    return search


def columns(**attributes: Any) -> Any:
    """Return a transformer of columns."""
    return tampered(compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0])]).fit(X), **attributes)


def process(**attributes: Any) -> Any:
    """Return a Gaussian process."""
    return tampered(gaussian_process.GaussianProcessRegressor(kernels.RBF(), alpha=9.0).fit(X, Y), **attributes)


def gadgets() -> dict[str, Callable[[], Any]]:
    """Return a maker for each, by what it does."""
    return {**_methods(), **_functions(), **_arguments(), **_texts(), **_objects(), **_places()}


def _methods() -> dict[str, Callable[[], Any]]:
    """Names of methods that a class calls."""

    def chain() -> Any:
        return multioutput.ClassifierChain(LOGISTIC(), chain_method="predict_proba").fit(
            X, np.column_stack([Y > 0, Y > 1])
        )

    def threshold() -> Any:
        return model_selection.FixedThresholdClassifier(LOGISTIC()).fit(X, Y % 2)

    def chosen() -> Any:
        return feature_selection.SelectFromModel(LOGISTIC()).fit(X, Y)

    return {
        "stacks by fit": lambda: tampered(stacked(), stack_method_=["fit", "fit"]),
        "stacks by a method of arrays": lambda: tampered(stacked(), stack_method_=["tofile", "dump"]),
        "stacks by a dunder": lambda: tampered(stacked(), stack_method_=["__class__", "__init__"]),
        "stacks by what is set": lambda: tampered(stacked(), stack_method_=["set_params", "set_output"]),
        "stacks by an array of names": lambda: tampered(stacked(), stack_method_=np.array(["fit", "fit"])),
        "stacks by an array of objects": lambda: tampered(
            stacked(), stack_method_=np.array(["fit", "fit"], dtype=object)
        ),
        "chains by fit": lambda: tampered(chain(), chain_method_="fit"),
        "chains by several": lambda: tampered(chain(), chain_method=["fit", "tofile"]),
        "responds by fit": lambda: tampered(threshold(), response_method="fit"),
        "responds by a list": lambda: tampered(threshold(), response_method=["fit_predict", "predict"]),
        "responds by a tuned name": lambda: tampered(
            model_selection.TunedThresholdClassifierCV(LOGISTIC(), cv=2).fit(X, Y % 2), response_method="fit"
        ),
        "scores by fit": lambda: scored(_response_method="fit"),
        "importances by a dunder": lambda: tampered(chosen(), importance_getter="__init__.__globals__"),
        "importances by a private name": lambda: tampered(chosen(), importance_getter="_estimator_type"),
        "importances by a method": lambda: tampered(chosen(), importance_getter="estimator_.fit"),
        "importances by a function": lambda: tampered(chosen(), importance_getter=np.exp),
        "eliminates by a dunder": lambda: tampered(
            feature_selection.RFE(LOGISTIC()).fit(X, Y), importance_getter="__class__.__mro__"
        ),
        "formats an attribute": lambda: columns(verbose_feature_names_out="{feature_name.__class__.__mro__}"),
        "formats an item": lambda: columns(verbose_feature_names_out="{0[__globals__]}"),
        "evaluates how much to dispatch": lambda: tampered(scored(), pre_dispatch="__import__('os').getpid()"),
    }


def _functions() -> dict[str, Callable[[], Any]]:
    """Functions and classes in the place of those that belong there."""

    def target(**attributes: Any) -> Any:
        made = compose.TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1)
        return tampered(made.fit(X, Y), **attributes)

    def near(**attributes: Any) -> Any:
        return tampered(neighbors.KNeighborsClassifier(algorithm="brute").fit(X, Y), **attributes)

    return {
        "applies str": lambda: function(func=builtins.str),
        "applies bool": lambda: function(func=builtins.bool),
        "applies bytes back": lambda: function(inverse_func=builtins.bytes),
        "applies a scorer": lambda: function(func=metrics.accuracy_score),
        "applies a bound function": lambda: function(func=functools.partial(np.exp)),
        "names features by a function": lambda: function(feature_names_out=builtins.list),
        "targets by str": lambda: target(func=builtins.str),
        "targets back by bytes": lambda: target(inverse_func=builtins.bytes),
        "tokenizes by list": lambda: words(tokenizer=builtins.list),
        "prepares texts by bytes": lambda: words(preprocessor=builtins.bytes),
        "analyzes by set": lambda: words(analyzer=builtins.set),
        "strips accents by a function": lambda: words(strip_accents=np.exp),
        "keeps numbers as a function": lambda: words(dtype=np.exp),
        "measures by a function": lambda: near(metric=np.clip),
        "measures by another name": lambda: near(effective_metric_=np.clip),
        "weighs by a function": lambda: near(weights=np.exp),
        "a kernel that is a function": lambda: tampered(svm.SVC().fit(X, Y), kernel=np.clip),
        "a kernel that is a class": lambda: tampered(kernel_ridge.KernelRidge().fit(X, Y), kernel=builtins.bytes),
        "approximates a function": lambda: tampered(
            kernel_approximation.Nystroem(n_components=5).fit(X), kernel=np.sum
        ),
        "components of a function": lambda: tampered(decomposition.KernelPCA(2).fit(X), kernel=builtins.tuple),
        "spreads labels by a function": lambda: tampered(semi_supervised.LabelSpreading().fit(X, Y), kernel=np.exp),
        "optimizes by a function": lambda: process(optimizer=np.exp),
        "a process of a function": lambda: process(kernel_=np.exp),
        "pools by str": lambda: tampered(cluster.FeatureAgglomeration().fit(X), pooling_func=builtins.str),
        "imputes by a function": lambda: tampered(impute.SimpleImputer().fit(X), strategy=np.exp),
        "scores by a class": lambda: scored(_score_func=builtins.str),
        "scores by a function": lambda: scored(_score_func=np.clip),
        "chooses by a function": lambda: tampered(feature_selection.SelectKBest(k=2).fit(X, Y), score_func=np.clip),
        "random numbers of a function": lambda: tampered(
            random_projection.GaussianRandomProjection(2).fit(X), random_state=np.exp
        ),
        "columns by a function": lambda: columns(
            transformers_=[("a", preprocessing.StandardScaler().fit(X[:, :1]), np.exp)]
        ),
    }


def _arguments() -> dict[str, Callable[[], Any]]:
    """Arguments that make a harmless function do harm."""
    return {
        "writes into an array": lambda: function(kw_args={"out": INTO}),
        "writes into a tuple": lambda: function(kw_args={"out": (INTO,)}),
        "leaves memory as it was": lambda: function(kw_args={"where": False}),
        "computes with objects": lambda: function(kw_args={"dtype": np.dtype("O")}),
        "computes with objects by name": lambda: function(kw_args={"dtype": "O"}),
        "casts unsafely": lambda: function(kw_args={"casting": "unsafe"}),
        "chooses a loop": lambda: function(kw_args={"signature": "O->O"}),
        "writes on the way back": lambda: function(inv_kw_args={"out": INTO}),
        "measures into an array": lambda: tampered(
            neighbors.KNeighborsClassifier(algorithm="brute").fit(X, Y), effective_metric_params_={"out": ARRAY}
        ),
        "parameters of a metric": lambda: tampered(
            neighbors.KNeighborsClassifier().fit(X, Y), metric_params={"func": np.exp}
        ),
        "parameters of a kernel": lambda: tampered(
            kernel_approximation.Nystroem(n_components=5).fit(X), kernel_params={"out": ARRAY}
        ),
        "parameters of pairs": lambda: process(
            kernel_=tampered(kernels.PairwiseKernel(), pairwise_kernels_kwargs={"out": ARRAY})
        ),
        "parameters of a score": lambda: scored(_kwargs={"out": ARRAY}),
        "arguments of a check": lambda: inside(
            "_preprocessor.transformers_.1.1",
            ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(
                np.column_stack([Y, X[:, 1]]), Y
            ),
            func=functools.partial(np.clip, out=ARRAY),
        ),
    }


def _texts() -> dict[str, Callable[[], Any]]:
    """Texts that are opened, or looked up."""
    return {
        "opens files": lambda: words(input="filename"),
        "reads files": lambda: words(input="file"),
        "decodes by a long name": lambda: words(encoding="../../../tmp/" + "x" * 60),
        "a kernel by another name": lambda: tampered(svm.SVC().fit(X, Y), kernel="__class__"),
        "a strategy by another name": lambda: tampered(dummy.DummyClassifier().fit(X, Y), strategy="fit"),
        "a solver by another name": lambda: tampered(LOGISTIC().fit(X, Y), solver="fit"),
        "an output by another name": lambda: tampered(
            preprocessing.StandardScaler().fit(X), _sklearn_output_config={"transform": "os.path"}
        ),
    }


def _objects() -> dict[str, Callable[[], Any]]:
    """Objects that only look like what belongs there."""
    forest = ensemble.RandomForestClassifier(2)

    def voting() -> Any:
        return ensemble.VotingClassifier([("a", LOGISTIC())]).fit(X, Y)

    return {
        "an array in the place of an estimator": lambda: tampered(stacked(), estimators_=[ARRAY, ARRAY]),
        "a function in the place of an estimator": lambda: tampered(stacked(), final_estimator_=np.exp),
        "a class in the place of an estimator": lambda: tampered(stacked(), final_estimator_=builtins.dict),
        "bytes in the place of an estimator": lambda: tampered(stacked(), final_estimator_=b"abc"),
        "a kernel in the place of an estimator": lambda: tampered(
            model_selection.GridSearchCV(LOGISTIC(), {"C": [1.0]}, cv=2).fit(X, Y), best_estimator_=kernels.RBF()
        ),
        "an estimator in the place of coefficients": lambda: tampered(LOGISTIC().fit(X, Y), coef_=function()),
        "an estimator in the place of a mean": lambda: tampered(preprocessing.StandardScaler().fit(X), mean_=stacked()),
        "a Bunch in the place of an array": lambda: tampered(
            preprocessing.StandardScaler().fit(X), scale_=Bunch(shape=(6,), dtype="f8", ndim=1)
        ),
        "a Bunch in the place of classes": lambda: tampered(LOGISTIC().fit(X, Y), classes_=Bunch(take=np.exp)),
        "an estimator in the place of a kernel": lambda: process(kernel_=function()),
        "an estimator in the place of a scorer": lambda: tampered(scored(), scorer_=stacked()),
        "an estimator in the place of an encoder": lambda: tampered(voting(), le_=np.exp),
        "an estimator in the place of a count": lambda: tampered(forest.fit(X, Y), n_features_in_=stacked()),
        "a pipeline among trees": lambda: tampered(
            ensemble.RandomForestClassifier(2).fit(X, Y), estimators_=[pipeline.make_pipeline(function())]
        ),
        "a pipeline among rounds": lambda: tampered(
            ensemble.GradientBoostingClassifier(n_estimators=1).fit(X, Y % 2),
            estimators_=np.array([[pipeline.make_pipeline(function())]], dtype=object),
        ),
        "an estimator among calibrators": lambda: tampered(
            calibration.CalibratedClassifierCV(LOGISTIC(), cv=2).fit(X, Y),
            calibrated_classifiers_=[LOGISTIC().fit(X, Y)],
        ),
        "a function among the steps": lambda: pipeline.Pipeline([("a", np.exp), ("b", LOGISTIC().fit(X, Y))]),
        "a function among the outputs": lambda: tampered(
            multioutput.MultiOutputRegressor(linear_model.Ridge()).fit(X, X), estimators_=[np.exp]
        ),
        "an array in the place of labels": lambda: tampered(
            multiclass.OneVsRestClassifier(LOGISTIC()).fit(X, Y), label_binarizer_=ARRAY
        ),
        "a function in the place of a tree": lambda: tampered(tree.DecisionTreeClassifier().fit(X, Y), tree_=np.exp),
        "an estimator in the place of a tree": lambda: tampered(
            tree.DecisionTreeClassifier().fit(X, Y), tree_=function()
        ),
        "callbacks": lambda: tampered(_xgboost(), callbacks=[np.exp]),
        "an objective that is a function": lambda: tampered(_xgboost(), objective=np.exp),
        "a metric that is a function": lambda: tampered(_xgboost(), eval_metric=[np.exp]),
        "an objective of another library": lambda: tampered(_lightgbm(), _objective=np.exp),
    }


def _places() -> dict[str, Callable[[], Any]]:
    """Attributes in the place of what a class defines."""
    return {
        "another implementation": lambda: tampered(svm.SVC().fit(X, Y), _impl="epsilon_svr"),
        "other kernels": lambda: tampered(svm.SVC().fit(X, Y), _sparse_kernels=["fit"]),
        "other constraints": lambda: tampered(LOGISTIC().fit(X, Y), _parameter_constraints={}),
        "other outputs": lambda: tampered(
            preprocessing.StandardScaler().fit(X), _sklearn_auto_wrap_output_keys={"fit"}
        ),
        "a note that the class reads": lambda: tampered(words(), _stop_words_id="fit"),
    }


def _xgboost() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=2).fit(X, Y)


def _lightgbm() -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, Y)


# --- one chain that was seen to run code ------------------------------------------------------------------------------


class _Payload:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code, {})


def _with_memory() -> Any:
    inner = pipeline.Pipeline([("c", preprocessing.FunctionTransformer()), ("last", "passthrough")], memory=".")
    return pipeline.Pipeline([("b", preprocessing.FunctionTransformer(builtins.bool)), ("inner", inner)])


def runs_code(code: str) -> Any:
    """Return a model that runs `code` when it answers a row, without the name of anything that runs code.

    A stacked model calls `fit` of a pipeline with a memory, which makes a directory; `tofile` of an array, which puts a
    pickle there; and `fit` again, which reads that. The path comes from functions over the row that is asked.
    """
    raw = pickle.dumps(_Payload(code), protocol=4)
    blob = np.array([raw], dtype=f"S{len(raw)}")
    stack = ensemble.StackingRegressor([("a", dummy.DummyRegressor())])
    stack.estimators_, stack.stack_method_ = [_with_memory(), blob, _with_memory()], ["fit", "tofile", "fit"]
    stack.final_estimator_ = dummy.DummyRegressor().fit(np.zeros((2, 1)), [0, 1])
    into = {
        "out": np.array(_path_in_memory(), dtype=object),
        "where": False,
        "dtype": np.dtype("O"),
        "casting": "unsafe",
    }
    steps = [
        ("m", preprocessing.FunctionTransformer(np.mean)),
        ("k", preprocessing.FunctionTransformer(np.exp, kw_args=into)),
        ("s", preprocessing.FunctionTransformer(builtins.str)),
        ("st", stack),
    ]
    for _, each in steps[:3]:
        each.n_features_in_ = 1
    return pipeline.Pipeline(steps)


def _path_in_memory() -> str:
    """Return where the memory keeps what it is asked for, by asking."""
    here, there = Path.cwd(), tempfile.mkdtemp()
    os.chdir(there)
    try:
        _with_memory().fit("x")
        return next(str(path) for path in Path().rglob("output.pkl"))
    finally:
        os.chdir(here)
        shutil.rmtree(there)

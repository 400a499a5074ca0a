"""What the pickles of scikit-learn's models name: ``python -m benchmarks.allow_list``.

Fits every estimator there is, writes it with joblib and with every pickle protocol from 2 on, notes what reading it
back names, makes and calls, and writes ``serving/host/restricted/lists/scikit-learn-X.Y.json``, which the restricted
loader goes by. Blocks for a minute. Read the difference before committing it: every line is something a file may do.
"""

from __future__ import annotations

import inspect
import io
import json
import pickle
import sys
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar

import joblib
import numpy as np
import scipy.sparse
import sklearn
from joblib.numpy_pickle import NumpyUnpickler
from sklearn import (
    compose,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    metrics,
    model_selection,
    multiclass,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.utils import all_estimators

from benchmarks import run
from serving.host.restricted.allowed import current_name
from tests.unit.host.test_every_estimator import LEFT_OUT, fitted

ROWS = np.random.default_rng(0).normal(size=(60, 4)) + 3
ANSWERS = np.arange(60) % 3
PROTOCOLS = (2, 3, 4, 5)
# what a joblib file uses for itself, and what estimators may hold beside arrays
ALWAYS = (
    *(
        "joblib.numpy_pickle.NumpyArrayWrapper",
        "numpy.matrix",
        "numpy.ndarray",
        "numpy.ma.core.MaskedArray",
    ),
    *("builtins.bool", "builtins.complex", "builtins.float", "builtins.int", "builtins.object", "builtins.str"),
    *("builtins.bytes", "builtins.dict", "builtins.list", "builtins.set", "builtins.frozenset", "builtins.tuple"),
)
DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)


class Recorder(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """Reads a file of ours and notes what it names, makes and calls."""

    dispatch: ClassVar[dict[int, Any]] = dict(NumpyUnpickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__("", file, ensure_native_byte_order=True)
        self.values: set[str] = set()
        self.created: set[str] = set()
        self.called: dict[str, set[str]] = {}
        self._names: dict[int, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        full = ".".join(current_name(module, name, self.proto))
        self.values.add(full)
        self._names[id(found)] = full
        return found

    def load_newobj(self) -> None:
        self.created.add(self._names[id(self.stack[-2])])
        super().load_newobj()

    def load_reduce(self) -> None:
        arguments, function = self.stack[-1], self.stack[-2]
        classes = {self._names[id(value)] for value in arguments if id(value) in self._names}
        self.called.setdefault(self._names[id(function)], set()).update(classes)
        super().load_reduce()

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.REDUCE[0]] = load_reduce


def main() -> int:
    """Fit, write, read, and write the list."""
    warnings.simplefilter("ignore")
    values, created, called = set(ALWAYS), set[str](), dict[str, set[str]]()
    for found in _written():
        values |= found.values
        created |= found.created
        for name, classes in found.called.items():
            called.setdefault(name, set()).update(classes)
    created |= {f"{kind.__module__}.{name}" for name, kind in all_estimators() if not inspect.isabstract(kind)}
    created |= {"joblib.numpy_pickle.NumpyArrayWrapper"}
    created -= called.keys()
    version = ".".join(sklearn.__version__.split(".")[:2])
    place = run.ROOT / "serving" / "host" / "restricted" / "lists" / f"scikit-learn-{version}.json"
    place.parent.mkdir(exist_ok=True)
    document = {
        "called": {name: sorted(called[name]) for name in sorted(called)},
        "created": sorted(created),
        "values": sorted(values - created - called.keys()),
    }
    place.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{place.relative_to(run.ROOT)}: {len(values | created)} globals, {len(called)} of them called")
    return 0


def _written() -> Iterator[Recorder]:
    for subject in _subjects():
        try:
            file = io.BytesIO()
            joblib.dump(subject, file)
            raws = [file.getvalue(), *(pickle.dumps(subject, protocol) for protocol in PROTOCOLS)]
        except Exception as error:  # noqa: BLE001 - what cannot be written cannot be published either
            print(f"{type(subject).__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        for raw in raws:
            recorder = Recorder(io.BytesIO(raw))
            recorder.load()
            yield recorder


def _subjects() -> Iterator[Any]:
    yield from (fitted(name)[0] for name, _ in all_estimators() if name not in LEFT_OUT)
    yield from _without_tables()
    yield from _losses()
    yield from _neighbours()
    yield from _kernels()
    yield from _compositions()
    yield from _functions()
    yield from _parameters()
    yield from _boosters()


def _without_tables() -> Iterator[Any]:
    words = ["the cat sat", "a dog sat down", "cats and dogs"] * 4
    for name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        yield getattr(feature_extraction.text, name)().fit(words)
    yield feature_extraction.DictVectorizer().fit([{"a": 1, "b": 2}])
    yield preprocessing.LabelBinarizer().fit(["a", "b"])
    yield preprocessing.LabelEncoder().fit(["a", "b"])
    yield preprocessing.MultiLabelBinarizer().fit([["a"], ["b", "c"]])


def _losses() -> Iterator[Any]:
    for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron"):
        yield linear_model.SGDClassifier(loss=loss).fit(ROWS, ANSWERS)
    for loss in ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"):
        yield linear_model.SGDRegressor(loss=loss).fit(ROWS, ANSWERS)
    for loss in ("squared_error", "absolute_error", "poisson", "gamma", "quantile"):
        quantile = 0.5 if loss == "quantile" else None
        yield ensemble.HistGradientBoostingRegressor(loss=loss, quantile=quantile).fit(ROWS, ANSWERS + 1)
    for loss in ("squared_error", "absolute_error", "huber", "quantile"):
        yield ensemble.GradientBoostingRegressor(loss=loss, n_estimators=3).fit(ROWS, ANSWERS)
    yield ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=3).fit(ROWS, ANSWERS % 2)
    for name in ("GradientBoostingClassifier", "AdaBoostClassifier", "HistGradientBoostingClassifier"):
        for classes in (2, 3):
            yield getattr(ensemble, name)().fit(ROWS, ANSWERS % classes)
    for name in ("GammaRegressor", "PoissonRegressor", "TweedieRegressor"):
        yield getattr(linear_model, name)().fit(ROWS, ANSWERS + 1)
    yield linear_model.TweedieRegressor(power=1.5, link="log").fit(ROWS, ANSWERS + 1)


def _neighbours() -> Iterator[Any]:
    special: dict[str, dict[str, Any]] = {
        "seuclidean": {"V": np.ones(4)},
        "mahalanobis": {"VI": np.eye(4)},
        "minkowski": {"p": 3},
        "p": {"p": 3},
    }
    for algorithm in ("kd_tree", "ball_tree", "brute"):
        for metric in set(neighbors.VALID_METRICS[algorithm]) & set(neighbors.VALID_METRICS["ball_tree"]) - {"pyfunc"}:
            made = neighbors.KNeighborsClassifier(
                2, algorithm=algorithm, metric=metric, metric_params=special.get(metric)
            )
            yield made.fit(ROWS[:, :2] if metric == "haversine" else ROWS, ANSWERS)
    yield neighbors.KNeighborsClassifier().fit(scipy.sparse.csr_matrix(ROWS), ANSWERS)
    for layout in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr"):
        yield getattr(scipy.sparse, f"{layout}_matrix")(ROWS)
        yield getattr(scipy.sparse, f"{layout}_array")(ROWS)


def _kernels() -> Iterator[Any]:
    kinds = gaussian_process.kernels
    sums = kinds.ConstantKernel() * kinds.RBF() + kinds.WhiteKernel() + kinds.Matern() * kinds.DotProduct()
    kernel = sums + kinds.RationalQuadratic() ** 2 + kinds.PairwiseKernel()
    yield gaussian_process.GaussianProcessRegressor(kernel).fit(ROWS, ANSWERS)
    yield kinds.ExpSineSquared()
    yield kinds.CompoundKernel([kinds.RBF()])


def _compositions() -> Iterator[Any]:
    # no distributions of scipy.stats in a search: setting their state executes a text in it
    yield model_selection.RandomizedSearchCV(svm.SVC(), {"C": [0.1, 1.0]}, n_iter=2).fit(ROWS, ANSWERS)
    for name in (
        "KFold",
        "ShuffleSplit",
        "RepeatedKFold",
        "StratifiedKFold",
        "StratifiedShuffleSplit",
        "TimeSeriesSplit",
    ):
        yield getattr(model_selection, name)()
    steps = (preprocessing.StandardScaler(), [0, 1]), (impute.SimpleImputer(), slice(2, 4))
    yield compose.make_column_transformer(*steps, remainder="passthrough").fit(ROWS)
    yield pipeline.make_pipeline(preprocessing.StandardScaler(), tree.DecisionTreeClassifier()).fit(ROWS, ANSWERS)
    for kind in (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor):
        yield kind(max_iter=3, categorical_features=[1]).fit(np.column_stack([ROWS, ANSWERS])[:, [0, 4, 1]], ANSWERS)
    constant = np.column_stack([ANSWERS == 1, np.zeros(60, int)])
    yield multiclass.OneVsRestClassifier(linear_model.LogisticRegression()).fit(ROWS, constant)
    yield _iterative_imputer().fit(np.where(ROWS > 5, np.nan, ROWS))
    yield compose.make_column_selector(dtype_include=np.number)
    yield compose.make_column_selector("a")


def _iterative_imputer() -> Any:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (without it the class is not there)

    return impute.IterativeImputer()


def _functions() -> Iterator[Any]:
    """Yield what is chosen by giving a function."""
    for name in metrics.get_scorer_names():
        yield metrics.get_scorer(name)
    for name in ("chi2", "f_classif", "f_regression", "mutual_info_classif", "mutual_info_regression", "r_regression"):
        yield feature_selection.SelectKBest(getattr(feature_selection, name), k=2).fit(np.abs(ROWS), ANSWERS)
    for function in (np.log1p, np.exp, np.sqrt, np.abs, np.log, np.expm1, np.square, np.log10, np.log2):
        yield preprocessing.FunctionTransformer(function).fit(ROWS)


def _parameters() -> Iterator[Any]:
    """Yield what may stand in a parameter or an attribute."""
    yield np.random.RandomState(0)
    yield np.random.default_rng(0)
    for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
        yield np.random.Generator(getattr(np.random, name)(0))
    yield [OrderedDict(a=1), defaultdict(int, a=1), defaultdict(list), slice(1, 2), range(3), bytearray(b"a")]
    yield np.ma.masked_array([1.0, 2.0], [True, False])
    yield [getattr(np, name)(1) for name in DTYPES] + [getattr(np, name) for name in DTYPES]
    yield np.array(["a", None, 1.5], dtype=object)
    yield np.array(["2026-01-01"], dtype="datetime64[D]")
    yield np.array([1j])


def _boosters() -> Iterator[Any]:
    import lightgbm
    import xgboost

    for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"):
        yield getattr(xgboost, name)(n_estimators=3).fit(ROWS, ANSWERS)
    yield xgboost.XGBRanker(n_estimators=3).fit(ROWS, ANSWERS, qid=np.arange(60) // 20)
    yield xgboost.XGBRegressor(n_estimators=3).fit(ROWS, ANSWERS).get_booster()
    for name in ("LGBMClassifier", "LGBMRegressor"):
        yield getattr(lightgbm, name)(n_estimators=3, verbose=-1).fit(ROWS, ANSWERS)
    ranker = lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(ROWS, ANSWERS, group=[20, 20, 20])
    yield ranker
    yield ranker.booster_


if __name__ == "__main__":
    sys.exit(main())

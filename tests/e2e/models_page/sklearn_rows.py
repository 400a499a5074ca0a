"""The rows of docs/models.md on scikit-learn, texts, dates and categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, TunedThresholdClassifierCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from tests.e2e.models_page.cases import case
from tests.e2e.models_page.shelf import Shelf
from tests.e2e.models_page.tables import (
    BOUGHT,
    CITIES,
    FEW,
    GAPS,
    IRIS,
    PEOPLE,
    PROBABILITIES,
    RANDOM,
    TEXTS,
    TOPICS,
    X,
    Y,
)


def mixed(final: Any = None) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (numbers, ["age", "income"]), (OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"
    )
    return make_pipeline(columns, LogisticRegression() if final is None else final)


@case("An estimator or a Pipeline")
def estimators(shelf: Shelf) -> None:
    shelf.answers(mixed().fit(GAPS, BOUGHT), GAPS[:9], *PROBABILITIES)
    shelf.answers(RandomForestClassifier(5, random_state=0).fit(X, Y), FEW, *PROBABILITIES)


@case("GridSearchCV, RandomizedSearchCV")
def searches(shelf: Shelf) -> None:
    grid = {"logisticregression__C": [0.1, 1.0]}
    shelf.answers(GridSearchCV(mixed(), grid, cv=2).fit(GAPS, BOUGHT), GAPS[:9], *PROBABILITIES)
    shelf.answers(RandomizedSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, n_iter=2, cv=2).fit(X, Y), FEW)


@case("Stacking, voting, calibrated")
def ensembles(shelf: Shelf) -> None:
    members = [("bayes", GaussianNB()), ("svm", LinearSVC())]
    shelf.answers(StackingClassifier(members, LogisticRegression(), cv=2).fit(X, Y), FEW, *PROBABILITIES)
    shelf.answers(VotingClassifier(members).fit(X, Y), FEW)
    shelf.answers(CalibratedClassifierCV(LinearSVC(), cv=2).fit(X, Y), FEW, *PROBABILITIES)
    tuned = TunedThresholdClassifierCV(LogisticRegression(), thresholds=5, cv=2)
    shelf.answers(tuned.fit(PEOPLE[["age", "income"]], BOUGHT), PEOPLE[["age", "income"]][:20])


@case("set_output(transform=")
def pandas_output(shelf: Shelf) -> None:
    steps = make_pipeline(StandardScaler(), PCA(2), LogisticRegression()).set_output(transform="pandas")
    shelf.answers(steps.fit(IRIS, Y), IRIS[::20])


@case("Several outputs")
def outputs(shelf: Shelf) -> None:
    shelf.answers(RandomForestRegressor(5, random_state=0).fit(X, X[:, :2]), FEW)
    several = MultiOutputClassifier(GaussianNB()).fit(X, np.c_[Y == 1, Y > 1].astype(int))
    shelf.answers(several, FEW, *PROBABILITIES)


@case("Labels that are text")
def labels(shelf: Shelf) -> None:
    shelf.answers(GaussianNB().fit(X, np.array(["setosa", "versicolor", "virginica"])[Y]), FEW)
    shelf.answers(GaussianNB().fit(X, Y == 1), FEW)


@case("Clusterers with predict")
def unsupervised(shelf: Shelf) -> None:
    shelf.answers(KMeans(3, n_init=1, random_state=0).fit(X), FEW, "predict", "transform")
    shelf.answers(IsolationForest(n_estimators=5, random_state=0).fit(X), FEW, "predict", "score_samples")
    shelf.answers(make_pipeline(StandardScaler(), PCA(2)).fit(X), FEW, "transform")


@case("DBSCAN, AgglomerativeClustering")
def dbscan(shelf: Shelf) -> None:
    model = DBSCAN(eps=0.8).fit(X)
    shelf.refuses(model)
    shelf.refuses(AgglomerativeClustering().fit(X))
    nearest = shelf.run("dbscan", model=model, X=X)["nearest"]
    shelf.published("clusters", nearest, FEW)


@case("LocalOutlierFactor")
def local_outliers(shelf: Shelf) -> None:
    shelf.refuses(LocalOutlierFactor().fit(X))
    shelf.run("localoutlierfactor", X=X)
    shelf.published("outliers", LocalOutlierFactor(novelty=True).fit(X), FEW + 0.1, "predict", "score_samples")


@case("NearestNeighbors")
def neighbors(shelf: Shelf) -> None:
    shelf.refuses(NearestNeighbors().fit(X))
    names = [f"flower {row}" for row in range(len(X))]
    shelf.run("nearestneighbors", X=X, names=names)
    shelf.published("nearest", None, X[:3] + 0.001, predict=np.array(names[:3]))


@case("A Gaussian process")
def gaussian_process(shelf: Shelf) -> None:
    shelf.answers(GaussianProcessRegressor(alpha=0.1, optimizer=None).fit(X[::5], Y[::5]), FEW + 0.1)


@case("Intervals, return_std")
def intervals(shelf: Shelf) -> None:
    regressor = GaussianProcessRegressor(alpha=0.1, optimizer=None)
    shelf.run("a-class-of-your-own", regressor=regressor, X=X, y=Y)
    mean, spread = regressor.predict(FEW, return_std=True)
    shelf.published("spread", None, FEW, predict={"mean": mean, "spread": spread})


@case("FunctionTransformer with a function of NumPy")
def functions(shelf: Shelf) -> None:
    shelf.answers(make_pipeline(FunctionTransformer(np.log1p), GaussianNB()).fit(X, Y), FEW, *PROBABILITIES)


@case("DictVectorizer at the front")
def dicts(shelf: Shelf) -> None:
    rows = [{"city": "Oslo", "age": 30.0}, {"city": "Voss", "age": 50.0}, {"city": "Oslo", "age": 70.0}]
    model = make_pipeline(DictVectorizer(), LogisticRegression()).fit(rows, [0, 1, 1])
    shelf.answers(model, rows, *PROBABILITIES)


# --- texts, dates, categories, images ---------------------------------------------------------------------------------


@case("Texts: a pipeline")
def texts(shelf: Shelf) -> None:
    for vectorizer in (TfidfVectorizer(stop_words="english", ngram_range=(1, 2)), CountVectorizer()):
        shelf.answers(make_pipeline(vectorizer, LogisticRegression()).fit(TEXTS, TOPICS), TEXTS[:6], *PROBABILITIES)


@case("A column of texts")
def text_column(shelf: Shelf) -> None:
    table = pd.DataFrame({"subject": TEXTS, "words": [len(text.split()) for text in TEXTS]})
    columns = make_column_transformer((TfidfVectorizer(), "subject"), remainder="passthrough")
    shelf.answers(make_pipeline(columns, LogisticRegression()).fit(table, TOPICS), table[:6], *PROBABILITIES)


@case("Pandas categories")
def categories(shelf: Shelf) -> None:
    shelf.answers(mixed().fit(CITIES, BOUGHT), CITIES[:9], *PROBABILITIES)
    trees = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    shelf.answers(trees.fit(CITIES, BOUGHT), CITIES[:9], *PROBABILITIES)


@case("Nullable dtypes")
def nullable(shelf: Shelf) -> None:
    table = pd.DataFrame(
        {"a": pd.array([1, 2, None, 4] * 9, dtype="Int64"), "b": pd.array([0.5, None, 1.5, 2] * 9, dtype="Float64")}
    )
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(table, [0, 1, 0, 1] * 9)
    shelf.answers(model, table[:4], *PROBABILITIES)


@case("Columns of bools")
def bools(shelf: Shelf) -> None:
    table = PEOPLE.assign(member=RANDOM.random(len(PEOPLE)) > 0.5)
    model = mixed().fit(table, BOUGHT)
    for rows in (table[:9], table[:9].astype({"member": int})):
        shelf.answers(model, rows, *PROBABILITIES)


SALES = pd.DataFrame({"when": pd.date_range("2026-01-01", periods=60, freq="11D"), "price": np.arange(60.0)})
SOLD = np.sin(np.arange(60.0))


@case("Columns of dates")
def encoded_dates(shelf: Shelf) -> None:
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["when"]), remainder="passthrough")
    shelf.answers(make_pipeline(columns, Ridge()).fit(SALES, SOLD), SALES[:9])


@case("Dates that code of your own")
def dates(shelf: Shelf) -> None:
    model = shelf.run("dates", X=SALES, y=SOLD, estimator=LinearRegression())["model"]
    shelf.published("sales", model, SALES[:9])


@case("Images, long rows")
def images(shelf: Shelf) -> None:
    pixels, digits = load_digits(return_X_y=True)
    shelf.answers(make_pipeline(StandardScaler(), GaussianNB()).fit(pixels, digits), pixels[:9])
    wide = RANDOM.normal(size=(9, 20_000))
    shelf.answers(Ridge().fit(wide, np.arange(9.0)), wide[:2])

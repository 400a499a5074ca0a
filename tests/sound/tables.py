"""What pandas puts into models of scikit-learn: columns, categories and classes of every dtype."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn import compose, ensemble, impute, linear_model, model_selection, naive_bayes, pipeline, preprocessing

from tests.sound.construction import ignore_warnings
from tests.sound.estimators import ROWS, Fitted, table

X, Y = table()
NUMBERS = pd.DataFrame(X, columns=["age", "income", "height", "weight", "rank", "rate"])
MIXED = NUMBERS.assign(city=np.array(["Lima", "Oslo", "Rome"])[Y], plan=list("ab") * 30)
_HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
TEXT_DTYPES: tuple[Any, ...] = (
    *(object, "str", pd.StringDtype("python")),
    *((pd.StringDtype("pyarrow"),) if _HAS_ARROW else ()),
)


def tables() -> Iterator[Fitted]:
    """Yield everything here; what cannot be fitted raises. Blocks for some seconds."""
    for make in (_chosen_columns, _categories, _dtypes, _answers, _outputs):
        with ignore_warnings(), np.errstate(all="ignore"):
            yield from make()


def _chosen_columns() -> Iterator[Fitted]:
    """Columns of a table as people take them from it."""
    numbers = MIXED.select_dtypes("number").columns
    named: dict[str, Any] = {
        "select_dtypes": numbers,
        "a part of columns": MIXED.columns[:3],
        "a difference": MIXED.columns.difference(["city", "plan"]),
        "one that was dropped": MIXED.drop(columns=["city", "plan"]).columns,
        "a series of names": numbers.to_series(),
        "a series of names, counted": pd.Series(list(numbers)),
        "an array of texts": numbers.array,
        "an array of objects": numbers.to_numpy(),
        "a mask": pd.Series(MIXED.dtypes == np.float64),
        "a mask without names": (MIXED.dtypes == np.float64).to_numpy(),
        "an index with a name": numbers.rename("features"),
        **{f"an index of {dtype}": pd.Index(list(numbers), dtype=dtype) for dtype in TEXT_DTYPES},
        "a list of lists": [*numbers],
    }
    scaler = preprocessing.StandardScaler()
    for label, columns in named.items():
        for remainder in ("drop", scaler):
            made = compose.ColumnTransformer([("a", scaler, columns)], remainder=remainder)
            rows = NUMBERS.assign(city=1.0, plan=2.0).astype({"city": "float32", "plan": "int64"})
            if "mask" in label:
                rows = rows[list(MIXED.columns)]
            yield Fitted(f"columns: {label}, {remainder}", made.fit(rows), rows)
    for label, places in {
        "a range": pd.RangeIndex(3),
        "numbers": pd.Index([0, 2, 3]),
        "small numbers": pd.Index([0, 2], dtype="int8"),
        "a series": pd.Series([1, 2]),
        "a mask": pd.Series([True, False, True, False, True, False]),
    }.items():
        made = compose.ColumnTransformer([("a", scaler, places)], remainder="passthrough")
        yield Fitted(f"places: {label}", made.fit(X), X)
        yield Fitted(f"places: {label}, of a table", made.fit(NUMBERS), NUMBERS)


def _categories() -> Iterator[Fitted]:
    """Categories as a column's own, as its different values, and of every kind."""
    kinds: dict[str, Any] = {str(dtype): MIXED["city"].astype(dtype) for dtype in TEXT_DTYPES}
    kinds |= {
        "category": MIXED["city"].astype("category"),
        "ordered": MIXED["city"].astype(pd.CategoricalDtype(["Rome", "Oslo", "Lima"], ordered=True)),
        "numbers": pd.Series(Y),
        "small numbers": pd.Series(Y, dtype="int8"),
        "nullable numbers": pd.Series(Y, dtype="Int64"),
        "fractions": pd.Series(Y + 0.5),
        "bools": pd.Series(Y == 1),
        "nullable bools": pd.Series(Y == 1, dtype="boolean"),
        "days": pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"] * 20)),
        "days in seconds": pd.Series(np.array(["2026-01-01", "2026-01-02"] * 30, dtype="datetime64[s]")),
        "durations": pd.Series(pd.to_timedelta([1, 2, 3] * 20, unit="D")),
    }
    for label, column in kinds.items():
        rows = column.to_frame("city")
        given: dict[str, Any] = {
            "as a category": column.astype("category").cat.categories,
            "as different values": column.unique(),
            "as a series": column.drop_duplicates(),
            "as an index": pd.Index(column.drop_duplicates()),
            "as an index of categories": pd.CategoricalIndex(column.drop_duplicates()),
            "as a list": list(column.drop_duplicates()),
            "as found": "auto",
        }
        for kind in (preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder):
            for how, categories in given.items():
                made = kind(categories=categories if how == "as found" else [categories])
                try:
                    fitted = made.fit(rows)
                except (ValueError, TypeError):  # categories that are not in order
                    continue
                yield Fitted(f"{kind.__name__}, {label}, {how}", fitted, rows)


def _dtypes() -> Iterator[Fitted]:
    """Columns with gaps and without, of each of pandas' dtypes."""
    texts = [MIXED["city"].astype(dtype) for dtype in TEXT_DTYPES]
    arrow: list[Any] = ["int64[pyarrow]", "float[pyarrow]", "bool[pyarrow]"] if _HAS_ARROW else []
    numbers = [
        pd.Series(Y).astype(dtype) for dtype in ("Int8", "Int64", "Float64", "boolean", *arrow) if dtype != "boolean"
    ]
    for column in [*texts, *numbers, MIXED["city"].astype("category")]:
        for gaps in (False, True):
            filled = column.copy()
            if gaps:
                filled.iloc[::7] = None
            rows = filled.to_frame("a")
            steps: list[Any] = [
                impute.SimpleImputer(strategy="most_frequent"),
                impute.SimpleImputer(strategy="most_frequent", missing_values=pd.NA),
                impute.SimpleImputer(strategy="constant", fill_value="?", missing_values=pd.NA),
                preprocessing.OneHotEncoder(handle_unknown="ignore"),
                preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2, drop="first"),
                preprocessing.OrdinalEncoder(encoded_missing_value=-1),
                *([preprocessing.TargetEncoder()] if hasattr(preprocessing, "TargetEncoder") else []),  # since 1.3
                preprocessing.StandardScaler(),
                ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype"),
                impute.MissingIndicator(),
            ]
            for step in steps:
                try:
                    fitted = step.fit(rows, Y)
                except (ValueError, TypeError, NotImplementedError):  # text where numbers belong, gaps
                    continue
                yield Fitted(f"{type(step).__name__}, {column.dtype}, {'gaps' if gaps else 'whole'}", fitted, rows)


def _answers() -> Iterator[Fitted]:
    """Classes out of a column of each dtype."""
    columns = [MIXED["city"].astype(dtype) for dtype in (*TEXT_DTYPES, "category")]
    columns += [pd.Series(Y).astype(dtype) for dtype in ("Int64", "int8", "category", "Float64")]
    columns += [pd.Series(Y == 1).astype(dtype) for dtype in ("bool", "boolean")]
    for column in columns:
        for estimator in (
            linear_model.LogisticRegression(),
            naive_bayes.GaussianNB(),
            ensemble.RandomForestClassifier(2),
            ensemble.HistGradientBoostingClassifier(max_iter=2),
            preprocessing.LabelEncoder(),
            preprocessing.LabelBinarizer(),
        ):
            is_labels = isinstance(estimator, (preprocessing.LabelEncoder, preprocessing.LabelBinarizer))
            try:
                fitted = estimator.fit(column) if is_labels else estimator.fit(NUMBERS, column)
            except (ValueError, TypeError):
                continue
            yield Fitted(
                f"{type(estimator).__name__}, classes of {column.dtype}", fitted, column if is_labels else NUMBERS
            )
    weights = dict(1.0 / pd.Series(Y).value_counts())
    yield Fitted("weights", linear_model.LogisticRegression(class_weight=weights).fit(NUMBERS, Y), NUMBERS)
    test_fold = pd.Series(np.arange(ROWS) % 3)
    search = model_selection.GridSearchCV(
        linear_model.Ridge(),
        {"alpha": [0.1, 1.0]},
        cv=model_selection.PredefinedSplit(test_fold),
    )
    yield Fitted("folds out of a series", search.fit(NUMBERS, Y), NUMBERS)
    priors = pd.Series([0.2, 0.3, 0.5])
    yield Fitted("priors", naive_bayes.GaussianNB(priors=priors).fit(NUMBERS, Y), NUMBERS)


def _outputs() -> Iterator[Fitted]:
    """Tables on the way from step to step."""
    outputs = ["default", "pandas", *(["polars"] if importlib.util.find_spec("polars") else [])]
    for output in outputs:
        columns = compose.ColumnTransformer(
            [("a", preprocessing.StandardScaler(), NUMBERS.columns)], verbose_feature_names_out=False
        )
        steps = pipeline.make_pipeline(columns, linear_model.LogisticRegression()).set_output(transform=output)
        yield Fitted(f"output {output}", steps.fit(NUMBERS, Y), NUMBERS)
    for output in ("pandas", "polars"):
        scaler = preprocessing.StandardScaler().fit(NUMBERS)
        scaler._sklearn_output_config = {"transform": output}
        yield Fitted(f"an output of {output}", scaler, NUMBERS)

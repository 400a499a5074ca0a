"""Columns that packages of the field keep in attributes of their own; the classes here only look like theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from serving.domain.signature import Container
from serving.host.model import LoadRefused
from serving.host.signature_of_estimator import signature_of

TABLE = pd.DataFrame({"colour": ["red", "green", "blue"] * 4, "size": np.linspace(0, 1, 12)})
LABELS = np.arange(12) % 2


def describe(estimator: Any) -> tuple[Container, list[tuple[str, str]]]:
    signature = signature_of(estimator)
    return signature.container, [(feature.name, str(feature.dtype)) for feature in signature.features]


# --- CatBoost ---------------------------------------------------------------------------------------------------------


class CatBoost(ClassifierMixin, BaseEstimator):
    """Forgets the number of its columns when it is pickled."""

    n_features_in_ = 0

    def __init__(self, feature_names_: list[str], categories: list[int]) -> None:
        self.feature_names_ = feature_names_
        self.categories = categories
        self.classes_ = np.array([0, 1])

    def get_cat_feature_indices(self) -> list[int]:
        return self.categories

    def get_text_feature_indices(self) -> list[int]:
        return []

    def predict(self, X: Any) -> Any:
        """Answer rows whose categories are no fractions, as CatBoost does."""
        rows = np.asarray(X, dtype=object)
        for place in self.categories:
            if any(isinstance(value, float) for value in rows[:, place]):
                raise TypeError("a category is a fraction")
        return np.zeros(len(rows))


CatBoost.__module__ = "catboost.core"


def test_catboost_knows_its_columns_and_which_have_categories() -> None:
    array, names = describe(CatBoost(["0", "1", "2"], []))
    assert (array, names) == (Container.ARRAY, [("x0", "number"), ("x1", "number"), ("x2", "number")])
    table, names = describe(CatBoost(["colour", "size"], [0]))
    assert (table, names) == (Container.DATAFRAME, [("colour", "any"), ("size", "number")])
    array, names = describe(make_pipeline(CatBoost(["0", "1"], [1])))
    assert (array, names) == (Container.ARRAY, [("x0", "number"), ("x1", "any")])


# --- category_encoders ------------------------------------------------------------------------------------------------


class Encoder(TransformerMixin, BaseEstimator):
    """Encodes columns by a Series for each, as OrdinalEncoder does, or by a dict of tables as CatBoostEncoder does."""

    def __init__(self, *, has_tables: bool = False) -> None:
        self.has_tables = has_tables

    def fit(self, X: Any, y: Any = None) -> Encoder:
        X = pd.DataFrame(X)
        self.cols = [name for name in X.columns if not pd.api.types.is_numeric_dtype(X[name])]
        self.feature_names_in_, self.n_features_in_ = list(X.columns), X.shape[1]
        codes = {name: pd.Series(range(X[name].nunique()), index=X[name].unique()) for name in self.cols}
        listed = [{"col": name, "mapping": each} for name, each in codes.items()]
        self.mapping = {name: each.to_frame() for name, each in codes.items()} if self.has_tables else listed
        return self

    def transform(self, X: Any) -> Any:
        X = pd.DataFrame(X)
        codes = [each["mapping"] for each in self.mapping] if not self.has_tables else self.mapping.values()
        for name, each in zip(self.cols, codes, strict=True):
            X[name] = X[name].map(each.squeeze()).fillna(-1).astype(float)
        return X


Encoder.__module__ = "category_encoders.ordinal"


@pytest.mark.parametrize("has_tables", [False, True])
def test_encoded_columns_have_the_values_that_their_encoder_knows(has_tables: bool) -> None:
    model = make_pipeline(Encoder(has_tables=has_tables), LogisticRegression()).fit(TABLE, LABELS)
    assert describe(model) == (Container.DATAFRAME, [("colour", "string"), ("size", "number")])


def test_an_encoder_that_was_fitted_on_an_array_takes_arrays() -> None:
    rows = TABLE.to_numpy()
    model = make_pipeline(Encoder(), LogisticRegression()).fit(rows, LABELS)
    container, names = describe(model)
    assert (container, names[0]) == (Container.ARRAY, ("x0", "string"))


# --- statsmodels ------------------------------------------------------------------------------------------------------


class Results:
    """Results of a regression: `predict` multiplies rows, constant included, or takes the columns of a formula."""

    def __init__(self, params: Any, **model: Any) -> None:
        self.params = params
        self.model = SimpleNamespace(**{"exog": None, "data": SimpleNamespace(), **model})

    def predict(self, exog: Any) -> Any:
        if hasattr(self.model.data, "model_spec"):
            return exog["size"] * 2
        return np.asarray(exog, dtype=float) @ np.asarray(self.params)[: np.asarray(exog).shape[1]]


Results.__module__ = "statsmodels.regression.linear_model"
NUMBERS = TABLE.assign(const=1.0)[["const", "size"]]


def test_results_take_as_many_columns_as_they_have_parameters() -> None:
    of_array = (Container.ARRAY, [("x0", "number"), ("x1", "number")])
    assert describe(Results(np.array([1.0, 2.0]))) == of_array
    assert describe(Results(pd.Series([1.0, 2.0]))) == of_array
    assert describe(Results(np.array([1.0, 2.0, 0.3]), k_extra=1)) == of_array
    assert describe(Results(np.ones((2, 2)))) == of_array
    assert describe(Results(np.array([1.0, 2.0]), exog=NUMBERS.to_numpy())) == of_array


def test_results_that_keep_a_table_name_its_columns() -> None:
    data = SimpleNamespace(orig_exog=NUMBERS)
    assert describe(Results(np.array([1.0, 2.0]), data=data)) == (
        Container.DATAFRAME,
        [("const", "number"), ("size", "number")],
    )


def test_results_of_a_formula_take_the_columns_before_it() -> None:
    patsy = SimpleNamespace(factor_infos=[SimpleNamespace(code=code) for code in ("np.log(size)", "C(Q('colour'))")])
    for formula in (patsy, SimpleNamespace(required_variables={"size", "colour"})):
        data = SimpleNamespace(model_spec=formula, frame=TABLE.assign(other=1, y=2.0))
        assert describe(Results(np.ones(4), data=data)) == (
            Container.DATAFRAME,
            [("colour", "string"), ("size", "number")],
        )
        data = SimpleNamespace(model_spec=formula)
        with pytest.raises(LoadRefused, match=r"fitted with a formula, .*X=rows"):
            signature_of(Results(np.ones(4), data=data))


def test_time_series_do_not_say_what_rows_they_take() -> None:
    series = type("Results", (Results,), {"__module__": "statsmodels.tsa.ar_model"})(np.ones(2))
    with pytest.raises(LoadRefused, match="does not say how many features it takes"):
        signature_of(series)

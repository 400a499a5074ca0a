"""Rows as clients send them, and a pipeline with a transformer for every kind of column."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder


def to_rows(frame: pd.DataFrame) -> list[list[Any]]:
    """Return the rows as lists, with None for missing values."""
    columns = [[None if pd.isna(cell) else cell for cell in frame[name].tolist()] for name in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def make_mixed_pipeline() -> Pipeline:
    """Return a pipeline with every usual transformer of a column."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    filled = make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore"))
    ordered = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    columns = ColumnTransformer(
        [
            ("numbers", numbers, ["age", "income"]),
            ("filled", filled, ["city"]),
            ("ordered", ordered, ["plan"]),
            ("texts", TfidfVectorizer(), "note"),
            ("target", TargetEncoder(), ["level"]),
        ],
        remainder="passthrough",
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500))

"""The rows that the models of docs/models.md are fitted on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris

PROBABILITIES = ("predict", "predict_proba")

RANDOM = np.random.default_rng(0)
X, Y = load_iris(return_X_y=True)
FEW = X[::20]
IRIS = pd.DataFrame(X, columns=["sepal length", "sepal width", "petal length", "petal width"])

PEOPLE = pd.DataFrame(
    {
        "age": RANDOM.integers(18, 90, 120).astype(float),
        "income": RANDOM.normal(5e4, 1e4, 120),
        "city": RANDOM.choice(["Oslo", "Bergen", "Voss"], 120),
    }
)
BOUGHT = ((PEOPLE["income"] > 5e4) | (PEOPLE["city"] == "Voss")).astype(int)
GAPS = PEOPLE.assign(age=PEOPLE["age"].where(PEOPLE.index % 7 > 0))
CITIES = PEOPLE.assign(city=PEOPLE["city"].astype("category"))

TEXTS = [
    "the cat sat",
    "a dog barks loudly",
    "cats and dogs",
    "stocks fall",
    "markets rise again",
    "selling stocks",
] * 4
TOPICS = ["pets", "pets", "pets", "money", "money", "money"] * 4

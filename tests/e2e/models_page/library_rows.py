"""The rows of docs/models.md on other libraries."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.e2e.models_page.cases import case
from tests.e2e.models_page.shelf import Shelf
from tests.e2e.models_page.tables import BOUGHT, FEW, GAPS, PEOPLE, PROBABILITIES, X, Y


@case("imbalanced-learn", "imblearn")
def imbalanced_learn(shelf: Shelf) -> None:
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import make_pipeline as make_sampling_pipeline

    steps = make_sampling_pipeline(StandardScaler(), SMOTE(random_state=0), LogisticRegression())
    shelf.answers(steps.fit(X, Y == 1), FEW, *PROBABILITIES)


@case("category_encoders", "category_encoders")
def category_encoders(shelf: Shelf) -> None:
    from category_encoders import TargetEncoder

    steps = make_pipeline(TargetEncoder(cols=["city"]), StandardScaler(), LogisticRegression())
    shelf.run("category_encoders", model=steps.fit(PEOPLE, BOUGHT))
    shelf.published("encoded", steps, PEOPLE[:9], *PROBABILITIES)


@case("feature-engine", "feature_engine")
def feature_engine(shelf: Shelf) -> None:
    from feature_engine.encoding import CountFrequencyEncoder
    from feature_engine.imputation import MeanMedianImputer

    first = make_pipeline(MeanMedianImputer(variables=["age"]), CountFrequencyEncoder(variables=["city"]))
    steps = make_pipeline(*(step for _, step in first.steps), StandardScaler(), LogisticRegression())
    shelf.run("feature-engine", model=steps.fit(GAPS, BOUGHT), X=GAPS)
    shelf.published("engineered", steps, GAPS[:9], *PROBABILITIES)


@case("statsmodels:", "statsmodels")
def statsmodels(shelf: Shelf) -> None:
    import statsmodels.api as sm

    constant = sm.add_constant(X)
    rows = sm.add_constant(FEW, has_constant="add")
    shelf.answers(sm.OLS(Y, constant).fit(), rows)
    table = pd.DataFrame(constant, columns=["const", "a", "b", "c", "d"])
    shelf.answers(sm.OLS(Y, table).fit(), table[::20])
    results = sm.OLS(Y, constant).fit()
    own = results.predict(rows)
    shelf.run("statsmodels", results=results)
    shelf.published("least-squares", None, rows, predict=own)


@case("statsmodels with a formula", "statsmodels")
def statsmodels_formula(shelf: Shelf) -> None:
    import statsmodels.formula.api as smf

    results = smf.ols("bought ~ income + C(city)", PEOPLE.assign(bought=BOUGHT, income=PEOPLE["income"] / 1e4)).fit()
    rows = PEOPLE.assign(income=PEOPLE["income"] / 1e4)[["income", "city"]][:9]
    shelf.answers(results, rows)


@case("PyTorch, in any file", "torch")
def torch_files(shelf: Shelf) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    shelf.refuses(net)
    shelf.refuses(net, torch.save, "1.pkl")
    shelf.ignores(b"PK", "1.pt")
    shelf.run("pytorch", net=net)
    own = net(torch.tensor(FEW, dtype=torch.float32)).detach().numpy()
    shelf.published("network", None, FEW, predict=own)


@case("Keras, TensorFlow", "keras", "torch")
def keras_files(shelf: Shelf) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    model: Any = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    own = model.predict(FEW, verbose=0)
    shelf.refuses(model)
    shelf.ignores(b"PK", "1.keras")
    shelf.ignores(b"\x89HDF", "1.h5")
    shelf.run("keras", model=model)
    shelf.published("keras", None, FEW, predict=own)


@case("skorch", "skorch", "torch")
def skorch(shelf: Shelf) -> None:
    import skorch
    import torch

    net = skorch.NeuralNetRegressor(torch.nn.Linear(4, 1), max_epochs=1, verbose=0)
    net.fit(X.astype("f"), Y.astype("f").reshape(-1, 1))
    shelf.refuses(net)


@case("sentence-transformers", "transformers", "torch")
def transformers(shelf: Shelf) -> None:
    from transformers import BertConfig, BertModel

    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    shelf.refuses(BertModel(small))


@case("spaCy", "spacy")
def spacy(shelf: Shelf) -> None:
    import spacy

    shelf.refuses(spacy.blank("en"))


@case("sktime, statsforecast, Prophet", "statsforecast")
def forecasters(shelf: Shelf) -> None:
    from statsforecast import StatsForecast
    from statsforecast.models import Naive

    days = pd.date_range("2026-01-01", periods=30)
    forecaster = StatsForecast(models=[Naive()], freq="D")
    forecaster.fit(pd.DataFrame({"unique_id": 1, "ds": days, "y": np.arange(30.0)}))
    shelf.refuses(forecaster)

"""The rows of docs/models.md on XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost

from tests.e2e.models_page.cases import case
from tests.e2e.models_page.shelf import Shelf
from tests.e2e.models_page.sklearn_rows import mixed
from tests.e2e.models_page.tables import BOUGHT, CITIES, FEW, PEOPLE, PROBABILITIES, X, Y

LEVELS = CITIES.assign(level=pd.Categorical(np.resize([1, 3, 7], len(CITIES))))


def save_native(model: Any, path: Path) -> None:
    model.save_model(str(path))


@case("XGBoost's estimators")
def xgboost_estimators(shelf: Shelf) -> None:
    shelf.answers(xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, Y), FEW, *PROBABILITIES)
    shelf.answers(mixed(xgboost.XGBRegressor(n_estimators=3, n_jobs=1)).fit(PEOPLE, BOUGHT), PEOPLE[:9])


@case("XGBoost's Booster")
def xgboost_boosters(shelf: Shelf) -> None:
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(X, Y), 3)
    own = booster.predict(xgboost.DMatrix(FEW))
    shelf.answers(booster, FEW, predict=own, predict_proba=own)
    shelf.answers(booster, FEW, write=save_native, file="1.ubj", predict=own)


@case("XGBoost's .json")
def xgboost_json(shelf: Shelf) -> None:
    model = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(X, Y)
    for file in ("1/model.json", "1/xgb_model.json", "1/x.bst", "1.json"):
        shelf.answers(model, FEW, write=save_native, file=file)
    shelf.answers(model, FEW, write=save_native, file="1.ubj")


@case("XGBoost on pandas categories")
def xgboost_categories(shelf: Shelf) -> None:
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1, enable_categorical=True).fit(LEVELS, BOUGHT)
    shelf.answers(model, LEVELS[:9], *PROBABILITIES)
    shelf.answers(model, LEVELS[:9], *PROBABILITIES, write=save_native, file="1.ubj")


@case("XGBoost's old binary format")
def xgboost_binary(shelf: Shelf) -> None:
    # XGBoost 3.1 and newer cannot write it: what follows the first bytes is not looked at
    shelf.refuses(b"binf" + bytes(500), lambda content, path: path.write_bytes(content), "1.ubj")


@case("LightGBM's estimators")
def lightgbm_estimators(shelf: Shelf) -> None:
    shelf.answers(lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(X, Y), FEW, *PROBABILITIES)
    booster = lightgbm.train({"objective": "regression", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, Y), 3)
    shelf.answers(booster, FEW)


@case("LightGBM's .txt")
def lightgbm_text(shelf: Shelf) -> None:
    model: Any = lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1).fit(X, Y)
    for file in ("1/model.txt", "1/lgbm_model.txt", "1/x.model", "1.txt"):
        shelf.answers(model.booster_, FEW, write=save_native, file=file)


@case("LightGBM on pandas categories")
def lightgbm_categories(shelf: Shelf) -> None:
    model: Any = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(LEVELS, BOUGHT)
    shelf.answers(model, LEVELS[:9], *PROBABILITIES)
    booster = model.booster_
    shelf.answers(booster, LEVELS[:9], write=save_native, file="1/model.txt")


@case("CatBoost's .cbm", "catboost")
def catboost_files(shelf: Shelf) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False).fit(X, Y)
    shelf.ignores(b"CBM1", "1.cbm")
    shelf.run("catboost-as-onnx", model=model)
    shelf.published("catboost", model, FEW, predict=model.predict(FEW).ravel(), predict_proba=model.predict_proba(FEW))


@case("CatBoost, pickled", "catboost")
def catboost_pickles(shelf: Shelf) -> None:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False, cat_features=["city"])
    shelf.run("catboost-pickled", model=model.fit(PEOPLE, BOUGHT))
    shelf.published("boosted", model, PEOPLE[:9], *PROBABILITIES)

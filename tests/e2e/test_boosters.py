"""XGBoost and LightGBM through the whole road: drop what they wrote, get what they would have answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from tests.e2e.harness import serving, until, write_version

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 3))
CLASSES = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 1)


def early_stopped() -> Any:
    """Return a booster that notes a better number of rounds than it has, and whose own answer is by all of them."""
    labels = (CLASSES > 0) ^ (RANDOM.random(200) < 0.2)
    parts = [xgboost.DMatrix(ROWS[half], labels[half]) for half in (slice(120), slice(120, 200))]
    parameters = {"objective": "binary:logistic", "eta": 0.9, "nthread": 1}
    booster = xgboost.train(
        parameters, parts[0], 60, evals=[(parts[1], "later")], early_stopping_rounds=3, verbose_eval=False
    )
    assert booster.best_iteration < booster.num_boosted_rounds() - 1
    return booster


def test_their_files_are_served_and_answer_as_the_libraries_do(tmp_path: Path) -> None:
    trees: Any = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(ROWS, CLASSES)
    more: Any = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(ROWS, ROWS[:, 2])
    store = tmp_path / "store"
    table = pd.DataFrame({"km": ROWS[:, 0], "make": pd.Categorical(np.array(["vw", "kia"])[CLASSES % 2])})
    cars: Any = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(table, CLASSES)
    for name in ("ubj", "json", "text", "cars"):
        (store / name / "1").mkdir(parents=True)
    trees.save_model(store / "ubj" / "1" / "model.ubj")
    trees.save_model(store / "json" / "1" / "model.json")
    trees.save_model(store / "lone.ubj")
    more.booster_.save_model(store / "text" / "1" / "model.txt")
    (store / "text" / "1" / "README.txt").write_text("trained on Monday")
    write_version(store / "pickled", 1, trees)
    stopped = early_stopped()
    stopped.save_model(store / "booster.ubj")
    cars.booster_.save_model(store / "cars" / "1" / "model.txt")
    fitted = {"ubj": trees, "json": trees, "lone": trees, "pickled": trees, "text": more}
    with serving(tmp_path, wait_ready=True) as server:
        for model, estimator in fitted.items():
            until(lambda model=model: server.active(model), f"{model} active")
            answer: Any = server.predict(model, [*ROWS[:20].tolist(), [None, 0.0, None]])
            assert answer.status_code == 200, answer.text
            rows = np.vstack([ROWS[:20], [np.nan, 0.0, np.nan]])
            predictions = answer.json()["predictions"]
            assert predictions == pytest.approx(estimator.predict(rows).tolist(), rel=1e-6)
        until(lambda: server.active("booster"), "booster active")
        answer = server.predict("booster", ROWS[:20].tolist()).json()
        assert answer["predictions"] == pytest.approx(stopped.predict(xgboost.DMatrix(ROWS[:20])).tolist(), rel=1e-6)
        sent = [{"km": 0.5, "make": "kia"}, {"km": None, "make": "vw"}, {"km": 0.5, "make": None}]
        until(lambda: server.active("cars"), "cars active")
        answer = server.predict("cars", sent).json()
        asked = pd.DataFrame(sent).astype({"km": float, "make": table["make"].dtype})
        assert answer["predictions"] == pytest.approx(cars.predict(asked).tolist(), rel=1e-6)
        assert not any(entry.get("event") == "version_rejected" for entry in server.log())

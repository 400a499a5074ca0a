"""Trains a model that begins with a transformer of a package, publishes it, and prints rows and its answers to them.

Its arguments are the transformer, ``module.Class``, and the store; the model is named like the class. It runs in an
environment that has the package.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).parents[3]))

import serving

TABLE = pd.DataFrame({"colour": ["red", "green", "blue", "red"] * 10, "size": [float(size) for size in range(40)]})


def train(full_name: str) -> Any:
    """Return a fitted pipeline that begins with such a transformer for the column `colour`."""
    module, _, name = full_name.rpartition(".")
    encoder = getattr(importlib.import_module(module), name)(cols=["colour"])
    labels = [int(colour == "red") for colour in TABLE["colour"]]
    return make_pipeline(encoder, LogisticRegression()).fit(TABLE, labels)


if __name__ == "__main__":
    name, store = sys.argv[1:]
    model, rows = train(name), TABLE[:7]
    serving.publish(model, name.rpartition(".")[2], X=TABLE, store=store, check=False)
    print(json.dumps({"instances": rows.to_dict("records"), "predict_proba": model.predict_proba(rows).tolist()}))

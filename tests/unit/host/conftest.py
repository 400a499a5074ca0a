"""Fixtures for the tests of the host: tables and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from serving.domain.signature import Signature
from serving.domain.version import Format
from serving.host.loading import load_model
from serving.host.model import LoadedModel

Load = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def people() -> pd.DataFrame:
    """200 rows with every kind of column and no missing value."""
    random = np.random.default_rng(3)
    rows = 200
    return pd.DataFrame(
        {
            "age": random.normal(40, 10, rows).round(1),
            "income": random.lognormal(10, 1, rows),
            "city": random.choice(["Lima", "Oslo", "Rome"], rows),
            "is_member": random.random(rows) > 0.5,
            "plan": random.choice(["basic", "extra"], rows),
            "level": random.choice([1, 2, 3], rows),
            "note": random.choice(["good day", "bad night", "so so"], rows),
        }
    )


@pytest.fixture(scope="session")
def gaps(people: pd.DataFrame) -> pd.DataFrame:
    """The same rows with missing values in age, city and plan."""
    frame = people.copy()
    frame.loc[::7, "age"] = np.nan
    frame.loc[::5, "city"] = None
    frame.loc[::9, "plan"] = None
    return frame


@pytest.fixture(scope="session")
def older(people: pd.DataFrame) -> Any:
    """Labels for `people`: 1 for an age over 40."""
    return (people.age > 40).astype(int).to_numpy()


@pytest.fixture
def reload(tmp_path: Path) -> Load:
    """Write an object to a file without a suffix, as in the cache, and load it."""

    def write_and_load(found: Any, declared: Signature | None = None) -> LoadedModel:
        joblib.dump(found, tmp_path / "blob")
        return load_model(str(tmp_path / "blob"), Format.JOBLIB, declared=declared)

    return write_and_load
